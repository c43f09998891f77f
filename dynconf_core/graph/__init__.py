"""The computation graph of a network: from a torch module to nodes that conversion rewrites and simulation runs."""
