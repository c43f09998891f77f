"""Running an SNN over time."""
