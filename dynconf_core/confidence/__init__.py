"""From accumulated logits to scores: smoothing, measures of confidence, and how reliable they are."""
