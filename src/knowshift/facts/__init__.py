"""What is asked: facts, topics, templates, answer matching, sources."""
