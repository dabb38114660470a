"""Stand-in for TensorRT-LLM: the same files, flags and words on a CPU, by a small numpy decoder."""

from .version import __version__

__all__ = ["__version__"]

# The real package prints the first line when it is imported, before anything its importer prints.
print(f"[TensorRT-LLM] TensorRT-LLM version: {__version__}", flush=True)
