"""The tables of a model profile: what every kind of profile is made of, checked by pydantic."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from operations.plan.errors import suggestion
from operations.plan.support_matrix import FAMILIES, RELEASES

Count = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
Dtype = Literal["float16", "bfloat16", "float32"]
# finite: TOML knows nan and inf, but nothing that reads these values does
Value = str | int | bool | Annotated[float, Field(allow_inf_nan=False)]

# Formats that run code when they are loaded; refused unless a profile says otherwise by name.
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


# Formats that only round the weights; every other looks at activations, and needs text for it.
WITHOUT_CALIBRATION = ("int8_wo", "int4_wo", "full_prec")


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Hardware(Table):
    """What the profile was made for; it is planned for any GPU that fits."""

    shape: str
    gpu: str
    count: Annotated[int, Field(ge=1, le=64, strict=True)]


class Download(Table):
    """A revision of a Hugging Face repository, and which of its files are needed."""

    repository: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$")]
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    include: list[str]
    exclude: list[str] = []
    gated: bool = False

    @field_validator("repository", "revision", mode="before")
    @classmethod
    def _said_plainly(cls, value: object, info: Any) -> object:
        pattern = {"repository": r"[\w.-]+/[\w.-]+", "revision": r"[0-9a-f]{40}"}[info.field_name]
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            wanted = {"repository": "owner/name", "revision": "a 40-hex commit"}[info.field_name]
            raise ValueError(wanted)
        return value


class Weights(Download):
    """A model's weights, tokenizer and configuration."""

    include: list[str] = ["*.safetensors", "*.json", "tokenizer.model", "*.txt"]
    exclude: list[str] = ["consolidated*"]
    # Weights that exist as pickles only: loading one runs whatever code it holds.
    allow_pickle: bool = False

    @model_validator(mode="after")
    def _no_pickles(self) -> Weights:
        for pattern in self.include:
            if not self.allow_pickle and (pattern in ("*", "**") or pattern.endswith(PICKLE_SUFFIXES)):
                raise ValueError(
                    "include with patterns of safetensors, tokenizer and configuration files, no pickles "
                    "(allow_pickle = true accepts them)"
                )
        return self


class Dataset(Download):
    """A dataset to calibrate a quantization with."""

    # The last part of its path in the container: TensorRT-LLM's quantize.py knows cnn_dailymail by its path alone
    # (tensorrt_llm/quantization/quantize_by_modelopt.py, get_calib_dataloader).
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]


class Image(Table):
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


class Quantization(Table):
    """quantize.py's work in the place of a plain conversion."""

    format: Literal["fp8", "int8_sq", "int4_awq", "w4a8_awq", "int8_wo", "int4_wo", "nvfp4", "full_prec"]
    kv_cache_dtype: Literal["int8", "fp8"] | None = None
    calibration_size: Count | None = None
    calibration_batch: Count | None = None
    awq_block_size: Count | None = None
    # What it calibrates on, downloaded like weights: quantization itself has no network.
    calibration: Dataset | None = None

    @model_validator(mode="after")
    def _calibrated(self) -> Quantization:
        if self.calibration is None and self.format not in WITHOUT_CALIBRATION:
            raise ValueError(
                f"a table calibration beside format {self.format}: quantize.py would download cnn_dailymail, "
                "and it has no network"
            )
        return self


class Checkpoint(Table):
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


class Repository(Table):
    """The model repository: which models of inflight_batcher_llm, and the values of their placeholders."""

    models: list[str] = ["preprocessing", "postprocessing", "tensorrt_llm", "ensemble", "tensorrt_llm_bls"]
    # placeholder -> value, for every model whose template has it
    parameters: dict[str, Value] = {}
    # the same for one model only; wins over `parameters`
    model_parameters: dict[str, dict[str, Value]] = {}


class Server(Table):
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


class Golden(Table):
    """A request to a language model whose answer is known: greedy decoding gives the same text each time."""

    model: str = "ensemble"
    prompt: Annotated[str, Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1, le=4096, strict=True)]
    # the answer starts with this text; "" accepts any answer of at least one word
    expect: str


class SearchGolden(Table):
    """A search whose best match is known: the id of a document, found by its text, its image, or both."""

    model: str = "clip_search"
    text: str | None = None
    # the image of this document of the profile's own
    image_of: str | None = None
    expect: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _something_to_look_for(self) -> SearchGolden:
        if self.text is None and self.image_of is None:
            raise ValueError("text, image_of or both")
        return self


class Encoder(Table):
    """One encoder: weights -> ONNX -> a TensorRT plan that turns a picture or a text into a vector."""

    architecture: Literal["clip_vision", "bert"]
    weights: Weights
    # numbers of the vector: pgvector indexes up to 2000
    embedding_size: Annotated[int, Field(ge=8, le=2000, strict=True)]
    # int8 is quantized with the profile's documents as its calibration data
    precision: Literal["fp16", "fp32", "int8"] = "fp16"
    max_batch_size: Annotated[int, Field(ge=1, le=1024, strict=True)] = 8
    # pixels of the square picture, for clip_vision
    image_size: Annotated[int, Field(ge=16, le=1024, strict=True)] = 224
    # tokens every text is padded or cut to, for bert
    text_tokens: Annotated[int, Field(ge=8, le=512, strict=True)] = 128
    workspace_mib: Annotated[int, Field(ge=64, le=65536, strict=True)] = 4096

    @property
    def name(self) -> str:
        """What its vectors are stored under: vectors of other weights cannot be compared with them."""
        return f"{self.weights.repository}@{self.weights.revision[:12]}"


class Documents(Table):
    """What is searched: documents and their vectors in PostgreSQL with pgvector."""

    # an image of PostgreSQL with pgvector 0.5 or later, whose HNSW index the migrations make
    image: Annotated[str, Field(pattern=r"^[a-z0-9/._-]+:[A-Za-z0-9._-]+$")]
    # files/documents/<seed>.jsonl: put in at the first deployment, and what int8 is calibrated with
    seed: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    shm_size: Annotated[str, Field(pattern=r"^[0-9]+[mg]$")] = "256m"
