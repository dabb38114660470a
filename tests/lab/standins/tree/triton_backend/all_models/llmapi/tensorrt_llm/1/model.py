"""Stand-in for the LLM API's Triton model: text in, text out, from a Hugging Face folder and no engine.

1/model.yaml (or the file that LLM_CONFIG_PATH names) says which folder, and how: arguments of tensorrt_llm.LLM.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorrt_llm._torch.pyexecutor.py_executor  # noqa: F401 - the LLM API runs every model by it
from tensorrt_llm.checkpoint import CheckpointError, load_config
from tensorrt_llm.gpu import NoGpu, token_delay, visible_gpus
from tensorrt_llm.runtime.batch import Batch, Sender, Whole
from tensorrt_llm.runtime.decoder import Sampling
from tensorrt_llm.runtime.folder import load_folder
from tensorrt_llm.version import __version__
from tokenizers import Tokenizer

pb_utils: Any = importlib.import_module(
    "triton_python_backend_utils"
)  # given by Triton, only inside its stub
yaml: Any = importlib.import_module("yaml")

MOST_AT_ONCE = 64
ARGUMENTS = frozenset(
    [
        "attn_backend",
        "backend",
        "cuda_graph_config",
        "disable_overlap_scheduler",
        "dtype",
        "enable_attention_dp",
        "enable_chunked_prefill",
        "gather_generation_logits",
        "guided_decoding_backend",
        "iter_stats_max_iterations",
        "kv_cache_config",
        "load_format",
        "lora_config",
        "max_batch_size",
        "max_beam_width",
        "max_input_len",
        "max_num_tokens",
        "max_seq_len",
        "model",
        "moe_cluster_parallel_size",
        "moe_config",
        "moe_expert_parallel_size",
        "moe_tensor_parallel_size",
        "pipeline_parallel_size",
        "quant_config",
        "revision",
        "scheduler_config",
        "skip_tokenizer_init",
        "speculative_config",
        "stream_interval",
        "tensor_parallel_size",
        "tokenizer",
        "tokenizer_mode",
        "torch_compile_config",
        "trust_remote_code",
    ]
)
DEFAULT_MAX_TOKENS = 32
# Before, the real model gives LLM.generate_async its `streaming` as the third argument, which is lora_request
FIRST_STREAMED = (1, 3)


def settings() -> tuple[dict[str, Any], dict[str, Any]]:
    """(triton_config, the LLM's arguments) of the YAML file."""
    path = Path(pb_utils.get_model_dir(), os.environ.get("LLM_CONFIG_PATH", "model.yaml"))
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise pb_utils.TritonModelException(f"Failed to parse YAML engine config: {error}") from None
    if not isinstance(content, dict) or "triton_config" not in content:
        raise pb_utils.TritonModelException(
            f"{path}: found no triton_config, expected max_batch_size and decoupled"
        )
    return content.pop("triton_config"), content


def refuse(message: str) -> Exception:
    """The real model passes on what the LLM said."""
    exception: Exception = pb_utils.TritonModelException(f"[trtllm] Failed to start engine: {message}")
    return exception


def _compile() -> None:
    """As PyTorch's compiler: what it finds in the directory that it is given is not made again."""
    place = Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR", "/tmp/torchinductor"))
    made = place / "kernel"
    found = "from the cache" if made.exists() else "compiled now"
    place.mkdir(parents=True, exist_ok=True)
    made.write_text(f"{found}\n")
    pb_utils.Logger.log_info(f"[stand-in] kernels: {found}")


class Told:
    """A sink whose errors have the words of NVIDIA's model."""

    def __init__(self, sink: Sender | Whole) -> None:
        self.send, self.sink = sink.send, sink

    def fail(self, error: Exception) -> None:
        self.sink.fail(RuntimeError(f"Error generating request: {error}"))


class TritonPythonModel:
    """The one instance of the model, as Triton's Python backend wants it."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Batch size and transaction policy come from the YAML file and not from config.pbtxt."""
        triton, _ = settings()
        auto_complete_model_config.set_model_transaction_policy({"decoupled": bool(triton["decoupled"])})
        auto_complete_model_config.set_max_batch_size(int(triton["max_batch_size"]))
        return auto_complete_model_config

    def initialize(self, args: dict[str, str]) -> None:
        """Load the folder, or refuse."""
        triton, self.arguments = settings()
        self.decoupled = bool(triton["decoupled"])
        served = bool(pb_utils.using_decoupled_model_transaction_policy(json.loads(args["model_config"])))
        pb_utils.Logger.log_info(
            f"[stand-in] LLM API of TensorRT-LLM {__version__}: numpy on the CPU, {self.arguments}"
        )
        if served != self.decoupled:
            pb_utils.Logger.log_warn(
                f"[stand-in] model.yaml says decoupled {self.decoupled}, the server has {served}:"
                " it was started with --disable-auto-complete-config"
            )
        unknown = sorted(self.arguments.keys() - ARGUMENTS)
        if unknown:
            raise refuse(f"1 validation error for TorchLlmArgs: {unknown[0]}: Extra inputs are not permitted")
        backend = self.arguments.get("backend", "pytorch")
        if backend != "pytorch":
            raise refuse(f"backend {backend}: this stand-in knows pytorch only")
        self._load(Path(str(self.arguments.get("model", ""))))
        _compile()
        self.batch = Batch(MOST_AT_ONCE, token_delay)

    def _load(self, folder: Path) -> None:
        tensor, pipeline = (
            int(self.arguments.get(f"{name}_parallel_size", 1)) for name in ("tensor", "pipeline")
        )
        try:
            gpus = visible_gpus()
            if tensor * pipeline > len(gpus):
                raise refuse(f"world_size {tensor * pipeline} is more than the {len(gpus)} GPU(s) visible")
            if not folder.is_dir():
                raise refuse(f"model {folder}: no such directory; this stand-in downloads nothing")
            config = load_config(folder)
            heads = int(config.get("num_attention_heads", config.get("n_head", 0)))
            if heads % tensor:
                raise refuse(f"{heads} attention heads do not divide by tensor_parallel_size {tensor}")
            self.decoder = load_folder(folder, self.arguments.get("max_seq_len"))
            place = Path(str(self.arguments.get("tokenizer", folder)), "tokenizer.json")
            if not place.is_file():
                raise refuse(f"no {place}; expected the model's tokenizer")
        except (CheckpointError, NoGpu) as error:
            raise refuse(str(error)) from None
        self.tokenizer = Tokenizer.from_file(str(place))
        end = config.get("eos_token_id", -1)
        self.end = int(end[0] if isinstance(end, list) else end)

    @staticmethod
    def _value(request: Any, name: str) -> Any:
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        if tensor is None or not tensor.as_numpy().size:
            return None
        return tensor.as_numpy().reshape(-1)[0].item() if name != "text_input" else tensor.as_numpy()

    def _sampling(self, request: Any) -> Sampling:
        """Greedy unless the request says something that throws dice."""
        temperature, top_k, top_p, seed = (
            self._value(request, f"sampling_param_{name}")
            for name in ("temperature", "top_k", "top_p", "seed")
        )
        plain = not temperature and not top_p
        return Sampling(
            temperature=1.0 if temperature is None else float(temperature),
            top_k=int(top_k) if top_k else 1 if plain else 0,
            top_p=float(top_p or 0),
            seed=int(seed or 0),
            end_id=self.end,
        )

    def _answers(self, request: Any, cancelled: Callable[[], bool]) -> Iterator[tuple[Any, bool]]:
        """(response, whether it is the last); every response of a stream holds the whole text so far."""
        text = self._value(request, "text_input")
        if text is None:
            raise ValueError("text_input is missing from the request")
        if text.ndim > 1:
            raise ValueError("The current implementation only supports text_input being a 1D tensor.")
        streaming = bool(self._value(request, "streaming"))
        if streaming and not self.decoupled:
            raise ValueError("Streaming is only supported in decoupled mode.")
        streaming = streaming and tuple(map(int, __version__.split(".")[:2])) >= FIRST_STREAMED
        stop = pb_utils.get_input_tensor_by_name(request, "sampling_param_stop")
        stops = [] if stop is None else [word.decode() for word in stop.as_numpy().reshape(-1)]
        limit = self._value(request, "sampling_param_max_tokens")
        limit = DEFAULT_MAX_TOKENS if limit is None else int(limit)
        prompt = self.tokenizer.encode(text[0].decode()).ids
        ids, chance, said, reason = list[int](), 0.0, "", "stop"
        for step in self.decoder.generate(prompt, limit, self._sampling(request)):
            if cancelled():
                return
            ids.append(step.token)
            chance += step.log_probability
            said = self.tokenizer.decode(ids, skip_special_tokens=True)
            found = min((said.find(word) for word in stops if word and word in said), default=-1)
            if found >= 0:
                said = said[:found]
                break
            if len(ids) == limit:
                reason = "length"
            if len(ids) < limit:
                yield self._response(request, said, "None", chance) if streaming else None, False
        yield self._response(request, said, reason, chance), True

    def _response(self, request: Any, text: str, reason: str, chance: float) -> Any:
        tensors = [pb_utils.Tensor("text_output", np.array([text.encode()], np.object_))]
        if self._value(request, "return_finish_reason"):
            tensors.append(pb_utils.Tensor("finish_reason", np.array([reason.encode()], np.object_)))
        if self._value(request, "return_stop_reason"):
            tensors.append(pb_utils.Tensor("stop_reason", np.array([b"None"], np.object_)))
        if self._value(request, "return_cumulative_logprob"):
            tensors.append(pb_utils.Tensor("cumulative_logprob", np.array([chance], np.float32)))
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def execute(self, requests: list[Any]) -> list[Any] | None:
        """Answer the requests: at once when decoupled, one after the other when not."""
        for request in requests if self.decoupled else ():
            sink = Sender(pb_utils, request)
            self.batch.add(self._answers(request, sink.cancelled), Told(sink))
        if self.decoupled:
            return None
        answers = []
        for request in requests:
            whole = Whole(pb_utils, request)
            self.batch.add(self._answers(request, whole.cancelled), Told(whole))
            answers.append(whole.wait())
        return answers

    def finalize(self) -> None:
        """Let requests in flight finish."""
        self.batch.wait(30)
