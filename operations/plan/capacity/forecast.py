"""What a deployment will take, before it is made: GPU memory, disk and host memory, and what cannot work at all.

Counts of weights and of the KV cache are computed exactly from the architecture; whatever depends on kernels,
buffers or loaders is an estimate, is called one, and leads to a warning, never to a refusal. Everything is in bytes.

The rules of the estimates, with what they were compared with:

- activations: TensorRT keeps one layer's tensors for max_num_tokens tokens (docs/source/reference/memory.md of
  TensorRT-LLM): max_num_tokens x (4 x hidden + (q + k + v + 2 x MLP) / tensor_parallel) values; two float32 copies of
  the logits of a batch; three int32 arrays of batch x beams x max_seq_len in the decoder. The log in that page (engine
  6695 MiB, 1134 MiB execution context, 223 MiB buffers, 8.6 GiB used in all) is met within 5 %, the 480 MiB of
  https://github.com/triton-inference-server/tensorrtllm_backend/issues/577 within 15 %.
- 1 GiB a rank for the CUDA context, NCCL and cuBLAS: what that log leaves unexplained is 0.7 GiB.
- host memory of an engine build: 2.5 x the rank's weights + 4 GiB. Measured by others: 38.5 GB for 15.3 GB
  (Llama-3-8B), 176 GB for 70 GB (Command-R), 6.6 GB for 0.78 GB (examples/gpt/README.md).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from operations.plan.capacity.deployment import Deployment
from operations.plan.capacity.precision import FORMATS, called
from operations.plan.profile.architecture import DTYPE_BYTES, Parameters
from operations.plan.units import GIB, gib

# Sizes of the images in GiB, as the compatibility page of support_matrix.py states them ("34G"); whether packed or
# unpacked it does not say, so an image is taken to have that size once unpacked.
IMAGE_GIB = {
    "24.04": 34.0,
    "24.05": 34.0,
    "24.06": 31.0,
    "24.07": 23.0,
    "24.08": 21.0,
    "24.09": 21.0,
    "24.10": 23.3,
    "24.11": 24.8,
    "24.12": 22.0,
    "25.01": 30.0,
    "25.02": 28.0,
    "25.03": 28.0,
    "25.04": 17.0,
    "25.05": 17.0,
    "25.06": 18.3,
    "25.07": 18.3,
    "25.08": 20.49,
    "25.09": 16.25,
    "25.10": 16.21,
    "25.11": 12.25,
    "25.12": 16.04,
    "26.01": 16.17,
    "26.02": 16.17,
    "26.03": 14.18,
    "26.04": 14.24,
    "26.05": 14.24,
    "26.06": 14.24,
    "26.07": 14.24,
}
# A self-built image was 28 GB where NGC's was smaller: https://github.com/NVIDIA/TensorRT-LLM/issues/103
BUILT_IMAGE_GIB = 28.0
# Times the image's size that a disk holds at the worst moment: packed and unpacked while it is pulled; its base, the
# stage that compiles and the result while it is built. Both are judgement.
PULL_FACTOR, BUILD_FACTOR = 2, 3

CUDA_CONTEXT = GIB
HOST_BASE = 4 * GIB  # Python, torch, CUDA's libraries: what a build takes beside weights
HOST_FACTOR = 2.5


@dataclass(frozen=True)
class Forecast:
    """
    What a deployment takes; bytes, unless a name says otherwise.

    Exact: weights, kv_bytes_per_token. Estimates: `ESTIMATES`.
    """

    gpu_name: str
    gpu_memory: int  # of one GPU; 0: not known
    ranks: int
    parameters: int  # count
    weights_per_rank: int
    activations: int
    cuda_context: int
    kv_memory: int | None  # left for the KV cache on the fullest rank; None: the GPU's memory is not known
    kv_bytes_per_token: int  # on one rank
    kv_tokens_by_memory: int | None  # count
    kv_tokens_cap: int | None  # count
    kv_tokens: int | None  # count: the smaller of the two
    max_seq_len: int  # tokens
    max_concurrent: int | None  # count of sequences of max_seq_len
    disk_weights: int
    disk_checkpoint: int
    disk_engine: int
    disk_image: int
    ram_conversion: int
    ram_build: int

    @property
    def gpu_needed(self) -> int:
        """On each GPU, once the server is loaded alone."""
        cache = (self.kv_tokens or 0) * self.kv_bytes_per_token
        return self.weights_per_rank + self.activations + self.cuda_context + cache

    @property
    def disk(self) -> int:
        """All that lies on the disk at the worst moment."""
        return self.disk_weights + self.disk_checkpoint + self.disk_engine + self.disk_image


ESTIMATES = frozenset(
    {
        "activations",
        "cuda_context",
        "kv_memory",
        "kv_tokens_by_memory",
        "kv_tokens",
        "max_concurrent",
        "disk_checkpoint",
        "disk_engine",
        "disk_image",
        "ram_conversion",
        "ram_build",
        "disk",
    }
)


def forecast(wanted: Deployment) -> Forecast:
    """What a deployment takes. Pure; checks nothing: see `check`."""
    model = wanted.architecture
    degrees = (wanted.tensor_parallel, wanted.pipeline_parallel)
    weights = rank_weights(wanted, wanted.tensor_parallel)
    all_ranks = _stored(wanted, model.all_ranks_parameters(*degrees, wanted.use_parallel_embedding))
    made = wanted.kind == "engine"  # converted and built; the LLM API loads the weights as they are
    downloaded = (
        model.weight_bytes(wanted.weights_dtype or wanted.dtype)
        if made
        else _stored(wanted, model.rank_parameters())
    )
    activations = _activations(wanted)
    per_token = model.kv_bytes_per_token(wanted.kv_cache_dtype or wanted.dtype, *degrees)
    kv_memory = by_memory = None
    if wanted.gpu_memory:
        free = max(0, wanted.gpu_memory - weights - activations - CUDA_CONTEXT)
        kv_memory = int(free * wanted.kv_cache_free_gpu_mem_fraction)
        by_memory = kv_memory // per_token // wanted.block * wanted.block
    limits = [n for n in (by_memory, wanted.max_tokens_in_paged_kv_cache) if n is not None]
    tokens = min(limits) if limits else None
    if wanted.built_from_source:
        image = max(IMAGE_GIB[wanted.release], BUILT_IMAGE_GIB) * BUILD_FACTOR
    else:
        image = IMAGE_GIB[wanted.release] * PULL_FACTOR
    return Forecast(
        gpu_name=wanted.gpu_name,
        gpu_memory=wanted.gpu_memory,
        ranks=wanted.ranks,
        parameters=model.parameters,
        weights_per_rank=weights,
        activations=activations,
        cuda_context=CUDA_CONTEXT,
        kv_memory=kv_memory,
        kv_bytes_per_token=per_token,
        kv_tokens_by_memory=by_memory,
        kv_tokens_cap=wanted.max_tokens_in_paged_kv_cache,
        kv_tokens=tokens,
        max_seq_len=wanted.sequence,
        max_concurrent=None if tokens is None else tokens // wanted.tokens_of_one_sequence,
        disk_weights=downloaded,
        disk_checkpoint=all_ranks if made else 0,
        disk_engine=all_ranks if made else 0,
        disk_image=int(image * GIB),
        # the whole model is loaded, then one rank after the other converted beside it
        ram_conversion=downloaded + weights + HOST_BASE if made else 0,
        ram_build=int(HOST_FACTOR * weights) * min(wanted.workers, wanted.ranks) + HOST_BASE if made else 0,
    )


def rank_weights(wanted: Deployment, tensor_parallel: int) -> int:
    """Bytes of weights on the fullest rank, at some degree of tensor parallelism."""
    counts = wanted.architecture.rank_parameters(
        tensor_parallel, wanted.pipeline_parallel, wanted.use_parallel_embedding
    )
    return _stored(wanted, counts)


def _stored(wanted: Deployment, counts: Parameters) -> int:
    """Bytes of so many weights in the deployment's dtype and format."""
    size = DTYPE_BYTES[wanted.dtype]
    how = FORMATS[wanted.quantization or "full_prec"]
    if how.bits is None:
        return counts.total * size
    group = wanted.awq_block_size if wanted.quantization in ("int4_awq", "w4a8_awq") else how.group
    # rounded down: a refusal is built on it
    return (counts.matrices * (how.bits * group + how.scale_bits)) // (8 * group) + counts.others * size


