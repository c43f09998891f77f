"""When to stop: thresholds and their exact front, exit rules, the chosen operating point, upper bounds."""
