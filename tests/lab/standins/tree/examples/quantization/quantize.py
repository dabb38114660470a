"""Stand-in for TensorRT-LLM's examples/quantization/quantize.py."""

from tensorrt_llm.commands.convert import quantize

if __name__ == "__main__":
    quantize()
