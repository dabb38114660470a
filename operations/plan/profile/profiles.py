"""A model profile: one TOML file in inventories/models that says everything a model needs, as data.

pydantic checks it: an unknown key is an error with a suggestion, so that a misspelt flag never becomes a default.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from operations.plan.catalog import known_values
from operations.plan.catalog.support_matrix import (
    StackRelease,
    built,
    check_tensorrt_llm,
    plain_tensorrt,
    stack_release,
    upon,
    version_tuple,
)
from operations.plan.catalog.values import Value
from operations.plan.errors import Origin, PlanError, suggestion, typed
from operations.plan.paths import PROJECT, TREE
from operations.plan.profile import own_models
from operations.plan.profile.architecture import Architecture
from operations.plan.profile.field_types import EngineFlags, Line, LlmArguments
from operations.plan.profile.tables import (
    Checkpoint,
    Documents,
    Encoder,
    Golden,
    Hardware,
    Image,
    LlmApiGolden,
    Repository,
    SearchGolden,
    Server,
    Table,
    Weights,
)
from operations.plan.toml_file import check_plain, read_toml
from operations.plan.wording import Form, complaint, from_validation

MODELS_DIRECTORY = PROJECT / "inventories" / "models"


class _Kind(Table):
    """What the profiles of every kind say."""

    summary: Line
    hardware: Hardware | None = None
    image: Image
    server: Server = Server()

    def _check_models(self, models: list[str], named: Mapping[str, str]) -> None:
        """`named`: key -> a model that it names."""
        loaded = {f"server.load_models.{n}": name for n, name in enumerate(self.server.load_models)}
        for key, name in {**loaded, **named}.items():
            if name not in models:
                raise complaint(key, name, f"one of the repository's models ({', '.join(models)})")


ArgumentName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9_.]{1,100}$"),
    Form("the name of an argument: letters, digits, _ and ., such as kv_cache_config.dtype"),
]


class _LanguageModel(_Kind):
    """A model that goes on with a text."""

    weights: Weights
    golden: Annotated[list[Golden], Field(min_length=1)]

    @property
    def asked_models(self) -> list[str]:
        """The models that take a person's request."""
        raise NotImplementedError

    @property
    def golden_requests(self) -> list[Golden]:
        """Those of the profile, and the first of them again to each model that takes requests and has none."""
        named = {request.model for request in self.golden}
        missing = [model for model in self.asked_models if model not in named]
        return [*self.golden, *(self.golden[0].model_copy(update={"model": model}) for model in missing)]

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
        loaded = self.server.load_models or self.models
        return [m for m in self.models if m in ("ensemble", "tensorrt_llm_bls") and m in loaded]

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
        golden = {f"golden.{number}.model": request.model for number, request in enumerate(self.golden)}
        of_models = {f"repository.model_parameters.{name}": name for name in self.repository.model_parameters}
        self._check_models(self.models, {**golden, **of_models})
        if not self.asked_models:
            expected = "ensemble or tensorrt_llm_bls in it: one that takes requests"
            raise complaint("load_models", self.server.load_models, expected, ("server",))
        return self


