"""Conversion schemes: the activation a network is trained with and the neurons it becomes."""
