"""Stand-in for the executor of the PyTorch backend."""
