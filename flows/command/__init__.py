"""The command ``dynconf``."""
