"""What changed in the weights, and putting any share of it back."""
