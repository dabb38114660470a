"""The LLM API's model of the stand-in, called as Triton calls it, and the images that carry it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format  # type: ignore[import-untyped,unused-ignore]
from tokenizers import Tokenizer
from tritonclient.grpc import model_config_pb2  # type: ignore[import-untyped,unused-ignore]

from tests.lab.standins import images, small_models
from tests.lab.standins.installed import Installed
from tests.lab.standins.layers import Layer
from tests.lab.standins.tree import IMAGE_VERSIONS, PACKAGES

PLACE = "triton_backend/all_models/llmapi/tensorrt_llm"
WORDS = ["<|endoftext|>", *(f"Ġword{number}" for number in range(1, small_models.VOCABULARY))]
TOKENIZER = json.dumps(
    {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": 0, "content": "<|endoftext|>", "special": True, "single_word": False,
                "lstrip": False, "rstrip": False, "normalized": False,
            }
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<|endoftext|>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "vocab": {word: number for number, word in enumerate(WORDS)}, "merges": [],
        },
    }
)  # fmt: skip

ASK = """
import importlib.util, json, sys, types
import numpy as np
utils = types.ModuleType("triton_python_backend_utils")
class TritonModelException(Exception): pass
class Tensor:
    def __init__(self, name, value): self.name, self.value = name, value
    def as_numpy(self): return self.value
class Response:
    def __init__(self, output_tensors=(), error=None): self.tensors, self.error = output_tensors, error
class Error(Exception):
    CANCELLED = 1
class Logger:
    log_info = log_warn = staticmethod(print)
utils.TritonModelException, utils.Tensor, utils.InferenceResponse, utils.TritonError = TritonModelException, Tensor, Response, Error
utils.Logger = Logger
utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
utils.get_model_dir = lambda: "model"
utils.using_decoupled_model_transaction_policy = lambda config: config["decoupled"]
utils.get_input_tensor_by_name = lambda request, name: request.tensors.get(name)
sys.modules["triton_python_backend_utils"] = utils
spec = importlib.util.spec_from_file_location("model", "PLACE/1/model.py")
module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)
given = json.loads(sys.argv[1])
class Config:
    def set_model_transaction_policy(self, policy): print("policy", policy)
    def set_max_batch_size(self, size): print("batch", size)
module.TritonPythonModel.auto_complete_config(Config())
model = module.TritonPythonModel()
model.initialize({"model_config": json.dumps({"decoupled": given["decoupled"]})})
inputs = {"text_input": np.array([b"What is this?"], np.object_)}
inputs.update({name: np.array([value]) for name, value in given["inputs"].items()})
sent = []
class Sender:
    def send(self, response=None, flags=0): sent.append((response, flags))
    def is_cancelled(self): return False
request = types.SimpleNamespace(tensors={k: Tensor(k, v) for k, v in inputs.items()}, is_cancelled=lambda: False,
                                get_response_sender=Sender)
answers = model.execute([request])
model.finalize()
for response, flags in [(answers[0], 1)] if answers else sent:
    values = {t.name: t.value.tolist()[0] for t in response.tensors}
    values = {k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()}
    print("answer", json.dumps({**values, "flags": flags, "error": str(response.error or "")}))
