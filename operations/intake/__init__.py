"""What is checked on the operator's machine before a connection."""
