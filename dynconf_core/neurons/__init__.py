"""Models of spiking neurons: a state in, spikes and a state out."""
