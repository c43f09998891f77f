"""The networks: plain torch modules whose activation is a parameter."""
