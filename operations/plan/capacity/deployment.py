"""What is to be forecast: an architecture, its number formats and lengths, and the GPUs it is divided over."""

from __future__ import annotations

from dataclasses import dataclass, fields

from operations.plan.capacity.precision import CHECKPOINT_DTYPES, LONGEST_WORD, one_of, precision_words
from operations.plan.catalog.support_matrix import RELEASES, stack_release
from operations.plan.errors import PlanError
from operations.plan.profile.architecture import Architecture, printable
from operations.plan.units import MIB

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
        if not isinstance(self.release, str) or len(self.release) > LONGEST_WORD:
            raise PlanError("image.release", printable(self.release), "a release YY.MM of the support matrix")
        if not isinstance(self.gpu_name, str):
            raise PlanError("GPU", printable(self.gpu_name), "the name nvidia-smi prints")
        stack_release(self.release, "image.release")
        one_of(self.key("dtype"), self.dtype, CHECKPOINT_DTYPES)
        if self.weights_dtype is not None:
            one_of("weights dtype", self.weights_dtype, CHECKPOINT_DTYPES)
        precision_words(self.quantization, self.kv_cache_dtype)
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
