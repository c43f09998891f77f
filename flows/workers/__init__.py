"""The processes in which a run computes its settings, a few at a time."""
