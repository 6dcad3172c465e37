"""What changed in answers and tokens: accuracy, transitions, drift, statistics."""
