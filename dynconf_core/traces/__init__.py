"""Traces: what every simulator can write and every decision reads."""
