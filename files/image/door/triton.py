"""Triton over gRPC: what a model takes, and the parts of an answer as they come.

A request is a stream of its own: one that is cancelled ends its own work alone, and an error closes no other. Two kinds of model
are known: the engine's backend, which takes and gives tokens, and the model of the LLM API, which takes and gives text. Tensors and
their meaning: triton-inference-server/tensorrtllm_backend, inflight_batcher_llm at v0.12.0 to v0.19.0, and NVIDIA/TensorRT-LLM,
triton_backend/all_models, later.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from .errors import Refused, unsupported

MODEL = "tensorrt_llm"
OPTIONS = (
    # a channel of its own, and not the connection of an earlier one to the same address
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
)
# After this time new requests take a new connection: behind a proxy an old one leads to a server that is taken out of service
FRESH_S = 1.0
# Real codes instead of a message inside an answer: inference_protocols.md of triton-inference-server/server
METADATA = (("triton_grpc_error", "true"),)
QUEUE_FULL = ("Exceeds maximum queue size", "Maximum queue size of")
TOO_LONG = ("exceeds maximum input length", "max_seq_len", "max_num_tokens")


class Channels:
    """Connections to one server. A connection is closed when its last request has ended."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel: grpc.aio.Channel | None = None
        self.stubs: Any = None
        self.born = 0.0
        self.users: dict[grpc.aio.Channel, int] = {}
        self.closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def stub(self) -> AsyncIterator[Any]:
        """Triton's interface over a connection that is at most FRESH_S old."""
        now = asyncio.get_running_loop().time()
        if self.channel is None or now - self.born > FRESH_S:
            self._retire()
            self.channel, self.born = grpc.aio.insecure_channel(self.address, options=OPTIONS), now
            # once for a connection: it makes a method of each of the interface's
            self.stubs = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)
            self.users[self.channel] = 0
        channel, stubs = self.channel, self.stubs
        self.users[channel] += 1
        try:
            yield stubs
        finally:
            self.users[channel] -= 1
            if not self.users[channel] and channel is not self.channel:
                self._close(channel)

    def _retire(self) -> None:
        old, self.channel = self.channel, None
        if old is not None and not self.users[old]:
            self._close(old)

    def retire_idle(self) -> None:
        """Close a connection that nobody uses: a server that is drained waits for none of ours."""
        if self.channel is not None and not self.users[self.channel]:
            self._retire()

    def _close(self, channel: grpc.aio.Channel) -> None:
        self.users.pop(channel, None)
        task = asyncio.get_running_loop().create_task(channel.close())
        self.closing.add(task)
        task.add_done_callback(self.closing.discard)


@dataclass(frozen=True)
class Model:
    """
    What Triton says of the model that answers.

    + inputs: name -> data type, such as INT32
    + outputs: their names
    + batched: tensors have a dimension for the batch in front
    + streams: it can send an answer in parts
    + without_input: its answers do not begin with the prompt, whether or not a request asks for that
    """

    inputs: dict[str, str]
    outputs: frozenset[str]
    batched: bool
    streams: bool
    without_input: bool

    @property
    def of_tokens(self) -> bool:
        """Whether it takes tokens, and not text."""
        return "input_ids" in self.inputs


async def model(channels: Channels, name: str = MODEL) -> Model:
    """What Triton says of a model. Raises Refused where no server answers, or it has no such model."""
    with told():
        async with channels.stub() as stub:
            found = (await stub.ModelConfig(pb.ModelConfigRequest(name=name), timeout=5)).config
    excludes = found.parameters["exclude_input_in_output"].string_value if found.parameters else ""
    return Model(
        inputs={each.name: _type(each.data_type) for each in found.input},
        outputs=frozenset(each.name for each in found.output),
        batched=found.max_batch_size > 0,
        streams=found.model_transaction_policy.decoupled,
        without_input=excludes.lower() in ("true", "1"),
    )


def _type(number: int) -> str:
    """TYPE_INT32 of a configuration is INT32 in a request, and TYPE_STRING is BYTES."""
    from tritonclient.grpc import model_config_pb2

    name = str(model_config_pb2.DataType.Name(number)).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name


@dataclass(frozen=True)
class Wish:
    """
    One answer that is wanted.

    + prompt, ids: the same, as text and as tokens
    + end: the token that ends an answer; None: none does
    + ends: all of them
    """

    prompt: str
    ids: Sequence[int]
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int
    stop: Sequence[str] = ()
    end: int | None = None
    ends: Sequence[int] = ()
    pad: int = 0
    in_parts: bool = False
    log_probabilities: bool = False
    further: dict[str, float] = field(default_factory=dict)  # penalties and the like, by our names


