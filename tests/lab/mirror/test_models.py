"""The models' Python code, called as Triton calls it, over a tokenizer of a few words."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.lab.mirror.versions import TAGS, at_version, number

numpy = pytest.importorskip("numpy")
tokenizers = pytest.importorskip("tokenizers")

SOURCE = Path(__file__).parent / "source" / "models"
WORDS = ["<end>", "<pad>", "hello", "good", "world", "a", "b"]


class Tensor:
    def __init__(self, name: str, array: Any) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Any:
        return self._array


class Request:
    def __init__(self, wanted: list[str], **inputs: Any) -> None:
        self.tensors = {name: Tensor(name, array) for name, array in inputs.items()}
        self.wanted = wanted

    def requested_output_names(self) -> list[str]:
        return self.wanted


class Call:
    """A request to a model that does not exist: Triton's error message."""

    def __init__(self, model_name: str, **_: Any) -> None:
        self.model = model_name

    def exec(self, decoupled: bool) -> Any:
        words = f"Failed for execute the inference request. Model '{self.model}' is not ready."
        return types.SimpleNamespace(
            has_error=lambda: self.model not in ("preprocessing", "tensorrt_llm", "postprocessing"),
            error=lambda: types.SimpleNamespace(message=lambda: words),
            output_tensors=lambda: (
                [Tensor("OUTPUT", numpy.array([b"yes"], object))]
                if self.model == "postprocessing"
                else [Tensor(name, numpy.zeros((1, 1, 1))) for name in ("output_ids", "sequence_length")]
                if self.model == "tensorrt_llm"
                else []
            ),
        )


Load = Callable[..., Any]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Makes a model: `load(name, outputs, parameter=value)`; `tag`: as the lab has it at that tag."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer.add_special_tokens([AddedToken("<end>", special=True), AddedToken("<pad>", special=True)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(
        '{"eos_token": {"content": "<end>"}, "pad_token": "<pad>"}'
    )

    utils: Any = types.ModuleType("triton_python_backend_utils")
    utils.Tensor = Tensor
    utils.TritonError = str
    utils.TritonModelException = RuntimeError
    utils.InferenceResponse = lambda output_tensors=(), error=None: (
        error or {tensor.name(): tensor.as_numpy() for tensor in output_tensors}
    )
    utils.using_decoupled_model_transaction_policy = lambda config: False
    utils.InferenceRequest = Call
    utils.get_input_tensor_by_name = lambda request, name: request.tensors.get(name)
    utils.triton_string_to_numpy = lambda kind: {"TYPE_STRING": object}.get(kind, numpy.float32)
    utils.Logger = types.SimpleNamespace(log_info=lambda _: None)
    monkeypatch.setitem(sys.modules, utils.__name__, utils)

    def make(name: str, outputs: list[str], tag: str = TAGS[-1], **parameters: str) -> Any:
        code = tmp_path / f"{name}.py"
        code.write_bytes(at_version((SOURCE / code.name).read_bytes(), tag))
        spec = importlib.util.spec_from_file_location(f"lab_{name}", code)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = {
            "parameters": {
                key: {"string_value": value}
                for key, value in {"tokenizer_dir": str(tmp_path), **parameters}.items()
            },
            "output": [{"name": output, "data_type": "TYPE_FP32", "dims": [-1]} for output in outputs],
        }
        model = module.TritonPythonModel()
        model.initialize({"model_config": json.dumps(config)})
        return model

    return make


def strings(*rows: list[str]) -> Any:
    return numpy.array([[text.encode() for text in row] for row in rows], object)


