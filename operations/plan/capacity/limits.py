"""What of a deployment cannot work at all, and what is likely not to."""

from __future__ import annotations

from collections.abc import Sequence

from operations.plan.capacity.deployment import Deployment
from operations.plan.capacity.forecast import Forecast, forecast, rank_weights
from operations.plan.capacity.gpu import Gpu
from operations.plan.capacity.precision import FORMATS, called
from operations.plan.errors import PlanError
from operations.plan.profile.architecture import Architecture
from operations.plan.units import GIB, MIB, gib

# From this version on the runtime shortens max_seq_len to what the KV cache holds, and says so in a warning, where
# older ones refuse to start: getMaxAttentionWindowUpperBound is in kvCacheManager.h since 0.12.0.dev2024080600.
SHORTENS_FROM = (0, 12)


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
    fitting = f"one of {listed(tensor_degrees(model))}"
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
        raise PlanError(wanted.key("pipeline_parallel"), pp, f"one of {listed(degrees)}", problem)
    if wanted.moe_ep_size is not None and (model.experts % ep or tp % ep):
        degrees = [n for n in range(1, 65) if model.experts % n == 0 and tp % n == 0]
        problem = (
            f"{model.experts} experts and {word} {tp} must both be divisible by "
            f"{wanted.key('moe_ep_size').rpartition('.')[2]} {ep}"
        )
        raise PlanError(wanted.key("moe_ep_size"), ep, f"one of {listed(degrees)}", problem)
    if model.intermediate_size % (tp // ep):
        problem = f"intermediate_size {model.intermediate_size} is not divisible by {tp // ep}"
        raise PlanError(key, tp, fitting, problem)


def tensor_degrees(model: Architecture) -> list[int]:
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
    weights = rank_weights(wanted, wanted.tensor_parallel)
    if not wanted.gpu_memory or weights <= wanted.gpu_memory or wanted.weight_streaming:
        return
    ways, word = [], wanted.key("tensor_parallel").rpartition(".")[2]
    for degree in (2, 4, 8, 16, 32, 64):
        if degree > wanted.tensor_parallel and degree in tensor_degrees(wanted.architecture):
            share = rank_weights(wanted, degree)
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
        f"at most {gib(wanted.gpu_memory)}, all the memory of one {called(wanted.gpu_name)}",
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
        return [
            f"the memory of {called(wanted.gpu_name)} is not known: whether the model fits is not checked"
        ]
    taken = seen.weights_per_rank + seen.activations + seen.cuda_context
    if taken >= seen.gpu_memory:
        return [
            f"estimate: weights ({gib(seen.weights_per_rank)}), activations ({gib(seen.activations)}) and CUDA "
            f"({gib(seen.cuda_context)}) take more than the {gib(seen.gpu_memory)} of {called(wanted.gpu_name)}: lower "
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
                f"GPU {gpu.index} ({called(gpu.name)}): {gib(free)} of {gib(total)} free, and about {gib(needed)} "
                "needed: another process uses it (nvidia-smi names it); stop it or choose other GPUs with gpu_ids"
            )
    return tuple(warnings)


def listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
