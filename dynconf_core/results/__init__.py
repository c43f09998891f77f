"""What a run found, as files."""
