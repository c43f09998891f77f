"""Figures of analyses and settings, drawn with matplotlib."""
