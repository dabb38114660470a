"""Stand-in for TensorRT-LLM's examples/llama/convert_checkpoint.py."""

from tensorrt_llm.commands.convert import llama

if __name__ == "__main__":
    llama()
