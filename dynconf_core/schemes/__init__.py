"""Conversion schemes: what a network is trained with and which neurons it becomes, one file each."""
