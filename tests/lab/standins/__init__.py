"""The lab's stand-ins: GPU tools, TensorRT-LLM and its Triton backend, container images, and model weights."""

from .tree import dockerfile, tensorrt_llm_tree

__all__ = ["dockerfile", "tensorrt_llm_tree"]
