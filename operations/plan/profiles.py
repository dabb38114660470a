"""A model profile: one TOML file in inventories/models that says everything a model needs, as data.

pydantic checks it: an unknown key is an error with a suggestion, so that a misspelt flag never becomes a default.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from operations.plan import own_models
from operations.plan.architecture import Architecture
from operations.plan.errors import PlanError, complaint, from_validation, suggestion
from operations.plan.profile_tables import (
    Checkpoint,
    Documents,
    Encoder,
    EngineFlags,
    Golden,
    Hardware,
    Image,
    Line,
    LlmApiGolden,
    LlmArguments,
    Repository,
    SearchGolden,
    Server,
    Table,
    Value,
    Weights,
)
from operations.plan.toml_file import check_plain, read_toml

MODELS_DIRECTORY = Path(__file__).resolve().parents[2] / "inventories" / "models"


class _Kind(Table):
    """What the profiles of every kind say."""

    summary: Line
    hardware: Hardware | None = None
    image: Image
    server: Server = Server()

    def _check_models(self, models: list[str], named: list[str]) -> None:
        for name in (*self.server.load_models, *named):
            if name not in models:
                raise ValueError(f"{name} to be one of the repository's models ({', '.join(models)})")


class _LanguageModel(_Kind):
    """A model that goes on with a text."""

    weights: Weights
    golden: Annotated[list[Golden], Field(min_length=1)]

    @property
    def gated(self) -> bool:
        """Whether a download needs the Hugging Face token."""
        return self.weights.gated


class EngineProfile(_LanguageModel):
    """Weights -> checkpoint -> TensorRT engine -> the five-model repository of inflight_batcher_llm."""

    kind: Literal["engine"]
    # the model's own numbers, for the forecast; without them it is made after the download
    architecture: Architecture | None = None
    checkpoint: Checkpoint
    # trtllm-build's flags, by their names without dashes
    engine: EngineFlags = Field(default_factory=dict)
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
        golden = [request.model for request in self.golden]
        self._check_models(self.models, [*golden, *self.repository.model_parameters])
        return self


class LlmApiProfile(_LanguageModel):
    """Weights, as they are -> one Triton model over TensorRT-LLM's LLM API: nothing is converted or built."""

    kind: Literal["llmapi"]
    golden: Annotated[list[LlmApiGolden], Field(min_length=1)]  # type: ignore[assignment]
    # arguments of tensorrt_llm.LLM, as model.yaml takes them
    llm: LlmArguments = Field(default_factory=dict)
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
        if self.llm.get("trust_remote_code") and self.weights.code_revision is None:
            expected = "false, or weights.code_revision beside it: the 40-hex commit whose Python files were reviewed"
            raise complaint("trust_remote_code", True, expected, ("llm",))
        self._check_models(self.models, [request.model for request in self.golden])
        return self


class PlanProfile(_Kind):
    """A vision and a text encoder -> ONNX -> TensorRT plans -> one model that finds documents in a database."""

    kind: Literal["plan"]
    encoders: dict[Literal["vision", "text"], Encoder]
    documents: Documents
    golden: Annotated[list[SearchGolden], Field(min_length=1)]

    templates: ClassVar[str] = "clip_search"
    asked_models: ClassVar[list[str]] = ["clip_search"]
    model_parameters: ClassVar[dict[str, dict[str, Value]]] = {}
    ranks: ClassVar[int] = 1
    gpus_needed: ClassVar[int] = 1

    @property
    def models(self) -> list[str]:
        """The models of the repository: the project's own."""
        return own_models.names(self.templates)

    @property
    def gated(self) -> bool:
        """Whether a download needs the Hugging Face token."""
        return any(encoder.weights.gated for encoder in self.encoders.values())

    def model_files(self, weights: str) -> dict[str, str]:
        """The whole repository but for the plans, which are mounted into it."""
        vision, text = self.encoders["vision"], self.encoders["text"]
        return own_models.filled(
            self.templates,
            {
                "image_size": vision.image_size,
                "image_embedding_size": vision.embedding_size,
                "text_tokens": text.text_tokens,
                "text_embedding_size": text.embedding_size,
                "image_encoder": vision.name,
                "text_encoder": text.name,
                "vision_batch": vision.max_batch_size,
                "text_batch": text.max_batch_size,
                "search_batch": min(vision.max_batch_size, text.max_batch_size),
            },
        )

    @model_validator(mode="after")
    def _consistent(self) -> PlanProfile:
        for role, architecture in (("vision", "clip_vision"), ("text", "bert")):
            encoder = self.encoders.get(role)  # type: ignore[call-overload]
            if encoder is None or encoder.architecture != architecture:
                raise ValueError(f"encoders.{role} with architecture {architecture}")
        self._check_models(self.models, [request.model for request in self.golden])
        return self


Profile = EngineProfile | LlmApiProfile | PlanProfile
KINDS: dict[str, type[EngineProfile] | type[LlmApiProfile] | type[PlanProfile]] = {
    "engine": EngineProfile,
    "llmapi": LlmApiProfile,
    "plan": PlanProfile,
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
    return profile_in(path, f"inventories/models/{path.name}", overrides)


def profile_in(path: Path, where: str, overrides: Mapping[str, Any] | None = None) -> Profile:
    """
    Read and check a profile wherever it is.

    + where: the file's name, for the error
    + overrides: as for load_profile

    Raises PlanError as load_profile does.
    """
    data = read_toml(path, where)
    if overrides:
        # before they are merged, which follows them however deep they are
        check_plain(overrides, where)
        data = _merged(data, overrides)
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
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
