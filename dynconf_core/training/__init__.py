"""Training the ANN that will be converted."""
