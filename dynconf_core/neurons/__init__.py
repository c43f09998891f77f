"""Models of spiking neurons: they turn a state and an input current into spikes and a new state."""
