"""When to stop: thresholds and their exact front, exit rules, oracles, intervals, robustness."""
