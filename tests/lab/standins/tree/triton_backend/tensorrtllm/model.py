"""Stand-in for the tensorrtllm backend: a Triton Python-based backend over the numpy decoder.

Takes and gives the tensors of all_models/inflight_batcher_llm/tensorrt_llm; `gpt_model_path` is an engine directory.
It refuses what the real backend refuses, in its words.
"""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorrt_llm.engine_file import EngineRefused
from tensorrt_llm.gpu import Gpu, NoGpu, free_bytes, token_delay, visible_gpus, wrong_every
from tensorrt_llm.releases import release
from tensorrt_llm.runtime.batch import Batch, Sender, Whole
from tensorrt_llm.runtime.decoder import Decoder, Sampling
from tensorrt_llm.runtime.engine import load_config, load_engine
from tensorrt_llm.runtime.metrics import Metrics
from tensorrt_llm.version import __version__

pb_utils: Any = importlib.import_module(
    "triton_python_backend_utils"
)  # given by Triton, only inside its stub

BATCHING = ("inflight_fused_batching", "inflight_batching", "V1", "v1")
NUMPY_TYPES = {
    "TYPE_BOOL": np.bool_,
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
    "TYPE_UINT64": np.uint64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
}


# what a request may say, as far as this stand-in heeds it
INPUTS = (
    *(
        "input_ids",
        "input_lengths",
        "request_output_len",
        "beam_width",
        "streaming",
        "temperature",
        "runtime_top_k",
    ),
    *("runtime_top_p", "random_seed", "seed", "end_id", "bad_words_list", "stop_words_list"),
    *("return_context_logits", "return_generation_logits", "exclude_input_in_output"),
)


def check_world(mapping: dict[str, int], gpus: list[Gpu]) -> None:
    """Refuse a number of MPI ranks, or of GPUs, that the engine was not built for."""
    tp, pp = mapping["tp_size"], mapping["pp_size"]
    world = int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1"))
    if os.environ.get("TRTLLM_ORCHESTRATOR", "0") != "1" and world != tp * pp:
        if release(__version__) < (0, 10):
            raise EngineRefused(f"Assertion failed: mpiSize == tp * pp (mpiSize {world}, tp {tp}, pp {pp})")
        product = "tp*pp*cp" if release(__version__) >= (0, 16) else "tp*pp"
        raise EngineRefused(
            "Assertion failed: With communicationMode kLEADER, MPI worldSize is expected to be equal to "
            f"{product} when participantIds are not specified"
        )
    if len(gpus) < tp * pp:
        raise EngineRefused(
            f"Assertion failed: Number of GPUs per node {len(gpus)} must be at least as large as TP ({tp}) * PP ({pp})"
        )


def word_lists(tensor: NDArray[Any] | None) -> list[list[int]]:
    """[[flat ids], [end offsets]] as id lists; an offset of -1 is padding."""
    if tensor is None:
        return []
    flat, ends = np.asarray(tensor).reshape(2, -1)
    words, begin = [], 0
    for end in ends:
        if end > begin:
            words.append([int(number) for number in flat[begin:end]])
            begin = int(end)
    return words


def stopped(tokens: list[int], sampling: Sampling) -> bool:
    """Whether a stop word, whose tokens are part of the answer, ended it."""
    return any(tokens[-len(word) :] == word for word in sampling.stop_words)


