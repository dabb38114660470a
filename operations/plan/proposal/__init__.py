"""A new profile for a model: what its repository says, what fits the GPUs, and the file with the reasons."""
