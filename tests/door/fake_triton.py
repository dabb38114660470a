"""A Triton over gRPC for tests of the door: it says what a prompt asks it to say, token by token, as the real backends do.

What it does as the engine's backend: new tokens in each part of a stream, the end token in none, an empty last part after it,
log-probabilities of all tokens so far, tokens of a stop word among the answer. As the model of the LLM API: the whole text so far.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
BEGIN, END, OTHER_END, TURN = 256, 257, 258, 259
SPECIAL = {"<s>": BEGIN, "</s>": END, "<|eot|>": OTHER_END, "<|turn|>": TURN}
WORKERS = 400


def tokenizer() -> Tokenizer:
    """A token for each byte, and four special ones."""
    made = Tokenizer(models.BPE(vocab={each: number for number, each in enumerate(BYTES)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(SPECIAL))
    return made


WORDS = tokenizer()


def reply(prompt: str) -> str:
    """What the model says to a prompt: what is between `say:` and the end of the line; otherwise `ok`."""
    _, found, rest = prompt.partition("say:")
    return rest.splitlines()[0] if found and rest.splitlines() else "ok"


@dataclass
class Seen:
    """One request: its inputs by name, and whether the client went away before its end."""

    inputs: dict[str, Any]
    cancelled: bool = False
    done: bool = False
    parts: int = 0


@dataclass
class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """
    + kind: tokens or text
    + decoupled: it answers in parts
    + seconds: between two tokens
    + end: which token ends an answer; None: none, it says the same again and again
    + refused: what it answers with, instead of an answer
    + after: parts before that
    """

    kind: str = "tokens"
    decoupled: bool = True
    seconds: float = 0.0
    end: int | None = END
    refused: str = ""
    code: grpc.StatusCode | None = None
    after: int = 0
    seed_name: str = "seed"
    batch: int = 8
    seen: list[Seen] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    port: int = 0
    running: int = 0
    most: int = 0
    together: int = 0

    def start(self) -> FakeTriton:
        self.server = grpc.server(futures.ThreadPoolExecutor(WORKERS))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        return self

    def stop(self) -> None:
        self.server.stop(0).wait()

    # --- Triton's interface

    def ModelReady(self, request: Any, context: Any) -> Any:
        return pb.ModelReadyResponse(ready=True)

    def ModelConfig(self, request: Any, context: Any) -> Any:
        found = pb.ModelConfigResponse()
        config = found.config
        config.name = request.name
        config.max_batch_size = self.batch if self.kind == "tokens" else 0
        config.model_transaction_policy.decoupled = self.decoupled
        for name, kind in _INPUTS[self.kind].items():
            config.input.add(name=name if name != "seed" else self.seed_name, data_type=kind)
        for name in _OUTPUTS[self.kind]:
            config.output.add(name=name)
        return found

    def ModelInfer(self, request: Any, context: Any) -> Any:
        (length,) = struct.unpack_from("<I", request.raw_input_contents[0])
        if request.outputs:
            # as an ensemble does that is asked for one of its outputs
            context.abort(
                grpc.StatusCode.INTERNAL,
                "in ensemble 'clip_search', unexpected deadlock, at least one output is not set while no more ensemble steps can be made",
            )
        answer = pb.ModelInferResponse(model_name=request.model_name)
        for name, numbers in (("image_embedding", [0, 0]), ("text_embedding", [length, 0.5, -1])):
            answer.outputs.add(name=name, datatype="FP32", shape=[1, len(numbers)])
            answer.raw_output_contents.append(np.array(numbers, "<f4").tobytes())
        return answer

    def ModelStreamInfer(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for request in requests:
            seen = Seen(_inputs(request))
            with self.lock:
                self.seen.append(seen)
                self.running += 1
                self.most = max(self.most, self.running)
            # a generator of a call that was cancelled is only forgotten: the call itself says when it ended
            context.add_callback(lambda seen=seen: self._ended(seen))
            yield from self._answer(request, seen, context)
            seen.done = True

    def _ended(self, seen: Seen) -> None:
        with self.lock:
            seen.cancelled = not seen.done
            self.running -= 1

    def _answer(self, request: Any, seen: Seen, context: Any) -> Iterator[Any]:
        unknown = seen.inputs.keys() - {n if n != "seed" else self.seed_name for n in _INPUTS[self.kind]}
        if unknown:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"unexpected inference input '{min(unknown)}' for model"
            )
        made = self._of_tokens(request, seen) if self.kind == "tokens" else self._of_text(request, seen)
        for number, answer in enumerate(made):
            if self.refused and number == self.after:
                if self.code is not None:
                    context.abort(self.code, self.refused)
                yield pb.ModelStreamInferResponse(error_message=self.refused)
                return
            if not context.is_active():
                return
            # the rest of an answer waits until as many requests as `together` were here at once
            while number and self.most < self.together and context.is_active():
                time.sleep(0.05)
            seen.parts += 1
            yield pb.ModelStreamInferResponse(infer_response=answer)
            time.sleep(self.seconds)

    def _of_tokens(self, request: Any, seen: Seen) -> Iterator[Any]:
        given = seen.inputs
        prompt = WORDS.decode(given["input_ids"].tolist(), skip_special_tokens=False)
        wanted = list(WORDS.encode(reply(prompt), add_special_tokens=False).ids)
        limit, ends = int(given["request_output_len"][0]), int(given["end_id"][0])
        if self.end is None:
            wanted = (wanted * (limit // max(len(wanted), 1) + 1))[:limit]
        else:
            wanted.append(self.end)
        stops = given.get("stop_words_list")
        stop = set(stops[: len(stops) // 2].tolist()) if stops is not None else set()
        out: list[int] = []
        finished = False
        for token in wanted:
            if token == ends:
                finished = True
                break
            out.append(token)
            last = len(out) == limit or token in stop
            if self._streams(given) and not last:
                yield self._tokens(request, out, 1, final=False)
            if last:
                break
        if self._streams(given):
            # after the end token the last part has none
            yield self._tokens(request, out, 0 if finished else 1, final=True)
        else:
            yield self._tokens(request, out, len(out), final=True)

    def _streams(self, given: dict[str, Any]) -> bool:
        return self.decoupled and bool(given.get("streaming", [False])[0])

    def _tokens(self, request: Any, out: list[int], new: int, final: bool) -> Any:
        answer = _response(request, final)
        ids = out[len(out) - new :]
        chances = [-0.25 * (number + 1) for number in range(len(out))]
        _add(answer, "output_ids", "INT32", [1, 1, len(ids)], np.array(ids, "<i4").tobytes())
        _add(answer, "sequence_length", "INT32", [1, 1], np.array([len(ids)], "<i4").tobytes())
        if any(each.name == "output_log_probs" for each in request.outputs):
            _add(answer, "output_log_probs", "FP32", [1, 1, len(chances)], np.array(chances, "<f4").tobytes())
        return answer

    def _of_text(self, request: Any, seen: Seen) -> Iterator[Any]:
        given = seen.inputs
        wanted = list(WORDS.encode(reply(given["text_input"]), add_special_tokens=False).ids)
        limit = int(given["sampling_param_max_tokens"][0])
        ids = wanted[:limit]
        reason = "length" if len(ids) == limit and limit < len(wanted) + 1 else "stop"
        for count in range(1, len(ids)) if self._streams(given) else ():
            yield self._text(request, WORDS.decode(ids[:count]), "None", final=False)
        yield self._text(request, WORDS.decode(ids), reason, final=True)

    def _text(self, request: Any, text: str, reason: str, final: bool) -> Any:
        answer = _response(request, final)
        for name, value in (("text_output", text), ("finish_reason", reason)):
            content = value.encode()
            _add(answer, name, "BYTES", [1], struct.pack("<I", len(content)) + content)
        return answer


def _response(request: Any, final: bool) -> Any:
    answer = pb.ModelInferResponse(model_name=request.model_name)
    answer.parameters["triton_final_response"].bool_param = final
    return answer


def _add(answer: Any, name: str, kind: str, shape: list[int], content: bytes) -> None:
    answer.outputs.add(name=name, datatype=kind, shape=shape)
    answer.raw_output_contents.append(content)


_NUMPY = {"INT32": "<i4", "UINT64": "<u8", "FP32": "<f4", "BOOL": "?"}


def _inputs(request: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for given, content in zip(request.inputs, request.raw_input_contents, strict=True):
        if given.datatype == "BYTES":
            texts = []
            while content:
                (length,) = struct.unpack_from("<I", content)
                texts.append(content[4 : 4 + length].decode())
                content = content[4 + length :]
            found[given.name] = texts if given.name.endswith("stop") else texts[0]
        else:
            found[given.name] = np.frombuffer(content, _NUMPY[given.datatype])
    return found


# numbers of model_config.proto: BOOL 1, UINT64 5, INT32 8, FP32 11, STRING 13
_INPUTS: dict[str, dict[str, int]] = {
    "tokens": {
        **dict.fromkeys(("input_ids", "input_lengths", "request_output_len", "end_id", "pad_id"), 8),
        **dict.fromkeys(("stop_words_list", "bad_words_list", "runtime_top_k", "min_tokens"), 8),
        **dict.fromkeys(("temperature", "runtime_top_p", "repetition_penalty"), 11),
        **dict.fromkeys(("presence_penalty", "frequency_penalty"), 11),
        **dict.fromkeys(("streaming", "return_log_probs", "exclude_input_in_output"), 1),
        "seed": 5,
    },
    "text": {
        "text_input": 13,
        "sampling_param_stop": 13,
        **dict.fromkeys(("sampling_param_max_tokens", "sampling_param_top_k"), 8),
        **dict.fromkeys(("sampling_param_temperature", "sampling_param_top_p"), 11),
        **dict.fromkeys(("sampling_param_frequency_penalty", "sampling_param_presence_penalty"), 11),
        **dict.fromkeys(("streaming", "sampling_param_exclude_input_from_output", "return_finish_reason"), 1),
        "sampling_param_seed": 5,
    },
}
_OUTPUTS = {
    "tokens": ("output_ids", "sequence_length", "cum_log_probs", "output_log_probs"),
    "text": ("text_output", "finish_reason", "stop_reason", "cumulative_logprob"),
}
