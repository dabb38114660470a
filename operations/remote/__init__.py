"""Ways to run something on a host and to bring files there."""
