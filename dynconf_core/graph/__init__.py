"""A network as a graph of the few operations that conversion and simulation know."""
