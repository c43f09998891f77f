"""The quantised-clip activations an ANN is trained with."""
