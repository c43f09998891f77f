"""Runs in MLflow: the database, finding and making runs, and what they show."""
