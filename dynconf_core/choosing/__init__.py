"""Choosing an exit rule, and what it promises on unseen images."""
