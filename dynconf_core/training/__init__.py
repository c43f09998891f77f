"""Training an ANN so that it converts."""