class TritonPythonModel:
    """One instance of the model, as Triton's Python backend wants it."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the engine, or refuse; ranks other than 0 never return while rank 0 lives."""
        self.model: dict[str, Any] = json.loads(args["model_config"])
        self.log = pb_utils.Logger
        self.log.log_info(
            f"[stand-in] tensorrtllm backend for TensorRT-LLM {__version__}: numpy on the CPU, no TensorRT"
        )
        self.decoupled = bool(pb_utils.using_decoupled_model_transaction_policy(self.model))
        self.excludes_input = (self._parameter("exclude_input_in_output") or "").lower() in ("true", "1")
        self.outputs = [
            (output["name"], NUMPY_TYPES.get(output["data_type"], np.float32), output["dims"])
            for output in self.model["output"]
        ]
        try:
            self.decoder = self._load()
        except EngineRefused as refused:
            for line in refused.lines:
                self.log.log_error(f"[TensorRT-LLM][ERROR] {line}")
            raise pb_utils.TritonModelException(
                f"unexpected error when creating modelInstanceState: [TensorRT-LLM][ERROR] {refused}"
            ) from None
        self.batch = Batch(self.most, token_delay)
        self.begun = 0
        labels = {"model": args["model_name"], "version": args["model_version"]}
        self.metrics = Metrics(pb_utils, labels, self.batch, self.decoder.max_seq_len)

    def _parameter(self, name: str) -> str | None:
        value = self.model["parameters"].get(name, {}).get("string_value", "")
        return None if not value or (value.startswith("${") and value.endswith("}")) else str(value)

    def _load(self) -> Decoder:
        kind = self._parameter("gpt_model_type")
        if kind not in BATCHING:
            raise EngineRefused(
                "Invalid gpt_model_type. Must be v1/inflight_batching/inflight_fused_batching."
            )
        place = self._parameter("gpt_model_path")
        if place is None:
            self.log.log_warn("[TensorRT-LLM][WARNING] gpt_model_path is not specified, will be left empty")
            raise EngineRefused("Both encoder and decoder model paths are empty")
        config = load_config(Path(place))
        self.log.log_info(
            f"[TensorRT-LLM][INFO] Engine version {config.get('version')} found in the config file"
        )
        try:
            gpus = visible_gpus()
        except NoGpu as error:
            raise EngineRefused(f"CUDA runtime error in cudaGetDeviceCount: {error}") from None
        wanted = self._parameter("gpu_device_ids")
        if wanted:
            numbers = [int(number) for number in wanted.split(";")[0].split(",")]
            if max(numbers) >= len(gpus):
                raise EngineRefused(
                    f"CUDA runtime error in cudaSetDevice({max(numbers)}): invalid device ordinal"
                )
            gpus = [gpus[number] for number in numbers]
        check_world(config["pretrained_config"]["mapping"], gpus)
        rank = int(os.environ.get("OMPI_COMM_WORLD_RANK", "0"))
        if rank:
            self._stay_in_load(rank)
        decoder = load_engine(Path(place), gpus)
        built = config["build_config"]
        self.most = int(built["max_batch_size"])
        needed = sum(file.stat().st_size for file in Path(place).glob("rank0.engine"))
        # what the runtime keeps for the largest batch it was built for
        needed += (
            built["max_batch_size"] * decoder.max_seq_len * config["pretrained_config"]["hidden_size"] * 4
        )
        free = free_bytes()
        if free is not None and free < needed:
            raise EngineRefused(
                "CUDA runtime error in ::cudaMallocAsync(ptr, n, mMemPool->getPool(), mCudaStream->get()): out of memory"
            )
        for warning in decoder.warnings:
            self.log.log_warn(f"[TensorRT-LLM][WARNING] {warning}")
        self.log.log_info(
            f"[stand-in] engine {place}: tp {decoder.network.tp}, pp {decoder.network.pp},"
            f" vocabulary {decoder.network.vocab}, max_seq_len {decoder.max_seq_len}, decoupled {self.decoupled}"
        )
        return decoder

    def _stay_in_load(self, rank: int) -> None:
        """Ranks other than 0 serve rank 0 from inside the load and open no port. Rank 0 computes for all here."""
        self.log.log_info(f"[stand-in] rank {rank} waits in the load of the model for rank 0")
        parent = os.getppid()
        while os.getppid() == parent:  # the server killed: leave no orphan behind
            time.sleep(0.2)
        os._exit(0)

    @staticmethod
    def _given(request: Any) -> dict[str, NDArray[Any]]:
        """
        The inputs by name, copied.

        Taken in Triton's own thread: several that read at the same time end now and then with NumPy's "Cannot create a circular
        NumPy array 'base' dependency".
        """
        found = {}
        for name in INPUTS:
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            if tensor is not None and tensor.as_numpy().size:
                found[name] = np.array(tensor.as_numpy())
        return found

    def _response(
        self,
        tokens: list[int],
        log_probabilities: list[float],
        cumulative: float,
        context_logits: NDArray[Any] | None = None,
        generation_logits: list[NDArray[Any]] | None = None,
    ) -> Any:
        """All outputs that the model's configuration names; those the decoder knows nothing of are zeros."""
        known: dict[str, NDArray[Any]] = {
            "output_ids": np.array([[tokens]]),
            "sequence_length": np.array([[len(tokens)]]),
            "cum_log_probs": np.array([[cumulative]]),
            "output_log_probs": np.array([[log_probabilities or [0.0]]]),
            "context_logits": np.zeros((1, 1, 1)) if context_logits is None else context_logits[None],
            "generation_logits": np.array(generation_logits)[None, None]
            if generation_logits
            else np.zeros((1, 1, 1, 1)),
        }
        tensors = []
        for name, kind, dims in self.outputs:
            value = known.get(name)
            if value is None:
                value = np.zeros([1, *(max(int(size), 1) for size in dims)])
            tensors.append(pb_utils.Tensor(name, np.ascontiguousarray(value.astype(kind))))
        return pb_utils.InferenceResponse(tensors)

    def _answers(
        self, given: dict[str, NDArray[Any]], cancelled: Callable[[], bool]
    ) -> Iterator[tuple[Any, bool]]:
        """(response or None, whether it is the last), once for each token; ends without a last one when cancelled."""

        def value(name: str, default: Any) -> Any:
            return given[name].reshape(-1)[0].item() if name in given else default

        ids = given.get("input_ids")
        if ids is None:
            raise ValueError("input_ids is empty")
        if ids.ndim > 1 and ids.shape[0] > 1:
            raise ValueError(f"{ids.shape[0]} prompts in one request: this stand-in takes one")
        prompt = [int(number) for number in ids.reshape(-1)]
        prompt = prompt[: int(value("input_lengths", len(prompt)))]
        self.begun += 1
        if (every := wrong_every()) and self.begun % every == 0:
            prompt.reverse()
        if int(value("beam_width", 1)) > 1:
            raise ValueError("beam_width: this stand-in searches no beams, expected 1")
        streaming = bool(value("streaming", False))
        if streaming and not self.decoupled:
            raise ValueError("Streaming is only supported in decoupled mode.")
        sampling = Sampling(
            temperature=float(value("temperature", 1.0)),
            top_k=int(value("runtime_top_k", 1)),
            top_p=float(value("runtime_top_p", 0.0)),
            seed=int(value("random_seed", value("seed", 0))),
            end_id=int(value("end_id", -1)),
            bad_words=word_lists(given.get("bad_words_list")),
            stop_words=word_lists(given.get("stop_words_list")),
        )
        context: list[NDArray[Any]] | None = [] if value("return_context_logits", False) else None
        keep_logits = bool(value("return_generation_logits", False))
        tokens, chances, logits = list[int](), list[float](), list[NDArray[Any]]()
        limit = int(value("request_output_len", 0))
        held = None
        for step in self.decoder.generate(prompt, limit, sampling, context):
            if cancelled():
                return
            if held is not None:  # one behind, so that the last token goes out with the final flag
                yield held, False
            tokens.append(step.token)
            chances.append(step.log_probability)
            if keep_logits:
                logits.append(step.logits)
            if not streaming:
                yield None, False
            else:
                # new tokens, and the log-probabilities of all so far
                held = self._response([step.token], chances, sum(chances))
        if streaming:
            if held is not None and (len(tokens) == limit or stopped(tokens, sampling)):
                yield held, True
                return
            if held is not None:
                yield held, False
            # an answer that the end token ended has a last part without a token
            yield self._response([], chances, sum(chances)), True
            return
        # of a request, from 0.16 on; otherwise of the model
        excludes = bool(value("exclude_input_in_output", self.excludes_input))
        whole = tokens if excludes else prompt + tokens
        yield self._response(whole, chances, sum(chances), context[0] if context else None, logits), True

    def execute(self, requests: list[Any]) -> list[Any] | None:
        """Answer the requests: at once when decoupled, and together when not."""
        self.metrics.tell()
        if self.decoupled:
            for request in requests:
                sink = Sender(pb_utils, request)
                self.batch.add(self._answers(self._given(request), sink.cancelled), sink)
            return None
        kept = [Whole(pb_utils, request) for request in requests]
        for whole in kept:
            self.batch.add(self._answers(self._given(whole.request), whole.cancelled), whole)
        return [whole.wait() for whole in kept]

    def finalize(self) -> None:
        """Let requests in flight finish."""
        self.batch.wait(30)
