"""From accumulated logits to scores: smoothing, confidence measures, and the reliability of confidences."""
