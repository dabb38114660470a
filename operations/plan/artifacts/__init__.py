"""What is built on a host, the key of each artifact, and the command that makes it."""