@dataclass(frozen=True)
class Part:
    """
    What one response of Triton adds.

    + ids, log_probabilities: of a model of tokens
    + text: of a model of text: all of it so far
    + reason: why it ended, in Triton's words; empty where it does not say
    """

    ids: Sequence[int] = ()
    log_probabilities: Sequence[float] = ()
    text: str = ""
    reason: str = ""


# our name of a parameter -> the inputs that take it, of which a version has one
OF_TOKENS = {
    "frequency_penalty": ("frequency_penalty",),
    "presence_penalty": ("presence_penalty",),
    "repetition_penalty": ("repetition_penalty",),
    "min_tokens": ("min_tokens", "min_length"),
}
OF_TEXT = {
    "frequency_penalty": ("sampling_param_frequency_penalty",),
    "presence_penalty": ("sampling_param_presence_penalty",),
}


def taken(known: Model, name: str) -> str | None:
    """The model's input for one of our parameters; None where it has none."""
    names = (OF_TOKENS if known.of_tokens else OF_TEXT).get(name, ())
    return next((each for each in names if each in known.inputs), None)


_FORMATS = {"INT32": "<i", "INT64": "<q", "UINT64": "<Q", "FP32": "<f", "BOOL": "<?"}


class _Request:
    """A ModelInferRequest that is being put together; inputs that the model does not have are left out."""

    def __init__(self, known: Model, name: str, outputs: Sequence[str]) -> None:
        self.known = known
        self.made = pb.ModelInferRequest(model_name=name)
        self.made.parameters["triton_enable_empty_final_response"].bool_param = True
        for each in outputs:
            if each in known.outputs:
                self.made.outputs.add(name=each)

    def scalar(self, name: str, value: float) -> None:
        kind = self.known.inputs.get(name)
        if kind is not None:
            number = value if kind == "FP32" else int(value)
            self._add(name, kind, [1], struct.pack(_FORMATS[kind], number))

    def numbers(self, name: str, shape: Sequence[int], values: Sequence[int]) -> None:
        if name in self.known.inputs:
            self._add(name, "INT32", shape, np.asarray(values, "<i4").tobytes())

    def texts(self, name: str, values: Sequence[str]) -> None:
        if name in self.known.inputs:
            encoded = [each.encode() for each in values]
            content = b"".join(struct.pack("<I", len(each)) + each for each in encoded)
            self._add(name, "BYTES", [len(encoded)], content)

    def _add(self, name: str, kind: str, shape: Sequence[int], content: bytes) -> None:
        batch = [1] if self.known.batched else []
        self.made.inputs.add(name=name, datatype=kind, shape=[*batch, *shape])
        self.made.raw_input_contents.append(content)


def request(known: Model, wish: Wish) -> pb.ModelInferRequest:
    """What Triton is sent."""
    made = _tokens(known, wish) if known.of_tokens else _text(known, wish)
    for name, value in wish.further.items():
        found = taken(known, name)
        if found is None:
            raise unsupported(name, "the model's server does not take it")
        made.scalar(found, value)
    return made.made


def _tokens(known: Model, wish: Wish) -> _Request:
    # sequence_length has to be among the outputs: the backend refuses a request without it
    wanted = ["output_ids", "sequence_length", *(["output_log_probs"] if wish.log_probabilities else [])]
    made = _Request(known, MODEL, wanted)
    made.numbers("input_ids", [len(wish.ids)], wish.ids)
    made.scalar("input_lengths", len(wish.ids))
    made.scalar("request_output_len", wish.max_tokens)
    made.scalar("end_id", -1 if wish.end is None else wish.end)
    made.scalar("pad_id", wish.pad)
    made.scalar("streaming", wish.in_parts and known.streams)
    made.scalar("exclude_input_in_output", True)
    made.scalar("random_seed", wish.seed)
    made.scalar("seed", wish.seed)  # the same, from TensorRT-LLM 0.20 on
    if wish.log_probabilities:
        made.scalar("return_log_probs", True)
    if wish.temperature:
        made.scalar("temperature", wish.temperature)
        made.scalar("runtime_top_p", wish.top_p)
    made.scalar("runtime_top_k", wish.top_k if wish.temperature else 1)
    others = [each for each in wish.ends if each != wish.end]
    if others:
        # [tokens of all words], [where each word ends]
        made.numbers("stop_words_list", [2, len(others)], [*others, *range(1, len(others) + 1)])
    return made


def _text(known: Model, wish: Wish) -> _Request:
    made = _Request(known, MODEL, ["text_output", "finish_reason"])
    made.texts("text_input", [wish.prompt])
    made.scalar("streaming", wish.in_parts and known.streams)
    made.scalar("sampling_param_max_tokens", wish.max_tokens)
    made.scalar("sampling_param_exclude_input_from_output", True)
    made.scalar("sampling_param_seed", wish.seed)
    if wish.temperature:
        made.scalar("sampling_param_temperature", wish.temperature)
        made.scalar("sampling_param_top_p", wish.top_p)
    if wish.top_k or not wish.temperature:
        made.scalar("sampling_param_top_k", wish.top_k if wish.temperature else 1)
    if wish.stop:
        made.texts("sampling_param_stop", wish.stop)
    made.scalar("return_finish_reason", True)
    return made


