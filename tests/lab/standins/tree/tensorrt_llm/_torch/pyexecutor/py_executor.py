"""What every model of the PyTorch backend is run by. From 1.2 on it imports the code of the OpenAI server."""

from tensorrt_llm.version import __version__

if tuple(int(part) for part in __version__.split(".")[:2]) >= (1, 2):
    from tensorrt_llm.serve import responses_utils

    __all__ = ["responses_utils"]
