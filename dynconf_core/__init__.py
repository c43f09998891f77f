"""Dynamic Confidence for spiking neural networks: train, convert, simulate, stop early, and judge."""