class LlmApiProfile(_LanguageModel):
    """Weights, as they are -> one Triton model over TensorRT-LLM's LLM API: nothing is converted or built."""

    kind: Literal["llmapi"]
    # the model's own numbers, for the forecast; without them it is made from the hub's config.json
    architecture: Architecture | None = None
    # how the weights of the repository are quantized already, for the same forecast
    quantized: Literal["fp8", "nvfp4", "int4_awq", "int4_wo", "int8_wo"] | None = None
    golden: Annotated[list[LlmApiGolden], Field(min_length=1)]  # type: ignore[assignment]
    # arguments of tensorrt_llm.LLM, as model.yaml takes them
    llm: LlmArguments = Field(default_factory=dict)
    # names of arguments that LLM knows and this tool does not; kv_cache_config.NAME for those of that table
    llm_unlisted: Annotated[list[ArgumentName], Field(default_factory=list)]
    decoupled: Annotated[bool, Field(strict=True)] = False
    # further keys of triton_config in model.yaml: what the Triton model itself reads; one that a release does not know has no effect
    triton_config: dict[ArgumentName, Value] = Field(default_factory=dict)

    # what is compiled and measured at a start is kept for the next; operations/plan/serving/compile_cache.py
    compile_cache: Annotated[bool, Field(strict=True)] = False

    templates: ClassVar[str] = "llmapi"
    models: ClassVar[list[str]] = ["tensorrt_llm"]
    model_parameters: ClassVar[dict[str, dict[str, Value]]] = {}
    ranks: ClassVar[int] = 1  # one server process, which starts its own workers

    @property
    def asked_models(self) -> list[str]:
        """The one that there is."""
        return self.models

    @property
    def tensor_parallel(self) -> int:
        """Workers that share each layer."""
        return int(self.llm.get("tensor_parallel_size", 1))

    @property
    def pipeline_parallel(self) -> int:
        """Groups of workers that have some layers each."""
        return int(self.llm.get("pipeline_parallel_size", 1))

    @property
    def gpus_needed(self) -> int:
        """One GPU a worker."""
        return self.tensor_parallel * self.pipeline_parallel

    def model_files(self, weights: str) -> dict[str, str]:
        """1/model.yaml, in the part of YAML that is JSON."""
        arguments = {
            "backend": "pytorch",
            "tensor_parallel_size": 1,
            "pipeline_parallel_size": 1,
            **self.llm,
            "model": weights,
            # the model does not batch in Triton: TensorRT-LLM batches inside it
            "triton_config": {**self.triton_config, "max_batch_size": 0, "decoupled": self.decoupled},
        }
        return {"tensorrt_llm/1/model.yaml": json.dumps(arguments, indent=2, sort_keys=True) + "\n"}

    @field_validator("triton_config")
    @classmethod
    def _not_the_plans(cls, value: dict[str, Value]) -> dict[str, Value]:
        for name, instead in (
            ("max_batch_size", "remove it: TensorRT-LLM batches"),
            ("decoupled", "say decoupled, outside of this table"),
        ):
            if name in value:
                raise complaint(
                    name,
                    value[name],
                    f"keys of triton_config without {name}, which the plan sets",
                    then=instead,
                )
        known_values.check_values(known_values.TRITON_CONFIG, value)
        return value

    @field_validator("llm")
    @classmethod
    def _ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in ("model", "tokenizer", "triton_config"):
            if name in value:
                expected = f"arguments of tensorrt_llm.LLM without {name}, which the plan sets"
                raise complaint(name, value[name], expected, then=f"remove {name}")
        for name in ("tensor_parallel_size", "pipeline_parallel_size"):
            size = value.get(name, 1)
            if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 64:
                raise complaint(name, size, "a whole number from 1 to 64")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> LlmApiProfile:
        if self.llm.get("trust_remote_code") and self.weights.code_revision is None:
            expected = "false, or weights.code_revision beside it: the 40-hex commit whose Python files were reviewed"
            raise complaint("trust_remote_code", True, expected, ("llm",))
        named = {f"golden.{number}.model": request.model for number, request in enumerate(self.golden)}
        self._check_models(self.models, named)
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
    def golden_requests(self) -> list[SearchGolden]:
        """Those of the profile: one model takes requests."""
        return self.golden

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
                found = encoder.architecture if encoder else None
                raise complaint(role, found, f'a table with architecture = "{architecture}"', ("encoders",))
        named = {f"golden.{number}.model": request.model for number, request in enumerate(self.golden)}
        self._check_models(self.models, named)
        return self


Profile = EngineProfile | LlmApiProfile | PlanProfile
KINDS: dict[str, type[EngineProfile] | type[LlmApiProfile] | type[PlanProfile]] = {
    "engine": EngineProfile,
    "llmapi": LlmApiProfile,
    "plan": PlanProfile,
}


def plain_image(profile: Profile) -> str:
    """The base that the profile names, else NVIDIA's Triton image of its release without TensorRT-LLM."""
    return profile.image.base or f"nvidia/tritonserver:{profile.image.release}-py3"


def stack_of(profile: Profile) -> StackRelease:
    """
    The versions that serve a profile: a row of the support matrix where its image is pulled, and what is built on
    another image has that one's Triton. Raises PlanError for a build that is none.
    """
    row = stack_release(profile.image.release, "image.release")
    check_tensorrt_llm(row, profile.kind)
    if isinstance(profile, PlanProfile):
        upstream = upon(row, plain_image(profile))
        known = version_tuple(row.tensorrt)
        if known and plain_tensorrt(upstream.triton_release) > known[0]:
            return replace(upstream, tensorrt=str(plain_tensorrt(upstream.triton_release)))
        return upstream
    return row if profile.image.source == "pull" else built(row, profile.image.base)


def profile_names() -> list[str]:
    """The names of the available profiles, sorted."""
    return sorted(_files())


def _files() -> dict[str, Path]:
    """The profiles' files by name: a project's own before those that are shipped."""
    shipped = [] if PROJECT == TREE else [TREE / "inventories" / "models"]
    return {path.stem: path for folder in (*shipped, MODELS_DIRECTORY) for path in folder.glob("*.toml")}


def load_profile(name: str, overrides: Mapping[str, Any] | None = None) -> Profile:
    """
    Read and check one profile.

    + name: its file's name in inventories/models, without .toml
    + overrides: tables merged over it, key by key: what a site changes without a copy of the file

    Raises PlanError for an unknown name, a file that is not TOML, or a value that is not allowed.
    """
    path = _files().get(name)
    if path is None:
        then = suggestion(name, profile_names())
        raise PlanError("model", name, "a profile in inventories/models", then, reference="unknown-model")
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
        check_plain(overrides, f"profile_overrides of {where}")
        data = _merged(data, overrides)
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        expected = f"one of {', '.join(KINDS)}"
        raise PlanError("kind", typed(kind), expected, where=where, reference="unknown-kind")
    try:
        return KINDS[kind].model_validate(data)
    except ValidationError as error:
        raise from_validation(
            error, KINDS[kind], lambda path: _origin(path, where, overrides or {})
        ) from None


def _origin(path: tuple[str | int, ...], where: str, overrides: Mapping[str, Any]) -> Origin:
    """Whether the file says a key, or the inventory over it."""
    table: Any = overrides
    for part in path:
        if not isinstance(table, Mapping):
            break
        if part not in table:
            return Origin(where)
        table = table[part]
    return Origin(f"profile_overrides of {where}" if overrides and path else where)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        nested = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _merged(result[key], value) if nested else value
    return result
