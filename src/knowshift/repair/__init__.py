"""Repair: the change of weights that gives back what a fine-tune forgot and keeps what it learned."""
