"""The running server: start, golden requests, searches."""
