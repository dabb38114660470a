"""What a release was made of, and what has moved since at its publishers."""
