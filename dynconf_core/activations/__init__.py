"""The quantised, clipped activations that an ANN is trained with."""
