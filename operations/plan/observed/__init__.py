"""What a probe found on a host."""
