"""The version that this stand-in plays: each tag of the repository has its own."""

__version__ = "0.13.0"
