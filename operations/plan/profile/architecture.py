"""The numbers of a decoder model: enough to count its weights and its KV cache exactly.

A profile may state them as its table `[architecture]`, so that a plan needs no download; `Architecture.from_config`
reads them from the config.json of a Hugging Face repository.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from operations.plan.catalog.values import Switch
from operations.plan.errors import NOWHERE, PlanError
from operations.plan.wording import Form, from_validation

# Bytes of one value; int8 and fp8 are types of the KV cache only.
DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "fp8": 1}

# Bounds are far above any published model and keep every product small enough to print.
_Width = Annotated[int, Field(ge=1, le=2**20, strict=True)]
_Number = Annotated[int, Field(ge=1, le=1024, strict=True)]
_Length = Annotated[int, Field(ge=1, le=2**27, strict=True)]


class Parameters(NamedTuple):
    """Counts of weights: those in the layers' matrices, which a quantization shrinks, and all others."""

    matrices: int
    others: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.matrices + self.others


class Architecture(BaseModel):
    """
    A decoder model of the llama family (gated MLP, RMS norms, biases at most in attention) or of GPT-2's (gated_mlp = false: two
    matrices an MLP, layer norms, biases, learned positions).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    hidden_size: _Width
    layers: _Number
    heads: _Number
    kv_heads: _Number
    head_size: Annotated[int, Field(ge=1, le=4096, strict=True)]
    intermediate_size: _Width  # of one expert
    vocabulary: Annotated[int, Field(ge=1, le=2**24, strict=True)]
    max_positions: _Length  # the longest sequence the model was made for, rope scaling included
    experts: _Number = 1
    tied_embeddings: Switch = False
    gated_mlp: Switch = True
    attention_bias: Switch = False  # of query, key and value
    head_norms: Switch = False  # a norm of each query and key head (Qwen3, Gemma 3)
    layer_norms: Annotated[int, Field(ge=1, le=8, strict=True)] = (
        2  # norms of the hidden size in a layer; Gemma 2 and 3: 4
    )
    # transformers' name of how positions beyond the first training are reached: llama3, linear, yarn …
    rope_type: (
        Annotated[
            str,
            Field(pattern=r"^[a-z0-9_]{1,40}$"),
            Form("a rope_type of config.json: lower-case letters, digits and _, such as llama3"),
        ]
        | None
    ) = None

    @field_validator("kv_heads")
    @classmethod
    def _divides_the_heads(cls, value: int, info: ValidationInfo) -> int:
        heads = info.data.get("heads")
        if heads is not None and heads % value:
            raise ValueError(f"a divisor of the number of heads, which is {heads}")
        return value

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Architecture:
        """
        The architecture a Hugging Face config.json describes.

        + config: its content; one of the model types in _READERS

        Missing optional keys mean what they mean to transformers. Raises PlanError naming the key of config.json.
        """
        if not isinstance(config, Mapping):
            raise PlanError("config.json", type(config).__name__, "a table of keys and values")
        kind = config.get("model_type")
        if not isinstance(kind, str) or kind not in _READERS:
            # no nearest word: it is the file's own, and a similar one is another architecture
            raise PlanError(
                "config.json: model_type",
                "nothing" if kind is None else printable(kind),
                f"one of {', '.join(_READERS)}",
                "state the profile's [architecture] instead",
            )
        values, names = _READERS[kind](config)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            said = from_validation(error, cls, NOWHERE)
            field = said.key.partition(".")[0]
            raise PlanError(
                f"config.json: {names.get(field, field)}", printable(values.get(field)), said.expected
            ) from None

    @property
    def parameters(self) -> int:
        """Count of weights, tied embeddings once."""
        return self.rank_parameters().total

    def weight_bytes(self, dtype: str) -> int:
        """Bytes of all weights in one dtype, as a download or an unquantized checkpoint holds them."""
        return self.parameters * bytes_of(dtype)

    def kv_bytes_per_token(self, dtype: str, tensor_parallel: int = 1, pipeline_parallel: int = 1) -> int:
        """
        Bytes of KV cache per token on one rank; of the whole model if both degrees are 1.

        With fewer KV heads than ranks, every rank has one (attention.py of TensorRT-LLM rounds the number of KV heads
        per rank up).
        """
        heads = _share(self.kv_heads, tensor_parallel)
        return 2 * _share(self.layers, pipeline_parallel) * heads * self.head_size * bytes_of(dtype)

    def rank_parameters(
        self, tensor_parallel: int = 1, pipeline_parallel: int = 1, use_parallel_embedding: bool = False
    ) -> Parameters:
        """
        Count of weights on the rank that has the most of them.

        As TensorRT-LLM splits a model (models/llama/model.py, layers/attention.py, layers/moe.py): matrices over
        tensor-parallel ranks, layers over pipeline stages, the embedding whole on each rank of the first stage unless
        use_parallel_embedding, the head over the ranks of the last. Norms and a router are on every rank.
        """
        return max(
            self._stage(tensor_parallel, pipeline_parallel, use_parallel_embedding, first=True),
            self._stage(tensor_parallel, pipeline_parallel, use_parallel_embedding, first=False),
            key=lambda stage: stage.total,
        )

    def all_ranks_parameters(
        self, tensor_parallel: int = 1, pipeline_parallel: int = 1, use_parallel_embedding: bool = False
    ) -> Parameters:
        """Count of weights on all ranks together; a weight that several ranks hold is counted for each of them."""
        degrees = (tensor_parallel, pipeline_parallel, use_parallel_embedding)
        if pipeline_parallel == 1:
            one = self._stage(*degrees, first=True)
            return Parameters(one.matrices * tensor_parallel, one.others * tensor_parallel)
        first, last = self._stage(*degrees, first=True), self._stage(*degrees, first=False)
        per_layer = self._layer(tensor_parallel)
        between = _share(self.layers, pipeline_parallel) * (pipeline_parallel - 2)
        return Parameters(
            (first.matrices + last.matrices + between * per_layer.matrices) * tensor_parallel,
            (first.others + last.others + between * per_layer.others) * tensor_parallel,
        )

    def _layer(self, tensor_parallel: int) -> Parameters:
        """One layer's part on one rank."""
        hidden = self.hidden_size
        query = _share(self.heads, tensor_parallel) * self.head_size
        key_value = 2 * _share(self.kv_heads, tensor_parallel) * self.head_size
        attention = hidden * (query + key_value) + query * hidden
        # experts are split by number, by width or by both: a rank's part is the same
        inner = _share(self.experts * self.intermediate_size, tensor_parallel)
        if self.gated_mlp:
            norms_and_biases = self.layer_norms * hidden + (query + key_value if self.attention_bias else 0)
            norms_and_biases += 2 * self.head_size if self.head_norms else 0
        else:
            norms_and_biases = 4 * hidden + query + key_value + hidden + inner + self.experts * hidden
        router = self.experts * hidden if self.experts > 1 else 0
        matrices = 3 if self.gated_mlp else 2
        return Parameters(attention + matrices * hidden * inner, norms_and_biases + router)

    def _stage(self, tp: int, pp: int, use_parallel_embedding: bool, *, first: bool) -> Parameters:
        """The first or the last pipeline stage's part on one rank; with one stage it is both."""
        layers = _share(self.layers, pp)
        matrices, others = (layers * count for count in self._layer(tp))
        embedding = self.vocabulary * self.hidden_size
        if first or pp == 1:
            others += _share(embedding, tp) if use_parallel_embedding else embedding
            others += 0 if self.gated_mlp else self.max_positions * self.hidden_size
        if not first or pp == 1:
            # one tensor for both is possible only if a rank has the same part of both
            shared = self.tied_embeddings and pp == 1 and (tp == 1 or use_parallel_embedding)
            others += 0 if shared else _share(embedding, tp)
            others += self.hidden_size * (1 if self.gated_mlp else 2)
        return Parameters(matrices, others)


