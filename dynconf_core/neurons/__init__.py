"""Spiking neurons as functions: ``step(current, state, params) -> (spikes, state)``."""
