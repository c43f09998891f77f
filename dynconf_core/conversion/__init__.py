"""Converting a trained ANN into a spiking neural network."""
