"""Evaluation of exit rules on traces: metrics, energy estimates and whole analyses."""
