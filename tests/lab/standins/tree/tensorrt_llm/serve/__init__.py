"""Stand-in for the code of trtllm-serve."""
