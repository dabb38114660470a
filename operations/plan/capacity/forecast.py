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

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from operations.plan.capacity.gpu import Gpu
from operations.plan.catalog.support_matrix import RELEASES, stack_release, version_tuple
from operations.plan.errors import PlanError, suggestion
from operations.plan.profile.architecture import DTYPE_BYTES, Architecture, Parameters, printable
from operations.plan.units import GIB, MIB, gib

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

CHECKPOINT_DTYPES = ("float16", "bfloat16", "float32")
KV_CACHE_DTYPES = ("int8", "fp8")
_LONGEST_WORD = 80  # characters of a release, a version or a format


@dataclass(frozen=True)
class Format:
    """
    How a quantization stores the matrices of the layers; embedding, head, norms and router stay in the dtype.

    `bits` a weight, and `scale_bits` for each group of weights (0: so few scales that they do not count). Compute
    capability it `needs`, and what to use `instead` below it.
    """

    bits: int | None
    needs: tuple[int, int] = (0, 0)
    instead: str = ""
    scale_bits: int = 0
    group: int = 1


# Needs: docs/source/reference/support-matrix.md of TensorRT-LLM 0.11 to 0.15 (SmoothQuant not on SM70 and 75, INT4 AWQ
# not below SM75, FP8 and W4A8 from SM89 on, NVFP4 on Blackwell).
FORMATS = {
    "full_prec": Format(None),
    "int8_wo": Format(8),
    "int4_wo": Format(4),
    "int8_sq": Format(8, (8, 0), "int8_wo"),
    "int4_awq": Format(4, (7, 5), "int8_wo", scale_bits=16, group=128),
    "w4a8_awq": Format(4, (8, 9), "int4_awq", scale_bits=16, group=128),
    "fp8": Format(8, (8, 9), "int8_sq or int4_awq"),
    "nvfp4": Format(4, (10, 0), "fp8 (from 8.9 on) or int4_awq", scale_bits=8, group=16),
}

# From this version on the runtime shortens max_seq_len to what the KV cache holds, and says so in a warning, where
# older ones refuse to start: getMaxAttentionWindowUpperBound is in kvCacheManager.h since 0.12.0.dev2024080600.
SHORTENS_FROM = (0, 12)

# From this version on compute capability 8.0 is the least (release notes of 0.15), and 7.0 before; devices of 10.0 and
# above came with 0.17 (its release notes).
AMPERE_FROM, BLACKWELL_FROM = (0, 15), (0, 17)

# field -> the key a person writes, by the kind of the profile
_ENGINE_KEYS = {
    "dtype": "checkpoint.dtype",
    "quantization": "checkpoint.quantization.format",
    "kv_cache_dtype": "checkpoint.quantization.kv_cache_dtype",
    "tensor_parallel": "checkpoint.tensor_parallel",
    "pipeline_parallel": "checkpoint.pipeline_parallel",
    "moe_ep_size": "checkpoint.flags.moe_ep_size",
    "awq_block_size": "checkpoint.quantization.awq_block_size",
    "max_batch_size": "engine.max_batch_size",
    "max_input_len": "engine.max_input_len",
    "max_seq_len": "engine.max_seq_len",
    "max_num_tokens": "engine.max_num_tokens",
    "max_beam_width": "engine.max_beam_width",
    "tokens_per_block": "engine.tokens_per_block",
    "workers": "engine.workers",
    "kv_cache_free_gpu_mem_fraction": "repository.parameters.kv_cache_free_gpu_mem_fraction",
    "max_tokens_in_paged_kv_cache": "repository.parameters.max_tokens_in_paged_kv_cache",
    "max_attention_window_size": "repository.parameters.max_attention_window_size",
}
_LLMAPI_KEYS = {
    "dtype": "llm.dtype",
    "quantization": "the weights' quantization",
    "kv_cache_dtype": "llm.kv_cache_config.dtype",
    "tensor_parallel": "llm.tensor_parallel_size",
    "pipeline_parallel": "llm.pipeline_parallel_size",
    "moe_ep_size": "llm.moe_expert_parallel_size",
    "max_batch_size": "llm.max_batch_size",
    "max_input_len": "llm.max_input_len",
    "max_seq_len": "llm.max_seq_len",
    "max_num_tokens": "llm.max_num_tokens",
    "max_beam_width": "llm.max_beam_width",
    "tokens_per_block": "llm.kv_cache_config.tokens_per_block",
    "kv_cache_free_gpu_mem_fraction": "llm.kv_cache_config.free_gpu_memory_fraction",
    "max_tokens_in_paged_kv_cache": "llm.kv_cache_config.max_tokens",
    "max_attention_window_size": "llm.kv_cache_config.max_attention_window",
}
KEYS = {"engine": _ENGINE_KEYS, "llmapi": _LLMAPI_KEYS}

