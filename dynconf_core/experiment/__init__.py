"""Experiments: settings, profiles, plans, overrides, requests and stages."""
