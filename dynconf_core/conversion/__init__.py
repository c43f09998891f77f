"""From a trained ANN to a spiking neural network."""
