"""Stand-in for the PyTorch backend: the modules that loading a model imports."""
