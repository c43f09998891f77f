"""Studies: lists of points that participants share, kept by Optuna."""
