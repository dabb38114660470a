"""Stand-in for TensorRT-LLM's examples/gpt/convert_checkpoint.py."""

from tensorrt_llm.commands.convert import gpt

if __name__ == "__main__":
    gpt()
