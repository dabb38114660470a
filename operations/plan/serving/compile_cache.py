"""
Where the LLM API's PyTorch backend keeps what it compiles and what it measures of its kernels, so that a restart reads it.

Without it that work is done again at each start, in the container's memory. Variables: those of PyTorch and Triton's
compiler, of CUDA, and of NVIDIA/TensorRT-LLM 1.2 (_torch/autotuner.py, cpp/include/tensorrt_llm/deep_gemm/compiler.cuh).
The autotuner compares neither GPU nor version with what it reads, so that the key has both.
"""

from __future__ import annotations

from dataclasses import dataclass

from operations.plan.artifacts.keys import Inputs, key_of
from operations.plan.inventory.settings import Settings
from operations.plan.profile.profiles import LlmApiProfile

DIRECTORY = "caches"  # below the data root
PLACE = "/cache"  # in the container
# The autotuner keeps nothing on a disk before.
FIRST_AUTOTUNER = (1, 2)


@dataclass(frozen=True)
class CompileCache:
    """
    One directory, which the server's user writes.

    + key: of image, GPU model, weights, the number of workers, the service and its user: another of them is another directory, so
      that no server runs what another one has written
    + environment: the variables that name its parts to the server
    """

    key: str
    environment: dict[str, str]

    def path(self, data_root: str) -> str:
        """The directory on the host."""
        return f"{data_root}/{DIRECTORY}/{self.key}"


def compile_cache(
    profile: LlmApiProfile, settings: Settings, image: str, weights: str, gpu: str, version: tuple[int, ...]
) -> CompileCache | None:
    """
    The cache that a profile wants; None: it wants none.

    + image, weights: their keys
    + gpu: the GPU's name
    + version: of TensorRT-LLM
    """
    if not profile.compile_cache:
        return None
    workers = profile.gpus_needed
    environment = {
        "TORCHINDUCTOR_CACHE_DIR": f"{PLACE}/inductor",
        "TRITON_CACHE_DIR": f"{PLACE}/triton",
        "CUDA_CACHE_PATH": f"{PLACE}/cuda",
        "TRTLLM_DG_CACHE_DIR": f"{PLACE}/deep_gemm",
    }
    if version >= FIRST_AUTOTUNER:
        environment["TLLM_AUTOTUNER_CACHE_PATH"] = f"{PLACE}/autotuner.json"
    if workers == 1 and settings.front == "none":
        # several that build in one directory at the same time end with SIGBUS (NVIDIA/TensorRT-LLM issue 17233): workers, or the
        # two servers of a swap side by side
        environment["FLASHINFER_WORKSPACE_BASE"] = f"{PLACE}/flashinfer"
    made_from: Inputs = {
        "kind": "cache",
        "image": image,
        "weights": weights,
        "gpu": gpu,
        "service": settings.service_name,
        "user": settings.server_user,
        "tensor": profile.tensor_parallel,
        "pipeline": profile.pipeline_parallel,
    }
    return CompileCache(key_of(made_from), environment)
