"""The door: an HTTP server that speaks OpenAI's interface to clients, and gRPC to Triton."""
