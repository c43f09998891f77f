"""Settings as models of MLflow, and their place in its registry."""
