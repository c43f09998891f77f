"""The Prefect flows, and the command ``dynconf``."""