async def parts(channels: Channels, known: Model, wish: Wish) -> AsyncGenerator[Part, None]:
    """
    The parts of an answer, one where the model does not stream.

    Who stops to read cancels the request, and Triton ends the work. Raises Refused.
    """
    sent = request(known, wish)
    given = 0  # tokens so far, the prompt's among them where the model repeats it
    skip = 0
    if known.of_tokens and not known.without_input and "exclude_input_in_output" not in known.inputs:
        skip = 0 if wish.in_parts and known.streams else len(wish.ids)
    with told():
        async with channels.stub() as stub:
            call = stub.ModelStreamInfer(_once(sent), metadata=METADATA)
            final = False
            try:
                async for response in call:
                    if response.error_message:
                        raise refusal(grpc.StatusCode.INTERNAL, response.error_message)
                    answer = response.infer_response
                    if answer.outputs:
                        part, given = _part(answer, known, skip, given)
                        yield part
                    final = final or answer.parameters["triton_final_response"].bool_param
            finally:
                # one that is over is left to end: a cancellation at its end is one more thing that Triton has to undo
                if not call.done():
                    call.cancel()
    if not final:
        raise Refused(502, "the server ended the answer before its last part", code="upstream_error")


async def _once(sent: pb.ModelInferRequest) -> AsyncIterator[pb.ModelInferRequest]:
    yield sent


def _part(answer: pb.ModelInferResponse, known: Model, skip: int, given: int) -> tuple[Part, int]:
    found = {each.name: raw for each, raw in zip(answer.outputs, answer.raw_output_contents, strict=False)}
    if not known.of_tokens:
        return Part(text=_strings(found.get("text_output")), reason=_strings(found.get("finish_reason"))), 0
    length = int(np.frombuffer(found["sequence_length"], "<i4")[0]) if found.get("sequence_length") else 0
    # filled up with -1 or pad_id after its length
    ids = np.frombuffer(found.get("output_ids", b""), "<i4")[:length][skip:].tolist()
    # of all tokens so far, in each part
    chances = np.frombuffer(found.get("output_log_probs", b""), "<f4")[: given + len(ids)][-len(ids) :]
    return Part(ids=ids, log_probabilities=chances.tolist() if ids else ()), given + len(ids)


def _strings(content: bytes | None) -> str:
    """The first string of a BYTES tensor."""
    if not content:
        return ""
    (length,) = struct.unpack_from("<I", content)
    return content[4 : 4 + length].decode("utf-8", "replace")


async def embedding(channels: Channels, name: str, given: str, output: str, text: str) -> list[float]:
    """The vector of a text. + given, output: names of the model's tensors. Raises Refused."""
    made = pb.ModelInferRequest(model_name=name)
    made.inputs.add(name=given, datatype="BYTES", shape=[1, 1])
    content = text.encode()
    made.raw_input_contents.append(struct.pack("<I", len(content)) + content)
    # not this output alone: an ensemble then leaves out steps whose outputs others of its steps need, and fails
    with told():
        async with channels.stub() as stub:
            answer = await stub.ModelInfer(made, timeout=60)
    for found, numbers in zip(answer.outputs, answer.raw_output_contents, strict=False):
        if found.name == output:
            return list(map(float, np.frombuffer(numbers, "<f4")))
    raise Refused(502, f"the server gave no {output}", None, "upstream_error")


async def ready(channels: Channels, name: str = MODEL) -> bool:
    """Whether the model takes requests."""
    try:
        async with channels.stub() as stub:
            return bool((await stub.ModelReady(pb.ModelReadyRequest(name=name), timeout=3)).ready)
    except grpc.aio.AioRpcError:
        return False


@contextmanager
def told() -> Iterator[None]:
    """What gRPC says becomes what a client is told."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise refusal(error.code(), error.details() or "") from None


def refusal(code: grpc.StatusCode, said: str) -> Refused:
    """What a client is told of an error of Triton's."""
    text = " ".join(said.split())[:500]
    if any(each in said for each in QUEUE_FULL):
        return Refused(429, "the server has as many requests as it takes; try again", None, "queue_full", 1)
    if any(each in said for each in TOO_LONG):
        return Refused(400, text, None, "context_length_exceeded")
    if code is grpc.StatusCode.UNAVAILABLE:
        return Refused(503, "the model is not ready; try again", None, "not_ready", 5)
    if code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT):
        return Changed(502, f"the server refused the request: {text}", None, "upstream_error")
    return Refused(502, f"the server gave no answer: {text}", None, "upstream_error")


class Changed(Refused):
    """The server does not know the model or one of its inputs: it may be that of another release."""