def _activations(wanted: Deployment) -> int:
    """The estimate of this module's docstring."""
    model, tp = wanted.architecture, wanted.tensor_parallel
    attention = (model.heads + 2 * model.kv_heads) * model.head_size
    split = attention + (2 if model.gated_mlp else 1) * model.intermediate_size
    # at most 2 bytes in every format, unless the model runs in float32
    layer = wanted.tokens * (4 * model.hidden_size + -(-split // tp)) * DTYPE_BYTES[wanted.dtype]
    sequences = wanted.batch * wanted.max_beam_width
    return layer + sequences * model.vocabulary * 8 + sequences * wanted.sequence * 12


def lines(seen: Forecast) -> list[str]:
    """The forecast as an aligned table: what, how much, and whether it is an estimate."""
    rows: list[tuple[str, str, str]] = []

    def row(label: str, value: str, field: str, note: str = "") -> None:
        marks = [*(["estimate"] if field in ESTIMATES else []), *([note] if note else [])]
        rows.append((label, value, ", ".join(marks)))

    each = f"on each of {seen.ranks} GPUs" if seen.ranks > 1 else "on one GPU"
    memory = gib(seen.gpu_memory) if seen.gpu_memory else "not known"
    row("GPU memory", memory, "gpu_memory", called(seen.gpu_name))
    row("  weights", gib(seen.weights_per_rank), "weights_per_rank", each)
    row("  activations", gib(seen.activations), "activations")
    row("  CUDA and NCCL", gib(seen.cuda_context), "cuda_context")
    row("  KV cache", "not known" if seen.kv_memory is None else gib(seen.kv_memory), "kv_memory", "at most")
    row("KV cache a token", gib(seen.kv_bytes_per_token), "kv_bytes_per_token", each)
    if seen.kv_tokens is None:
        row("tokens that fit", "not known", "kv_tokens")
    else:
        capped = seen.kv_tokens == seen.kv_tokens_cap
        row(
            "tokens that fit",
            str(seen.kv_tokens),
            "kv_tokens",
            "max_tokens_in_paged_kv_cache" if capped else "",
        )
    if seen.max_concurrent is not None:
        row(f"sequences of {seen.max_seq_len}", str(seen.max_concurrent), "max_concurrent", "at a time")
    row("disk", gib(seen.disk), "disk", "at the worst moment")
    row("  weights", gib(seen.disk_weights), "disk_weights", f"{seen.parameters / 1e9:.2f} billion")
    if seen.disk_engine:
        row("  checkpoint", gib(seen.disk_checkpoint), "disk_checkpoint")
        row("  engine", gib(seen.disk_engine), "disk_engine")
    row("  image", gib(seen.disk_image), "disk_image", "while it is made")
    if seen.ram_build:
        row("host memory", gib(max(seen.ram_conversion, seen.ram_build)), "ram_build")
        row("  conversion", gib(seen.ram_conversion), "ram_conversion")
        row("  engine build", gib(seen.ram_build), "ram_build")
    first, second = (max(len(cells[column]) for cells in rows) for column in (0, 1))
    return [f"{label:<{first}}  {value:>{second}}  {marks}".rstrip() for label, value, marks in rows]


def as_dict(seen: Forecast) -> dict[str, Any]:
    """The forecast for JSON: every field in bytes or counts, and the names of those that are estimates."""
    return {**asdict(seen), "disk": seen.disk, "estimates": sorted(ESTIMATES)}
