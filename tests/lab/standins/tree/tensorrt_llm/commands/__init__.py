"""Command-line entry points of the stand-in."""
