"""A model profile: one TOML file in inventories/models that says everything a model needs, as data.

pydantic checks it: an unknown key is an error with a suggestion, so that a misspelt flag never becomes a default.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from operations.plan.errors import PlanError, from_validation, suggestion
from operations.plan.support_matrix import FAMILIES, RELEASES

MODELS_DIRECTORY = Path(__file__).resolve().parents[2] / "inventories" / "models"

Count = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
Dtype = Literal["float16", "bfloat16", "float32"]
# finite: TOML knows nan and inf, but nothing that reads these values does
Value = str | int | bool | Annotated[float, Field(allow_inf_nan=False)]

# Formats that run code when they are loaded; refused unless a profile says otherwise by name.
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Hardware(_Table):
    """What the profile was made for; it is planned for any GPU that fits."""

    shape: str
    gpu: str
    count: Annotated[int, Field(ge=1, le=64, strict=True)]


class Weights(_Table):
    """A revision of a Hugging Face repository, and which of its files are needed."""

    repository: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$")]
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    include: list[str] = ["*.safetensors", "*.json", "tokenizer.model", "*.txt"]
    exclude: list[str] = ["consolidated*"]
    gated: bool = False
    # Weights that exist as pickles only: loading one runs whatever code it holds.
    allow_pickle: bool = False

    @field_validator("repository", "revision", mode="before")
    @classmethod
    def _said_plainly(cls, value: object, info: Any) -> object:
        pattern = {"repository": r"[\w.-]+/[\w.-]+", "revision": r"[0-9a-f]{40}"}[info.field_name]
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            wanted = {"repository": "owner/name", "revision": "a 40-hex commit"}[info.field_name]
            raise ValueError(wanted)
        return value

    @model_validator(mode="after")
    def _no_pickles(self) -> Weights:
        for pattern in self.include:
            if not self.allow_pickle and (pattern in ("*", "**") or pattern.endswith(PICKLE_SUFFIXES)):
                raise ValueError(
                    "include with patterns of safetensors, tokenizer and configuration files, no pickles "
                    "(allow_pickle = true accepts them)"
                )
        return self


class Image(_Table):
    """The serving image: a row of the support matrix, pulled or built from tensorrtllm_backend's sources."""

    release: str
    source: Literal["build", "pull"]
    # The base of a build; without it the Dockerfile's own, which that tag was tested with.
    base: str | None = Field(default=None, pattern=r"^[a-z0-9/._-]+:[A-Za-z0-9._-]+$")

    @field_validator("release")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in RELEASES:
            raise ValueError(f"a release YY.MM of the support matrix; {suggestion(value, RELEASES)}")
        return value


class Quantization(_Table):
    """quantize.py's work in the place of a plain conversion."""

    format: Literal["fp8", "int8_sq", "int4_awq", "w4a8_awq", "int8_wo", "int4_wo", "nvfp4", "full_prec"]
    kv_cache_dtype: Literal["int8", "fp8"] | None = None
    calibration_size: Count | None = None
    calibration_batch: Count | None = None
    awq_block_size: Count | None = None


class Checkpoint(_Table):
    """How Hugging Face weights become a TensorRT-LLM checkpoint."""

    family: str
    dtype: Dtype
    tensor_parallel: Annotated[int, Field(ge=1, le=64, strict=True)] = 1
    pipeline_parallel: Annotated[int, Field(ge=1, le=64, strict=True)] = 1
    quantization: Quantization | None = None
    # further flags of the converter or quantizer, by their names without dashes; true means a bare flag
    flags: dict[str, Value] = {}

    @field_validator("family")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in FAMILIES:
            raise ValueError(f"a model family with a converter; {suggestion(value, FAMILIES)}")
        return value


class Repository(_Table):
    """The model repository: which models of inflight_batcher_llm, and the values of their placeholders."""

    models: list[str] = ["preprocessing", "postprocessing", "tensorrt_llm", "ensemble", "tensorrt_llm_bls"]
    # placeholder -> value, for every model whose template has it
    parameters: dict[str, Value] = {}
    # the same for one model only; wins over `parameters`
    model_parameters: dict[str, dict[str, Value]] = {}


class Server(_Table):
    """What tritonserver and its container are started with."""

    http_port: Annotated[int, Field(ge=1024, le=65535, strict=True)] = 8000
    grpc_port: Annotated[int, Field(ge=1024, le=65535, strict=True)] = 8001
    metrics_port: Annotated[int, Field(ge=1024, le=65535, strict=True)] = 8002
    shm_size: Annotated[str, Field(pattern=r"^[0-9]+[mg]$")] = "2g"
    memlock: Annotated[int, Field(ge=-1, strict=True)] = -1
    stack_bytes: Annotated[int, Field(ge=65536, strict=True)] = 67108864
    # with explicit model control, the models to load; none: every model of the repository is loaded at start
    load_models: list[str] = []
    arguments: list[str] = []
    environment: dict[Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")], str] = {}


class Golden(_Table):
    """A request whose answer is known: greedy decoding gives the same text each time."""

    model: str = "ensemble"
    prompt: Annotated[str, Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1, le=4096, strict=True)]
    # the answer starts with this text; "" accepts any answer of at least one word
    expect: str


