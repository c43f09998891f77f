"""What is run: settings, profiles, plans, overrides and requests."""
