"""Traces: what any simulator can write, and all that exit rules need to read."""
