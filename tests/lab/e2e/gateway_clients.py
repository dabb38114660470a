"""
What clients of a gateway may do, by tritonclient over gRPC and HTTP: `python -m tests.lab.e2e.gateway_clients CHECK PLACE ROOTS KEY`.

A process of its own, because a library that aborts ends its process.

+ PLACE: host:port; ROOTS: a file of certificates; KEY: an API key that the gateway knows
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

# longer than nginx waits for the next bytes of a normal request
SILENCE_SECONDS = 65


def refusal(call: Callable[[], object]) -> str:
    """The status with which a call is refused; fails if it is answered."""
    try:
        answer = call()
    except InferenceServerException as error:
        return str(error.status())
    raise AssertionError(f"answered {answer}")


def get_in_with_a_key_and_to_the_models_alone(place: str, roots: str, key: str) -> None:
    with_key = {"authorization": f"Bearer {key}"}
    with tritonclient.grpc.InferenceServerClient(place, ssl=True, root_certificates=roots) as client:
        assert client.is_model_ready("ensemble", headers=with_key)
        assert answered_over_grpc(client, with_key)
        for headers in ({}, {"authorization": "Bearer x"}):
            said = refusal(lambda headers=headers: client.is_model_ready("ensemble", headers=headers))  # type: ignore[misc]
            assert "UNAUTHENTICATED" in said, said
        closed: dict[str, Callable[[], object]] = {
            "index": lambda: client.get_model_repository_index(headers=with_key),
            "load": lambda: client.load_model("no-such-model", headers=with_key),
            "log": lambda: client.get_log_settings(headers=with_key),
            "configuration": lambda: client.get_model_config("ensemble", headers=with_key),
            "shared memory": lambda: client.get_system_shared_memory_status(headers=with_key),
        }
        for name, call in closed.items():
            said = refusal(call)
            assert "UNIMPLEMENTED" in said, f"{name}: {said}"
    options = {"ca_certs": roots}
    with tritonclient.http.InferenceServerClient(place, ssl=True, ssl_options=options) as over_http:
        assert over_http.is_model_ready("ensemble", headers=with_key)
        assert not over_http.is_model_ready("ensemble")


def are_silent_for_longer_than_a_slow_client(place: str, roots: str, key: str) -> None:
    with tritonclient.grpc.InferenceServerClient(place, ssl=True, root_certificates=roots) as client:
        assert answered_over_grpc(client, {"authorization": f"Bearer {key}"}, silence_s=SILENCE_SECONDS)


def answered_over_grpc(client: Any, headers: dict[str, str], silence_s: float = 0) -> bool:
    """Whether a streaming request, as a client of a language model sends it, gets its answer; also after a silence."""
    import numpy as np

    done, texts = threading.Event(), []

    def take(result: Any, error: Any) -> None:
        texts.append(str(error) if error else result.as_numpy("text_output"))
        done.set()

    inputs = []
    for name, value, kind, triton_type in (
        ("text_input", b"What is", np.object_, "BYTES"),
        ("max_tokens", 1, np.int32, "INT32"),
        ("bad_words", b"", np.object_, "BYTES"),
        ("stop_words", b"", np.object_, "BYTES"),
    ):
        given = tritonclient.grpc.InferInput(name, [1, 1], triton_type)
        given.set_data_from_numpy(np.full([1, 1], value, dtype=kind))
        inputs.append(given)
    client.start_stream(callback=take, headers=headers)
    if silence_s:
        client.async_stream_infer("ensemble", inputs)
        assert done.wait(60)
        time.sleep(silence_s)
        done.clear()
        texts.clear()
    client.async_stream_infer("ensemble", inputs)
    assert done.wait(60)
    client.stop_stream()
    return not isinstance(texts[0], str)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
