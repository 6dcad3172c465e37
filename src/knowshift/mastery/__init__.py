"""What is known: the mastery score, its levels, and SFT sets chosen by level."""