@pytest.mark.parametrize(
    ("words", "flat", "ends"),
    [
        ([""], [0], [-1]),
        (["", ""], [0], [-1]),
        (["good"], [3], [1]),
        (["good world", "a"], [3, 4, 5], [2, 3, -1]),
        (["a,b"], [5, 6], [1, 2]),
    ],
)
def test_word_lists(load: Load, words: list[str], flat: list[int], ends: list[int]) -> None:
    names = ["INPUT_ID", "REQUEST_INPUT_LEN", "BAD_WORDS_IDS", "STOP_WORDS_IDS", "EMBEDDING_BIAS"]
    model = load("preprocessing", names, add_special_tokens="${add_special_tokens}")
    request = Request(
        names,
        QUERY=strings(["hello world"]),
        REQUEST_OUTPUT_LEN=numpy.array([[5]]),
        BAD_WORDS_DICT=strings(words),
    )
    (answer,) = model.execute([request])
    assert answer["INPUT_ID"].tolist() == [[2, 4]]
    assert answer["REQUEST_INPUT_LEN"].tolist() == [[2]]
    assert answer["BAD_WORDS_IDS"].tolist() == [[flat, ends]]
    assert answer["STOP_WORDS_IDS"].tolist() == [[[0], [-1]]]
    assert answer["EMBEDDING_BIAS"].size == 0


def test_end_and_pad_ids_come_from_tokenizer_or_request(load: Load) -> None:
    names = ["OUT_END_ID", "OUT_PAD_ID", "INPUT_ID"]
    model = load("preprocessing", names)
    queries, length = strings(["hello"], ["hello good world"]), numpy.array([[5], [5]])
    (answer,) = model.execute([Request(names, QUERY=queries, REQUEST_OUTPUT_LEN=length)])
    assert answer["INPUT_ID"].tolist() == [[2, 1, 1], [2, 3, 4]]
    assert (answer["OUT_END_ID"].tolist(), answer["OUT_PAD_ID"].tolist()) == ([[0], [0]], [[1], [1]])
    request = Request(names, QUERY=queries, REQUEST_OUTPUT_LEN=length, END_ID=numpy.array([[7], [7]]))
    assert model.execute([request])[0]["OUT_END_ID"].tolist() == [[7], [7]]


@pytest.mark.parametrize(
    ("skip", "text"), [("${skip_special_tokens}", "hello world"), ("False", "hello world <end>")]
)
def test_postprocessing(load: Load, skip: str, text: str) -> None:
    names = ["OUTPUT", "OUT_CUM_LOG_PROBS"]
    model = load("postprocessing", names, skip_special_tokens=skip)
    request = Request(names, TOKENS_BATCH=numpy.array([[[2, 4, 0, 6]]]), SEQUENCE_LENGTH=numpy.array([[3]]))
    (answer,) = model.execute([request])
    assert answer["OUTPUT"].tolist() == [[text.encode()]]
    assert answer["OUT_CUM_LOG_PROBS"].tolist() == [[0.0]]


def test_missing_tokenizer_is_named(load: Load) -> None:
    with pytest.raises(RuntimeError, match="tokenizer_dir"):
        load("preprocessing", [], tokenizer_dir="${tokenizer_dir}")


@pytest.mark.parametrize("tag", TAGS)
def test_bls_calls_the_configured_model(load: Load, tag: str) -> None:
    """Before v0.13.0 an unfilled placeholder is used as a model's name, and no model has that name."""
    literal = "${tensorrt_llm_model_name}"
    request = Request([], text_input=strings(["hello"]))
    request.inputs = lambda: list(request.tensors.values())  # type: ignore[attr-defined]
    model = load("tensorrt_llm_bls", ["text_output"], tag, tensorrt_llm_model_name=literal)
    (answer,) = model.execute([request])
    if number(tag) < (0, 13, 0):
        assert f"Model '{literal}' is not ready" in str(answer)
    else:
        assert answer["text_output"].tolist() == [b"yes"]
    model = load("tensorrt_llm_bls", ["text_output"], tag, tensorrt_llm_model_name="tensorrt_llm")
    (answer,) = model.execute([request])
    assert answer["text_output"].tolist() == [b"yes"]