def bytes_of(dtype: str) -> int:
    """Bytes of one value of a dtype; PlanError for one that is not known."""
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise PlanError("dtype", printable(dtype), f"one of {', '.join(DTYPE_BYTES)}")
    return DTYPE_BYTES[dtype]


def printable(value: object) -> object:
    """The value, or its type's name if Python refuses to print it (an integer of thousands of digits)."""
    try:
        repr(value)
    except (ValueError, RecursionError):
        return f"an unprintable {type(value).__name__}"
    return value


def _share(whole: int, ranks: int) -> int:
    return -(-whole // ranks)


_Values = tuple[dict[str, Any], dict[str, str]]


def _needed(config: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    for name in names.values():
        if config.get(name) is None:
            raise PlanError(f"config.json: {name}", "nothing", "a whole number", "is the file complete?")
    return {field: config[name] for field, name in names.items()}


def _head_size(config: Mapping[str, Any], width: str, heads: str) -> int | None:
    """Width / heads, where no head size is given; None if they are not integers: the caller reports it."""
    if type(config[width]) is not int or type(config[heads]) is not int or config[heads] < 1:
        return None
    if config[width] % config[heads]:
        raise PlanError(
            f"config.json: {width}",
            printable(config[width]),
            f"a multiple of {heads}, which is {printable(config[heads])}, where head_dim is not given",
        )
    return int(config[width] // config[heads])


# With these rope scalings the longest sequence is max_position_embeddings times their factor (builder.py of
# TensorRT-LLM, _init_max_seq_len); with the others (llama3, yarn, longrope, su) it is max_position_embeddings itself.
_MULTIPLYING_ROPE = ("linear", "dynamic")


def rope_of(config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """
    How config.json extends positions: the key that says so, and its table; an empty table if it does not.

    transformers 5 calls `rope_scaling` `rope_parameters`; if layers differ, it has one table for each kind of layer:
    https://github.com/huggingface/transformers/blob/main/MIGRATION_GUIDE_V5.md
    """
    for key in ("rope_scaling", "rope_parameters"):
        table = config.get(key)
        if not isinstance(table, Mapping):
            continue
        if "rope_type" in table or "type" in table:
            return key, table
        for name in ("full_attention", *table):
            if isinstance(inner := table.get(name), Mapping) and ("rope_type" in inner or "type" in inner):
                return f"{key}.{name}", inner
    return "rope_scaling", {}


def rope_type_of(config: Mapping[str, Any]) -> str | None:
    """transformers' name of the rope scaling, such as llama3; None if there is none."""
    _, table = rope_of(config)
    found = table.get("rope_type", table.get("type"))
    return found if isinstance(found, str) and found != "default" else None


def _positions(config: Mapping[str, Any]) -> Any:
    positions = config["max_position_embeddings"]
    key, scaling = rope_of(config)
    if type(positions) is not int or rope_type_of(config) not in _MULTIPLYING_ROPE:
        return positions
    factor = scaling.get("factor", 1)
    if type(factor) not in (int, float) or not 1 <= factor <= 1024:  # nan compares false
        raise PlanError(
            f"config.json: {key}.factor",
            f"the text {factor!r}" if isinstance(factor, str) else printable(factor),
            "a number from 1 to 1024",
            "correct the file",
        )
    # bounded first: an integer beyond a float's range cannot be multiplied by one
    return int(positions * factor) if 0 < positions <= 2**27 else positions


def _llama(config: Mapping[str, Any], names: Mapping[str, str] | None = None) -> _Values:
    required = {
        "hidden_size": "hidden_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "intermediate_size": "intermediate_size",
        "vocabulary": "vocab_size",
        "max_positions": "max_position_embeddings",
        **(names or {}),
    }
    values = _needed(config, required)
    values["max_positions"] = _positions(config)
    for field, name, otherwise in (
        ("kv_heads", "num_key_value_heads", config["num_attention_heads"]),
        ("head_size", "head_dim", None),
        ("tied_embeddings", "tie_word_embeddings", False),
    ):
        required[field] = name
        if field not in values:
            found = config.get(name)
            values[field] = otherwise if found is None else found
    if values["head_size"] is None:
        values["head_size"] = _head_size(config, "hidden_size", "num_attention_heads")
    if isinstance(bias := config.get("attention_bias"), bool):
        values["attention_bias"] = bias
        required["attention_bias"] = "attention_bias"
    rope = rope_type_of(config)
    if rope is not None and re.fullmatch(r"[a-z0-9_]{1,40}", rope):
        values["rope_type"] = rope
    return values, required


def _qwen2(config: Mapping[str, Any]) -> _Values:
    """Llama's, with biases of query, key and value that its config.json does not mention."""
    values, names = _llama(config)
    return {**values, "attention_bias": True}, names


def _qwen3(config: Mapping[str, Any]) -> _Values:
    """Llama's, with norms of each head."""
    values, names = _llama(config)
    return {**values, "head_norms": True}, names


def _qwen3_moe(config: Mapping[str, Any]) -> _Values:
    """Qwen3's, with experts in every layer. A file that has others beside them is refused: the count would be wrong."""
    values, names = _qwen3(config)
    experts = _needed(config, moe := {"experts": "num_experts", "intermediate_size": "moe_intermediate_size"})
    if config.get("decoder_sparse_step", 1) != 1 or config.get("mlp_only_layers"):
        raise PlanError("config.json: mlp_only_layers", "layers without experts", "experts in every layer")
    return {**values, **experts}, {**names, **moe}


def _gemma(config: Mapping[str, Any]) -> _Values:
    """Llama's, but embedding and head are one matrix unless the file says otherwise."""
    values, names = _llama(config)
    return {**values, "tied_embeddings": config.get("tie_word_embeddings") is not False}, names


def _gemma2(config: Mapping[str, Any]) -> _Values:
    """Gemma's, with norms behind attention and MLP too."""
    values, names = _gemma(config)
    return {**values, "layer_norms": 4}, names


def _gemma3(config: Mapping[str, Any]) -> _Values:
    """Gemma 2's, with norms of each head."""
    values, names = _gemma2(config)
    return {**values, "head_norms": True}, names


def _mistral(config: Mapping[str, Any]) -> _Values:
    # transformers' default is 8, not the number of heads: if the file omits it, this is not a place to guess
    return _llama(config, {"kv_heads": "num_key_value_heads"})


def _mixtral(config: Mapping[str, Any]) -> _Values:
    return _llama(config, {"kv_heads": "num_key_value_heads", "experts": "num_local_experts"})


def _gpt2(config: Mapping[str, Any]) -> _Values:
    names = {
        "hidden_size": "n_embd",
        "layers": "n_layer",
        "heads": "n_head",
        "vocabulary": "vocab_size",
        "max_positions": "n_positions",
    }
    values = _needed(config, names)
    inner, tied = config.get("n_inner"), config.get("tie_word_embeddings")
    width = values["hidden_size"]
    values |= {
        "kv_heads": values["heads"],
        "head_size": _head_size(config, "n_embd", "n_head"),
        "intermediate_size": inner if inner is not None or type(width) is not int else 4 * width,
        "tied_embeddings": True if tied is None else tied,
        "gated_mlp": False,
    }
    return values, {
        **names,
        "kv_heads": "n_head",
        "head_size": "n_embd / n_head",
        "intermediate_size": "n_inner",
        "tied_embeddings": "tie_word_embeddings",
    }


# The converters of this project's families read the first four. Kind llmapi serves the others as they are. Every reader counts exactly:
# tests/unit/test_model_table.py compares with the counts that the hub states.
_READERS = {
    "llama": _llama,
    "mistral": _mistral,
    "mixtral": _mixtral,
    "gpt2": _gpt2,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "qwen3_moe": _qwen3_moe,
    "phi3": _llama,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
}