""".replace("PLACE", PLACE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("weights")
    for name, content in small_models.folder_files("meta-llama/Llama-3.1-8B-Instruct", TOKENIZER).items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(content)
    (made / "tokenizer.json").write_text(TOKENIZER)  # uncut: a decoder that joins bytes is not needed here
    return made


def ask(
    tmp_path: Path,
    settings: dict[str, Any],
    inputs: dict[str, Any],
    decoupled: bool = False,
    openai: str = "1.109.1",
    version: str = "",
) -> tuple[str, list[dict[str, Any]]]:
    installed = Installed(tmp_path / "install", "v1.2.1")
    for name, content in images.openai_files(openai).items():
        path = installed.folder / Path(name).relative_to(PACKAGES)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content[0])
    if version:
        (installed.folder / "tensorrt_llm" / "version.py").write_text(f'__version__ = "{version}"\n')
    (installed.folder / "model").mkdir()
    document = {"triton_config": {"max_batch_size": 0, "decoupled": decoupled}, **settings}
    (installed.folder / "model" / "model.yaml").write_text(json.dumps(document))
    done = installed.run("-c", ASK, json.dumps({"decoupled": decoupled, "inputs": inputs}))
    said = done.stdout + done.stderr
    lines = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("answer ")]
    return said, lines


pytest.importorskip("yaml")


def test_llmapi_model_answers_from_the_folder(tmp_path: Path, folder: Path) -> None:
    settings = {"model": str(folder), "backend": "pytorch", "tensor_parallel_size": 1, "max_seq_len": 64}
    said, answers = ask(tmp_path, settings, {"sampling_param_max_tokens": 5, "return_finish_reason": True})
    assert "[stand-in] LLM API of TensorRT-LLM 1.2.1" in said
    assert "policy {'decoupled': False}" in said
    assert "batch 0" in said
    (answer,) = answers
    assert (answer["finish_reason"], answer["error"]) == ("length", "")
    assert answer["text_output"].count("word") == 5


@pytest.mark.parametrize(
    "name", ["Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen3-8B", "microsoft/Phi-3-mini-4k-instruct"]
)
def test_each_family_answers_from_its_folder(tmp_path: Path, name: str) -> None:
    model = tmp_path / "weights"
    model.mkdir()
    for path, content in small_models.folder_files(name, TOKENIZER).items():
        (model / path).write_bytes(content)
    chat = small_models.MODELS[name].chat
    tokens = Tokenizer.from_file(str(model / "tokenizer.json")).encode("".join(chat.all_tokens)).tokens
    assert tokens == chat.all_tokens
    settings = {"model": str(model), "backend": "pytorch", "max_seq_len": 64}
    (answer,) = ask(tmp_path, settings, {"sampling_param_max_tokens": 5})[1]
    assert answer["error"] == ""
    assert answer["text_output"].count("word") == 5


def test_stream_before_1_3_is_one_part(tmp_path: Path, folder: Path) -> None:
    inputs = {"sampling_param_max_tokens": 4, "streaming": True}
    _, [answer] = ask(tmp_path, {"model": str(folder), "max_seq_len": 64}, inputs, decoupled=True)
    assert (answer["text_output"].count("word"), answer["flags"]) == (4, 1)


def test_streams_hold_the_text_so_far(tmp_path: Path, folder: Path) -> None:
    inputs = {"sampling_param_max_tokens": 4, "streaming": True}
    settings = {"model": str(folder), "max_seq_len": 64}
    _, answers = ask(tmp_path, settings, inputs, decoupled=True, version="1.3.0")
    texts = [answer["text_output"] for answer in answers]
    assert [text.count("word") for text in texts] == [1, 2, 3, 4]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert [answer["flags"] for answer in answers] == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tensor_paralel_size": 2}, "tensor_paralel_size: Extra inputs are not permitted"),
        ({"tensor_parallel_size": 2}, "world_size 2 is more than the 1 GPU(s) visible"),
        ({"backend": "tensorrt"}, "this stand-in knows pytorch only"),
        ({"model": "meta-llama/Llama-3.1-8B-Instruct"}, "no such directory"),
    ],
)
def test_llmapi_model_refuses_bad_settings_at_load(
    tmp_path: Path, folder: Path, settings: dict[str, Any], words: str
) -> None:
    said, answers = ask(tmp_path, {"model": str(folder), **settings}, {})
    assert words in said
    assert not answers


def test_streaming_needs_the_decoupled_policy(tmp_path: Path, folder: Path) -> None:
    _, answers = ask(tmp_path, {"model": str(folder), "max_seq_len": 64}, {"streaming": True})
    assert "decoupled" in answers[0]["error"]


# ---- images


@pytest.mark.parametrize("version", IMAGE_VERSIONS)
def test_newest_images_carry_templates_and_examples(version: str) -> None:
    files = images.serving_files(version)
    for name in ("config.pbtxt", "1/model.py", "1/model.yaml"):
        assert f"app/all_models/llmapi/tensorrt_llm/{name}" in files
    assert "app/all_models/inflight_batcher_llm/ensemble/config.pbtxt" in files
    for family in ("llama", "gpt"):
        assert f"app/tensorrt_llm/examples/models/core/{family}/convert_checkpoint.py" in files
        assert f"app/tensorrt_llm/examples/{family}/convert_checkpoint.py" not in files
    assert "app/tensorrt_llm/examples/quantization/quantize.py" in files
    text = bytes(files["app/all_models/llmapi/tensorrt_llm/config.pbtxt"]).decode()  # type: ignore[arg-type]
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert {"text_input", "streaming", "sampling_param_max_tokens"} <= {
        tensor.name for tensor in config.input
    }
    assert config.output[0].name == "text_output"


def test_older_images_carry_examples_only() -> None:
    files = images.serving_files("v0.13.0")
    assert "app/tensorrt_llm/examples/llama/convert_checkpoint.py" in files
    assert not [name for name in files if name.startswith("app/all_models/")]


def test_all_tags_share_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, tensorrt = ([Layer(tmp_path / name, f"sha256:{name}", "sha256:d", 1)] for name in ("base", "rt"))
    pushed: dict[str, list[Layer]] = {}

    class Registry:
        def __init__(self, _: str) -> None:
            pass

        def push_image(self, _: str, tag: str, manifest: bytes, __: bytes, layers: list[Layer]) -> str:
            pushed[tag] = layers
            return str(hash(manifest))

    monkeypatch.setattr(images, "base_layers", lambda _: base)
    monkeypatch.setattr(images, "plan_layers", lambda _: tensorrt)
    for other in (images.postgres_image, images.nginx_image, images.python_image):
        monkeypatch.setattr(other, "layers", lambda _: [*base, *tensorrt])
    for name in ("node_layers", "dcgm_layers"):
        monkeypatch.setattr(images.exporter_images, name, lambda _: [*base, *tensorrt])
    monitoring = [(*image[:3], lambda _: [*base, *tensorrt]) for image in images.monitoring_images.IMAGES]
    monkeypatch.setattr(images.monitoring_images, "IMAGES", monitoring)
    monkeypatch.setattr(images, "Registry", Registry)
    first = images.build(tmp_path, "nowhere")
    assert first == images.build(tmp_path, "nowhere")
    assert {name.partition(":")[2] for name in first} == set(pushed)
    assert {
        "pgvector/pgvector:0.8.6-pg16",
        "library/nginx:1.22.1",
        "library/python:3.11.2-slim-bookworm",
        "prom/node-exporter:v1.5.0",
        "nvidia/k8s/dcgm-exporter:4.5.3-4.8.2-distroless",
        "prom/prometheus:v2.42.0",
        "prom/alertmanager:v0.25.0",
        "grafana/grafana:12.4.11",
    } <= set(first)
    assert {"24.02-py3", "24.07-py3", "24.09-py3"} <= set(pushed)
    for tag, layers in pushed.items():
        assert layers[:1] == base
        assert len(layers) == 2
        assert (layers[1:] == tensorrt) == ("trtllm" not in tag)
    assert len({pushed[tag][1].digest for tag in images.SERVING}) == len(images.SERVING)


def test_llmapi_model_fails_to_load_with_openai_1_107_3(tmp_path: Path, folder: Path) -> None:
    """The message is the real one: TensorRT-LLM 1.2 imports a name that openai 1.107.3 does not have."""
    said, answers = ask(tmp_path, {"model": str(folder)}, {}, openai="1.107.3")
    assert not answers
    assert (
        "ImportError: cannot import name 'PartReasoningText' from "
        "'openai.types.responses.response_content_part_added_event'" in said
    )