# field -> (smallest, largest); a field may be None where its default is None
_BOUNDS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("tensor_parallel", "pipeline_parallel", "moe_ep_size", "workers"), (1, 64)),
    **dict.fromkeys(("awq_block_size", "tokens_per_block"), (1, 2**16)),
    **dict.fromkeys(("max_input_len", "max_seq_len"), (1, 2**27)),
    **dict.fromkeys(("max_num_tokens", "max_attention_window_size"), (1, 2**31 - 1)),
    "max_batch_size": (1, 2**20),
    "max_beam_width": (1, 1024),
    "max_tokens_in_paged_kv_cache": (1, 2**40),
    "gpu_memory_mib": (0, 2**24),
}


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """
    What a forecast is made of. None means that nothing is said: the version's own default.

    + dtype: of the checkpoint; weights_dtype: of the downloaded files, None for the same
    + quantization: quantize.py's format, or int8_wo / int4_wo for a converter's weight-only flags
    + gpu_memory_mib: of one GPU, in all; 0 where nvidia-smi does not tell
    + weight_streaming: trtllm-build's flag of that name, with which weights need not all be on the GPU
    + kind: of the profile, engine or llmapi: names the keys in errors, and chooses the defaults
    + splits_attention: whether each rank has a part of the heads; false with attention data parallelism
    + release: YY.MM of the serving image

    Raises PlanError for a value that is not one.
    """

    architecture: Architecture
    dtype: str
    release: str
    gpu_memory_mib: int
    gpu_name: str = "the GPU"
    weights_dtype: str | None = None
    quantization: str | None = None
    awq_block_size: int = 128
    kv_cache_dtype: str | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    moe_ep_size: int | None = None
    use_parallel_embedding: bool = False
    max_batch_size: int | None = None
    max_input_len: int | None = None
    max_seq_len: int | None = None
    max_num_tokens: int | None = None
    max_beam_width: int = 1
    tokens_per_block: int | None = None
    workers: int = 1
    kv_cache_free_gpu_mem_fraction: float = 0.9
    max_tokens_in_paged_kv_cache: int | None = None
    max_attention_window_size: int | None = None
    built_from_source: bool = False
    weight_streaming: bool = False
    kind: str = "engine"
    splits_attention: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.architecture, Architecture):
            raise PlanError("architecture", type(self.architecture).__name__, "an Architecture")
        # bounded first: looking for the nearest known word takes long where a word is long
        if not isinstance(self.release, str) or len(self.release) > _LONGEST_WORD:
            raise PlanError("image.release", printable(self.release), "a release YY.MM of the support matrix")
        if not isinstance(self.gpu_name, str):
            raise PlanError("GPU", printable(self.gpu_name), "the name nvidia-smi prints")
        stack_release(self.release, "image.release")
        _one_of(self.key("dtype"), self.dtype, CHECKPOINT_DTYPES)
        if self.weights_dtype is not None:
            _one_of("weights dtype", self.weights_dtype, CHECKPOINT_DTYPES)
        _precision_words(self.quantization, self.kv_cache_dtype)
        optional = {field.name for field in fields(self) if field.default is None}
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            if value is None and name in optional:
                continue
            if type(value) is not int or not low <= value <= high:
                raise PlanError(self.key(name), printable(value), f"a whole number from {low} to {high}")
        for name in ("use_parallel_embedding", "built_from_source", "weight_streaming"):
            if type(getattr(self, name)) is not bool:
                raise PlanError(name, printable(getattr(self, name)), "true or false")
        fraction = self.kv_cache_free_gpu_mem_fraction
        if type(fraction) not in (int, float) or not 0 < fraction <= 1:  # nan compares false
            key = self.key("kv_cache_free_gpu_mem_fraction")
            raise PlanError(key, printable(fraction), "a number above 0 and at most 1")

    def key(self, name: str) -> str:
        """The key of the profile that a field comes from."""
        return "GPU memory in MiB" if name == "gpu_memory_mib" else KEYS[self.kind].get(name, name)

    @property
    def version(self) -> tuple[int, ...]:
        """TensorRT-LLM's, as numbers."""
        return RELEASES[self.release].version

    @property
    def ranks(self) -> int:
        """One GPU each."""
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def gpu_memory(self) -> int:
        """Bytes of one GPU; 0 where it is not known."""
        return self.gpu_memory_mib * MIB

    @property
    def sequence(self) -> int:
        """max_seq_len, or trtllm-build's default: the model's own limit, or 1024 + 1024 before 0.11."""
        if self.max_seq_len is not None:
            return self.max_seq_len
        if self.version < (0, 11):
            return (1024 if self.max_input_len is None else self.max_input_len) + 1024
        return self.architecture.max_positions

    @property
    def window(self) -> int:
        """Tokens of one sequence that the KV cache holds."""
        return min(self.sequence, self.max_attention_window_size or self.sequence)

    @property
    def batch(self) -> int:
        """max_batch_size, or trtllm-build's default: 1, 256 from 0.11 on, 2048 from 0.14 on."""
        default = 1 if self.version < (0, 11) else 256 if self.version < (0, 14) else 2048
        return self.max_batch_size or default

    @property
    def tokens(self) -> int:
        """max_num_tokens, or trtllm-build's default: 8192, and before 0.11 the whole batch's longest input.

        No more than a full batch of the longest sequences (check_max_num_tokens of TensorRT-LLM clips it).
        """
        longest = min(1024 if self.max_input_len is None else self.max_input_len, self.sequence)
        default = self.batch * longest if self.version < (0, 11) else 8192
        return min(self.max_num_tokens or default, self.batch * self.sequence)

    @property
    def block(self) -> int:
        """tokens_per_block, or the default: 32 from 0.19 on, 64 before, and 128 in 0.9."""
        default = 128 if self.version < (0, 10) else 64 if self.version < (0, 19) else 32
        return self.tokens_per_block or default

    @property
    def tokens_of_one_sequence(self) -> int:
        """What one sequence takes of the KV cache: whole blocks for each beam."""
        return self.max_beam_width * -(-self.window // self.block) * self.block

    def longest_in(self, tokens: int) -> int:
        """The longest sequence that a KV cache of so many tokens holds."""
        return tokens // self.block // self.max_beam_width * self.block


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
    weights = _rank_weights(wanted, wanted.tensor_parallel)
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


def _rank_weights(wanted: Deployment, tensor_parallel: int) -> int:
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


def check(wanted: Deployment) -> tuple[str, ...]:
    """
    Refuse what is certain not to work.

    Raises PlanError naming the key, with the numbers and the nearest value that works. Returns warnings, one line
    each, for what rests on an estimate.
    """
    _check_parallelism(wanted)
    lengths = _check_lengths(wanted)
    _check_weights(wanted)
    return (*lengths, *_check_cap(wanted), *_memory_warnings(wanted))


def _check_parallelism(wanted: Deployment) -> None:
    model, tp, pp, ep = (
        wanted.architecture,
        wanted.tensor_parallel,
        wanted.pipeline_parallel,
        wanted.moe_ep_size or 1,
    )
    key = wanted.key("tensor_parallel")
    word = key.rpartition(".")[2]
    fitting = f"one of {_listed(_degrees(model))}"
    if wanted.splits_attention and model.heads % tp:
        problem = f"num_attention_heads {model.heads} is not divisible by {word} {tp}"
        raise PlanError(key, tp, fitting, problem)
    if wanted.splits_attention and model.kv_heads % tp and tp % model.kv_heads:
        problem = f"num_key_value_heads {model.kv_heads} and {word} {tp} do not divide each other"
        raise PlanError(key, tp, fitting, problem)
    # the PyTorch backend gives the first stages a layer more; trtllm-build splits evenly or not at all
    if model.layers % pp and wanted.kind == "engine":
        degrees = [n for n in range(1, 65) if model.layers % n == 0]
        problem = f"num_hidden_layers {model.layers} is not divisible by pipeline_parallel {pp}"
        raise PlanError(wanted.key("pipeline_parallel"), pp, f"one of {_listed(degrees)}", problem)
    if wanted.moe_ep_size is not None and (model.experts % ep or tp % ep):
        degrees = [n for n in range(1, 65) if model.experts % n == 0 and tp % n == 0]
        problem = (
            f"{model.experts} experts and {word} {tp} must both be divisible by "
            f"{wanted.key('moe_ep_size').rpartition('.')[2]} {ep}"
        )
        raise PlanError(wanted.key("moe_ep_size"), ep, f"one of {_listed(degrees)}", problem)
    if model.intermediate_size % (tp // ep):
        problem = f"intermediate_size {model.intermediate_size} is not divisible by {tp // ep}"
        raise PlanError(key, tp, fitting, problem)


def _degrees(model: Architecture) -> list[int]:
    """Degrees of tensor parallelism that split a model evenly, up to 64."""
    return [
        n
        for n in range(1, 65)
        if model.heads % n == 0
        and (model.kv_heads % n == 0 or n % model.kv_heads == 0)
        and model.intermediate_size % n == 0
    ]


def _check_lengths(wanted: Deployment) -> list[str]:
    longest, key = wanted.architecture.max_positions, wanted.key("max_seq_len")
    if wanted.sequence > longest and wanted.kind == "llmapi":
        return [
            f"{key} {wanted.sequence} is more than {longest}, what the model was made for: longer answers may be nonsense; "
            f"set {key} to {longest} or less"
        ]
    if wanted.sequence > longest:
        # trtllm-build itself only warns; GPT-2 has no positions beyond, and other models answer nonsense
        raise PlanError(
            key,
            wanted.sequence if wanted.max_seq_len is not None else f"{wanted.sequence}, the default",
            f"at most {longest}, the model's max_positions",
            f"set {key} to {longest} or less",
        )
    if wanted.max_input_len is not None and wanted.max_input_len >= wanted.sequence:
        raise PlanError(
            wanted.key("max_input_len"),
            wanted.max_input_len,
            f"less than max_seq_len, which is {wanted.sequence} and counts input and output together",
            "lower max_input_len or raise max_seq_len",
        )
    return []


def _check_weights(wanted: Deployment) -> None:
    weights = _rank_weights(wanted, wanted.tensor_parallel)
    if not wanted.gpu_memory or weights <= wanted.gpu_memory or wanted.weight_streaming:
        return
    ways, word = [], wanted.key("tensor_parallel").rpartition(".")[2]
    for degree in (2, 4, 8, 16, 32, 64):
        if degree > wanted.tensor_parallel and degree in _degrees(wanted.architecture):
            share = _rank_weights(wanted, degree)
            if share <= wanted.gpu_memory:
                ways.append(f"{word} {degree} ({gib(share)} a GPU)")
                break
    bits = FORMATS[wanted.quantization or "full_prec"].bits
    if bits is None or bits > 4:
        ways.append(
            "quantization to fewer bits" if wanted.kind == "engine" else "a repository with quantized weights"
        )
    raise PlanError(
        wanted.key("tensor_parallel"),
        f"{wanted.tensor_parallel}: {gib(weights)} of weights for each GPU",
        f"at most {gib(wanted.gpu_memory)}, all the memory of one {_name(wanted.gpu_name)}",
        f"use {', '.join([*ways, 'a GPU with more memory'])}",
    )


def _check_cap(wanted: Deployment) -> list[str]:
    """max_tokens_in_paged_kv_cache against one sequence, as kvCacheManager.cpp of TensorRT-LLM counts it."""
    cap = wanted.max_tokens_in_paged_kv_cache
    if cap is None:
        return []
    pool = -(-cap // wanted.block) * wanted.block
    if pool >= wanted.tokens_of_one_sequence:
        return []
    longest = wanted.longest_in(pool)
    beams = f" x beam width {wanted.max_beam_width}" if wanted.max_beam_width > 1 else ""
    default = "" if wanted.max_seq_len is not None else ", the default,"
    needs = (
        f"{wanted.tokens_of_one_sequence} tokens, what one sequence of max_seq_len "
        f"{wanted.sequence}{default} takes (blocks of {wanted.block}{beams})"
    )
    fits = f"the longest max_seq_len that fits is {longest}" if longest else "no sequence fits"
    if wanted.max_seq_len is None and wanted.version >= SHORTENS_FROM and longest:
        return [
            f"{wanted.key('max_tokens_in_paged_kv_cache').rpartition('.')[2]} {cap} is less than {needs}: TensorRT-LLM "
            f"will shorten sequences; {fits}: set {wanted.key('max_seq_len')} to it"
        ]
    raise PlanError(
        wanted.key("max_tokens_in_paged_kv_cache"),
        cap,
        f"at least {needs}",
        f"raise it or lower {wanted.key('max_seq_len')}; {fits} "
        "(maxTokensInPagedKvCache must be large enough to process at least 1 sequence)",
    )


def _memory_warnings(wanted: Deployment) -> list[str]:
    seen = forecast(wanted)
    if seen.kv_memory is None or seen.kv_tokens_by_memory is None:
        return [f"the memory of {_name(wanted.gpu_name)} is not known: whether the model fits is not checked"]
    taken = seen.weights_per_rank + seen.activations + seen.cuda_context
    if taken >= seen.gpu_memory:
        return [
            f"estimate: weights ({gib(seen.weights_per_rank)}), activations ({gib(seen.activations)}) and CUDA "
            f"({gib(seen.cuda_context)}) take more than the {gib(seen.gpu_memory)} of {_name(wanted.gpu_name)}: lower "
            f"{wanted.key('max_num_tokens')}, max_batch_size or max_seq_len, or raise "
            f"{wanted.key('tensor_parallel').rpartition('.')[2]}"
        ]
    if seen.kv_tokens_by_memory >= wanted.tokens_of_one_sequence:
        return []
    longest = wanted.longest_in(seen.kv_tokens_by_memory)
    then = f"set {wanted.key('max_seq_len')} to {longest} or less, or " if longest else ""
    return [
        f"estimate: the KV cache will hold {seen.kv_tokens_by_memory} tokens ({gib(seen.kv_memory)}), and one sequence "
        f"of max_seq_len {wanted.sequence} takes {wanted.tokens_of_one_sequence}: {then}raise "
        f"{wanted.key('tensor_parallel').rpartition('.')[2]} or "
        f"{wanted.key('kv_cache_free_gpu_mem_fraction').rpartition('.')[2]}"
    ]


def check_memory_free(seen: Forecast, gpus: Sequence[Gpu]) -> tuple[str, ...]:
    """
    A warning for each GPU that somebody else is using: less is free than the forecast needs.

    For a host whose own server is not running: a running one holds this memory itself. Up to 1 GiB in use is what
    the driver keeps for itself.
    """
    needed = seen.gpu_needed
    warnings = []
    for gpu in gpus:
        total, free = gpu.memory_total_mib * MIB, gpu.memory_free_mib * MIB
        if total > 0 and total - free > GIB and free < needed:
            warnings.append(
                f"GPU {gpu.index} ({_name(gpu.name)}): {gib(free)} of {gib(total)} free, and about {gib(needed)} "
                "needed: another process uses it (nvidia-smi names it); stop it or choose other GPUs with gpu_ids"
            )
    return tuple(warnings)


def check_precision(
    dtype: str,
    quantization_format: str | None,
    kv_cache_dtype: str | None,
    gpu_name: str,
    compute_capability: str,
    tensorrt_llm_version: str,
) -> None:
    """
    Refuse a number format that the GPU does not compute in, and a GPU that the version does not run on.

    + compute_capability: as nvidia-smi prints it, such as 8.6
    + tensorrt_llm_version: such as 0.17.0.post1

    Source: the support matrices and release notes of TensorRT-LLM, named at `FORMATS`.
    """
    _one_of("checkpoint.dtype", dtype, CHECKPOINT_DTYPES)
    _precision_words(quantization_format, kv_cache_dtype)
    has = capability(compute_capability)
    plain = isinstance(tensorrt_llm_version, str) and tensorrt_llm_version.isascii()
    version = (
        version_tuple(tensorrt_llm_version) if plain and len(tensorrt_llm_version) <= _LONGEST_WORD else ()
    )
    if not version:
        raise PlanError("TensorRT-LLM", printable(tensorrt_llm_version), "a version such as 0.17.0")
    gpu = f"{_name(gpu_name)} has compute capability {compute_capability}"

    least = (8, 0) if version >= AMPERE_FROM else (7, 0)
    if has < least:
        newest = max(r for r, row in RELEASES.items() if row.version < AMPERE_FROM)
        raise PlanError(
            "image.release",
            f"TensorRT-LLM {tensorrt_llm_version}",
            f"a GPU of compute capability {dotted(least)} or above; {gpu}",
            f"use release {newest} or older" if has >= (7, 0) else "use a newer GPU",
        )
    if has >= (10, 0) and version < BLACKWELL_FROM:
        oldest = min(r for r, row in RELEASES.items() if row.version >= BLACKWELL_FROM)
        raise PlanError(
            "image.release",
            f"TensorRT-LLM {tensorrt_llm_version}",
            f"TensorRT-LLM 0.17 or later; {gpu}",
            f"use release {oldest} or later",
        )

    def needs(key: str, word: str, least: tuple[int, int], instead: str) -> None:
        if has < least:
            raise PlanError(
                key, word, f"a GPU of compute capability {dotted(least)} or above; {gpu}", f"use {instead}"
            )

    if dtype == "bfloat16":
        needs("checkpoint.dtype", dtype, (8, 0), "float16")
    if quantization_format is not None:
        how = FORMATS[quantization_format]
        needs("checkpoint.quantization.format", quantization_format, how.needs, how.instead)
    if kv_cache_dtype == "fp8":
        needs("checkpoint.quantization.kv_cache_dtype", kv_cache_dtype, (8, 9), "int8, or leave it out")


def capability(text: str) -> tuple[int, int]:
    """A compute capability as numbers, because 10.0 is more than 9.0. Raises PlanError for what is none."""
    parts = text.split(".") if isinstance(text, str) else []
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) <= 3 for part in parts):
        raise PlanError("compute capability", printable(text), "MAJOR.MINOR, as nvidia-smi prints it")
    return int(parts[0]), int(parts[1])


def _precision_words(quantization: str | None, kv_cache_dtype: str | None) -> None:
    if quantization is not None:
        _one_of("checkpoint.quantization.format", quantization, FORMATS)
    if kv_cache_dtype is not None:
        _one_of("checkpoint.quantization.kv_cache_dtype", kv_cache_dtype, KV_CACHE_DTYPES)


def _one_of(key: str, value: object, allowed: Sequence[str] | Mapping[str, object]) -> None:
    if not isinstance(value, str) or value not in allowed:
        then = suggestion(value, allowed) if isinstance(value, str) and len(value) <= _LONGEST_WORD else ""
        then = then if then.startswith("did") else ""
        raise PlanError(key, printable(value), f"one of {', '.join(allowed)}", then)


def _name(gpu: object) -> str:
    """A GPU's name, bounded: it may come from anything that calls itself nvidia-smi."""
    return " ".join(str(gpu).split())[:60] or "the GPU"


def dotted(version: tuple[int, ...]) -> str:
    """A version as it is written."""
    return ".".join(map(str, version))


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def lines(seen: Forecast) -> list[str]:
    """The forecast as an aligned table: what, how much, and whether it is an estimate."""
    rows: list[tuple[str, str, str]] = []

    def row(label: str, value: str, field: str, note: str = "") -> None:
        marks = [*(["estimate"] if field in ESTIMATES else []), *([note] if note else [])]
        rows.append((label, value, ", ".join(marks)))

    each = f"on each of {seen.ranks} GPUs" if seen.ranks > 1 else "on one GPU"
    memory = gib(seen.gpu_memory) if seen.gpu_memory else "not known"
    row("GPU memory", memory, "gpu_memory", _name(seen.gpu_name))
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
