"""What a user triggers: flows that wire the stages, and the command over them."""
