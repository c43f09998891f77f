"""Which exit rule to take, and what it promises on unseen images."""
