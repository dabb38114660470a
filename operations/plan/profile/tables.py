"""The tables of a model profile: what every kind of profile is made of, checked by pydantic."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from operations.plan.catalog import known_values
from operations.plan.catalog.server_options import ServerOption, VariableName, VariableValue
from operations.plan.catalog.shapes import SHAPES, expected
from operations.plan.catalog.support_matrix import FAMILIES, PLAIN_RELEASES, RELEASES
from operations.plan.catalog.template_parameters import PARAMETERS
from operations.plan.catalog.values import Port, Switch
from operations.plan.errors import suggestion
from operations.plan.profile.field_types import (
    CheckpointFlags,
    Count,
    Dtype,
    FileStem,
    ImageReference,
    Line,
    ModelType,
    ParameterName,
    Parameters,
    shared_memory,
)
from operations.plan.wording import complaint

# Formats that run code when they are loaded; refused unless a profile says otherwise by name.
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
# Programs, which no download takes but a reviewed revision's Python files
PROGRAM_SUFFIXES = (".py", ".pyc", ".so", ".sh")
# Names that pickled weights have; files/image/download_weights.py leaves out whatever else ends like one.
_PICKLES = (
    "pytorch_model.bin",
    "pytorch_model-00001-of-00002.bin",
    "consolidated.00.pth",
    "model.ckpt",
    "x.pt",
)


# Names of the families that mean the same
OTHER_NAMES = {
    "llama2": "llama",
    "llama3": "llama",
    "lama": "llama",
    "mistral-nemo": "mistral",
    "gpt2": "gpt",
}

# Flags of a converter that look at activations, and need text for it
CALIBRATING = ("int8_kv_cache", "smoothquant")
# Formats that only round the weights; every other looks at activations, and needs text for it.
WITHOUT_CALIBRATION = ("int8_wo", "int4_wo", "full_prec")


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Hardware(Table):
    """What the profile was made for; it is planned for any GPU that fits."""

    shape: Line
    gpu: Line
    count: Annotated[int, Field(ge=1, le=64, strict=True)]
    # a shape that some tenancies have and Oracle's page does not list
    limited: Switch = False

    @model_validator(mode="after")
    def _as_the_shape_is(self) -> Hardware:
        if self.limited:
            return self
        row = SHAPES.get(self.shape)
        if row is None:
            raise complaint(
                "shape", self.shape, f"{expected(self.shape)}; limited = true accepts one that is not listed"
            )
        if not row.has_gpu(self.gpu, 0):
            raise complaint("gpu", self.gpu, f"a name with {row.gpu}, which {row.name} has")
        if self.count > row.gpu_count:
            raise complaint("count", self.count, f"at most {row.gpu_count}, which {row.name} has")
        return self


class Download(Table):
    """A revision of a Hugging Face repository, and which of its files are needed."""

    repository: str
    revision: str
    include: Annotated[list[str], Field(min_length=1)]
    exclude: list[str] = []
    gated: Switch = False

    @field_validator("repository", "revision", mode="before")
    @classmethod
    def _said_plainly(cls, value: object, info: Any) -> object:
        name = r"[A-Za-z0-9](?!.*[.]{2})[A-Za-z0-9._-]{0,95}"
        pattern = {"repository": f"{name}/{name}", "revision": r"[0-9a-f]{40}"}[info.field_name]
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            wanted = {"repository": "owner/name", "revision": "a 40-hex commit"}[info.field_name]
            raise ValueError(wanted)
        return value

    @field_validator("include", "exclude")
    @classmethod
    def _patterns(cls, value: list[str], info: Any) -> list[str]:
        for pattern in value:
            if not pattern.isprintable() or not 1 <= len(pattern) <= 200:
                raise ValueError("patterns of file names, each one line of at most 200 characters")
            if pattern.startswith("/") or ".." in pattern.split("/"):
                raise ValueError("patterns of file names inside the repository")
            if info.field_name == "include" and pattern.lower().endswith(PROGRAM_SUFFIXES):
                raise ValueError(
                    "patterns of data files, no programs: Python files come with weights.code_revision alone"
                )
        return value


class Weights(Download):
    """A model's weights, tokenizer and configuration."""

    include: Annotated[list[str], Field(min_length=1)] = [
        "*.safetensors",
        "*.json",
        "tokenizer.model",
        "*.txt",
    ]
    exclude: list[str] = ["consolidated*"]
    # Weights that exist as pickles only: loading one runs whatever code it holds.
    allow_pickle: Switch = False
    # The commit whose Python files somebody has read: they are downloaded too, and trust_remote_code may run them.
    code_revision: str | None = None

    @field_validator("code_revision", mode="before")
    @classmethod
    def _a_commit(cls, value: object) -> object:
        if value is not None and (not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{40}", value)):
            raise ValueError("the 40-hex commit whose Python files were reviewed")
        return value

    @model_validator(mode="after")
    def _the_code_that_was_reviewed(self) -> Weights:
        if self.code_revision not in (None, self.revision):
            expected = (
                f"weights.revision ({self.revision}): review the Python files of that commit, then name it"
            )
            raise complaint("code_revision", self.code_revision, expected)
        return self

    @model_validator(mode="after")
    def _no_pickles(self) -> Weights:
        for pattern in self.include:
            # a * crosses directories here: fnmatch knows none
            takes_pickles = pattern.lower().endswith(PICKLE_SUFFIXES) or any(
                fnmatchcase(f"{folder}{name}", pattern) for name in _PICKLES for folder in ("", "original/")
            )
            if takes_pickles and not self.allow_pickle:
                raise complaint(
                    "include",
                    pattern,
                    "patterns of safetensors, tokenizer and configuration files, no pickles",
                    then="allow_pickle = true accepts them",
                    reference="pickled-weights",
                )
        return self


class Dataset(Download):
    """A dataset to calibrate a quantization with."""

    # The last part of its path in the container: TensorRT-LLM's quantize.py knows cnn_dailymail by its path alone
    # (tensorrt_llm/quantization/quantize_by_modelopt.py, get_calib_dataloader).
    name: FileStem


class Image(Table):
    """The serving image: a row of the support matrix, pulled or built from tensorrtllm_backend's sources."""

    release: str
    source: Literal["build", "pull"]
    # The base of a build; without it the Dockerfile's own, which that tag was tested with.
    base: ImageReference | None = None

    @field_validator("release", mode="before")
    @classmethod
    def _known(cls, value: object) -> object:
        if not isinstance(value, str):
            raise ValueError('a release in quotes, such as "24.10": without them it is the number 24.1')
        if value not in RELEASES and value not in PLAIN_RELEASES:
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
            raise complaint(
                "calibration",
                None,
                f"a table calibration beside format {self.format}: quantize.py would download cnn_dailymail, "
                "and it has no network",
            )
        return self


class Checkpoint(Table):
    """How Hugging Face weights become a TensorRT-LLM checkpoint."""

    family: str
    # a model_type of config.json that the converter reads, beside those that this tool knows of (described.CONVERTED)
    model_type: ModelType | None = None
    dtype: Dtype
    tensor_parallel: Annotated[int, Field(ge=1, le=64, strict=True)] = 1
    pipeline_parallel: Annotated[int, Field(ge=1, le=64, strict=True)] = 1
    quantization: Quantization | None = None
    # text for a converter whose flags calibrate (CALIBRATING), downloaded like weights: conversion has no network
    calibration: Dataset | None = None
    # further flags of the converter or quantizer, by their names without dashes; true means a bare flag
    flags: CheckpointFlags = {}

    @property
    def dataset(self) -> Dataset | None:
        """What is calibrated with, by the quantizer or by the converter."""
        return self.quantization.calibration if self.quantization else self.calibration

    @field_validator("family")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in FAMILIES:
            # a similar name may be another architecture: gptj is not gpt, mllama is not llama
            near = f"did you mean {OTHER_NAMES[value]}? " if value in OTHER_NAMES else ""
            raise ValueError(
                f"a model family with a converter ({', '.join(sorted(FAMILIES))}); {near}For any other architecture use "
                "kind = 'llmapi', which serves the weights as they are"
            )
        return value

    @model_validator(mode="after")
    def _said_once(self) -> Checkpoint:
        for name in self.flags if self.quantization else ():
            if instead := known_values.QUANTIZED.get(name):
                raise complaint(name, self.flags[name], instead.complaint(self.flags[name]), ("flags",))
        return self

    @model_validator(mode="after")
    def _calibrated(self) -> Checkpoint:
        asking = [name for name in CALIBRATING if self.flags.get(name) not in (None, False)]
        if self.quantization is None and asking and self.calibration is None:
            raise complaint(
                asking[0],
                self.flags[asking[0]],
                "a table checkpoint.calibration beside it (name, repository, revision, include): the converter would download "
                "a data set, and it has no network",
                ("flags",),
            )
        if self.calibration is not None and (self.quantization or not asking):
            raise complaint(
                "calibration",
                self.calibration.name,
                f"calibration only beside flags.{' or flags.'.join(CALIBRATING)}",
                then="quantization has a calibration of its own",
            )
        if "calib_dataset" in self.flags:
            raise complaint(
                "calib_dataset",
                self.flags["calib_dataset"],
                "a table calibration in its place: a data set by name would be downloaded, and conversion has no network",
                ("flags",),
            )
        return self


class Repository(Table):
    """The model repository: which models of inflight_batcher_llm, and the values of their placeholders."""

    models: list[str] = ["preprocessing", "postprocessing", "tensorrt_llm", "ensemble", "tensorrt_llm_bls"]
    # placeholder -> value, for every model whose template has it
    parameters: Parameters = {}
    # the same for one model only; wins over `parameters`
    model_parameters: dict[str, Parameters] = {}
    # names of placeholders that a template has and this tool does not know
    unlisted: list[ParameterName] = []

    @field_validator("models")
    @classmethod
    def _of_the_templates(cls, value: list[str]) -> list[str]:
        for name in value:
            if name not in PARAMETERS:
                raise ValueError(
                    f"models of inflight_batcher_llm, and {name or 'nothing'} is none; {suggestion(name, PARAMETERS)}"
                )
        if len(set(value)) != len(value):
            raise ValueError("each model once")
        if missing := {"preprocessing", "postprocessing", "tensorrt_llm"} - set(value):
            raise ValueError(f"{', '.join(sorted(missing))} too: the models that answer are made of them")
        if not {"ensemble", "tensorrt_llm_bls"} & set(value):
            raise ValueError("ensemble or tensorrt_llm_bls too: one that takes a person's request")
        return value


def different_ports(http: int | None, grpc: int | None, metrics: int | None) -> None:
    """Refuse a pair of ports that are one; None is one that is not said. Raises ValidationError."""
    ports = {"http_port": http, "grpc_port": grpc, "metrics_port": metrics}
    said = [(name, port) for name, port in ports.items() if port is not None]
    for number, (name, port) in enumerate(said):
        for other, its in said[number + 1 :]:
            if port == its:
                raise complaint(
                    other,
                    port,
                    f"three different ports, and {name} and {other} are both {port}",
                    reference="ports-not-different",
                )


class Server(Table):
    """What tritonserver and its container are started with."""

    http_port: Port = 8000
    grpc_port: Port = 8001
    metrics_port: Port = 8002
    # NVIDIA's own commands say 2g, triton_cli's 1g
    shm_size: Annotated[str, shared_memory(1024)] = "2g"
    memlock: Annotated[int, Field(ge=-1, lt=2**63, strict=True)] = -1
    # 8 MiB is Linux' own default
    stack_bytes: Annotated[int, Field(ge=8388608, le=2**40, strict=True)] = 67108864
    # with explicit model control, the models to load; none: every model of the repository is loaded at start
    load_models: list[str] = []
    # whether everyone who reaches the ports may load models, register shared memory, trace and log
    admin_apis: Switch = False
    # the largest HTTP request, in MiB; releases before 25.06 know no bound
    max_request_mib: Annotated[int, Field(ge=1, le=2047, strict=True)] = 64
    arguments: list[ServerOption] = []
    environment: dict[VariableName, VariableValue] = {}

    @model_validator(mode="after")
    def _ports_of_their_own(self) -> Server:
        different_ports(self.http_port, self.grpc_port, self.metrics_port)
        return self


_FILLER = ["the", "sun", "is", "up", "and", "the", "sky", "is", "blue", "and", "the", "day", "is", "long"]


class Golden(Table):
    """A request to a language model whose answer is known: greedy decoding gives the same text each time."""

    model: str = "ensemble"
    prompt: Annotated[str, Field(min_length=1)]
    # so many plain words are sent before the prompt, about a token each: some faults show only beyond thousands of tokens
    filler_words: Annotated[int, Field(ge=0, le=1_000_000, strict=True)] = 0
    max_tokens: Annotated[int, Field(ge=1, le=4096, strict=True)]
    # the answer starts with this text; "" accepts any answer of at least one word
    expect: str

    @property
    def sent(self) -> str:
        """The whole prompt."""
        words = (_FILLER[number % len(_FILLER)] for number in range(self.filler_words))
        return " ".join([*words, self.prompt])

    @property
    def title(self) -> str:
        """The prompt, short."""
        return f"[{self.filler_words} words] {self.prompt}" if self.filler_words else self.prompt


class LlmApiGolden(Golden):
    """The same to the one model of the LLM API."""

    model: str = "tensorrt_llm"


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
            raise complaint("text", None, "text, image_of or both")
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
    image: ImageReference
    # files/documents/<seed>.jsonl: put in at the first deployment, and what int8 is calibrated with
    seed: FileStem
    shm_size: Annotated[str, shared_memory(64)] = "256m"