class _Kind(_Table):
    """What the profiles of every kind say."""

    summary: str
    hardware: Hardware | None = None
    weights: Weights
    image: Image
    server: Server = Server()
    golden: Annotated[list[Golden], Field(min_length=1)]

    def _check_models(self, models: list[str], named: list[str]) -> None:
        for name in (*self.server.load_models, *(golden.model for golden in self.golden), *named):
            if name not in models:
                raise ValueError(f"{name} to be one of the repository's models ({', '.join(models)})")


class EngineProfile(_Kind):
    """Weights -> checkpoint -> TensorRT engine -> the five-model repository of inflight_batcher_llm."""

    kind: Literal["engine"]
    checkpoint: Checkpoint
    # trtllm-build's flags, by their names without dashes
    engine: dict[str, Value] = {}
    repository: Repository = Repository()

    templates: ClassVar[str] = "inflight_batcher_llm"

    @property
    def models(self) -> list[str]:
        """The models of the repository."""
        return list(self.repository.models)

    @property
    def asked_models(self) -> list[str]:
        """The models that take a person's request."""
        return [model for model in self.models if model in ("ensemble", "tensorrt_llm_bls")]

    @property
    def model_parameters(self) -> dict[str, dict[str, Value]]:
        """Placeholders of single models."""
        return self.repository.model_parameters

    @property
    def ranks(self) -> int:
        """Server processes: one a rank of the engine."""
        return self.checkpoint.tensor_parallel * self.checkpoint.pipeline_parallel

    @property
    def gpus_needed(self) -> int:
        """One GPU a rank."""
        return self.ranks

    def model_files(self, weights: str) -> dict[str, str]:
        """Files of the model repository beside the templates' own: none."""
        return {}

    @model_validator(mode="after")
    def _consistent(self) -> EngineProfile:
        self._check_models(self.models, list(self.repository.model_parameters))
        return self


class LlmApiProfile(_Kind):
    """Weights, as they are -> one Triton model over TensorRT-LLM's LLM API: nothing is converted or built."""

    kind: Literal["llmapi"]
    # arguments of tensorrt_llm.LLM, as model.yaml takes them
    llm: dict[str, Any] = {}
    decoupled: bool = False

    templates: ClassVar[str] = "llmapi"
    models: ClassVar[list[str]] = ["tensorrt_llm"]
    asked_models: ClassVar[list[str]] = ["tensorrt_llm"]
    model_parameters: ClassVar[dict[str, dict[str, Value]]] = {}
    ranks: ClassVar[int] = 1  # one server process, which starts its own workers

    @property
    def gpus_needed(self) -> int:
        """One GPU a worker."""
        return int(self.llm.get("tensor_parallel_size", 1)) * int(self.llm.get("pipeline_parallel_size", 1))

    def model_files(self, weights: str) -> dict[str, str]:
        """1/model.yaml, in the part of YAML that is JSON."""
        arguments = {
            "backend": "pytorch",
            "tensor_parallel_size": 1,
            "pipeline_parallel_size": 1,
            **self.llm,
            "model": weights,
            # the model does not batch in Triton: TensorRT-LLM batches inside it
            "triton_config": {"max_batch_size": 0, "decoupled": self.decoupled},
        }
        return {"tensorrt_llm/1/model.yaml": json.dumps(arguments, indent=2, sort_keys=True) + "\n"}

    @field_validator("llm")
    @classmethod
    def _ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in ("model", "tokenizer", "triton_config"):
            if name in value:
                raise ValueError(f"arguments of tensorrt_llm.LLM without {name}, which the plan sets")
        for name in ("tensor_parallel_size", "pipeline_parallel_size"):
            size = value.get(name, 1)
            if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 64:
                raise ValueError(f"{name} to be a whole number from 1 to 64")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> LlmApiProfile:
        self._check_models(self.models, [])
        return self


Profile = EngineProfile | LlmApiProfile
KINDS: dict[str, type[EngineProfile] | type[LlmApiProfile]] = {
    "engine": EngineProfile,
    "llmapi": LlmApiProfile,
}


def profile_names() -> list[str]:
    """The profiles at hand, by name."""
    return sorted(path.stem for path in MODELS_DIRECTORY.glob("*.toml"))


def load_profile(name: str, overrides: Mapping[str, Any] | None = None) -> Profile:
    """
    Read and check one profile.

    + name: its file's name in inventories/models, without .toml
    + overrides: tables merged over it, key by key: what a site changes without a copy of the file

    Raises PlanError for an unknown name, a file that is not TOML, or a value that is not allowed.
    """
    if name not in profile_names():
        raise PlanError("model", name, "a profile in inventories/models", suggestion(name, profile_names()))
    path = MODELS_DIRECTORY / f"{name}.toml"
    where = f"inventories/models/{path.name}"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PlanError(where, str(error), "a TOML file in UTF-8") from None
    data = _merged(data, overrides or {})
    kind = data.get("kind")
    if kind not in KINDS:
        raise PlanError(f"{where}: kind", kind or "nothing", f"one of {', '.join(KINDS)}")
    try:
        return KINDS[kind].model_validate(data)
    except ValidationError as error:
        raise from_validation(error, where, _every_key(KINDS[kind])) from None


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        nested = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _merged(result[key], value) if nested else value
    return result


def _every_key(model: type[BaseModel]) -> set[str]:
    """All keys of a model and of the tables inside it, for suggestions."""
    keys: set[str] = set()
    for name, field in model.model_fields.items():
        keys.add(name)
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, BaseModel):
                keys |= _every_key(part)
    return keys
