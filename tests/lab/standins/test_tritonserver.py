"""A real tritonserver from the image's layers answers in English, with the mirror's model repository."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.standins import base_image
from tests.lab.standins.chroot import CACHE, Container, Server
from tests.lab.standins.tree import installed_files

pytestmark = pytest.mark.lab
FILLED = {
    "triton_max_batch_size": "4",
    "decoupled_mode": "true",
    "max_queue_delay_microseconds": "0",
    "max_queue_size": "0",
    "triton_backend": "tensorrtllm",
    "engine_dir": "/w/engine",
    "batching_strategy": "inflight_fused_batching",
    "tokenizer_dir": "/w/weights",
    "preprocessing_instance_count": "1",
    "postprocessing_instance_count": "1",
    "bls_instance_count": "1",
    "exclude_input_in_output": "true",
}


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Container:
    from tests.lab.standins import weights

    layers = base_image.base_layers(CACHE)
    made = Container(tmp_path_factory.mktemp("triton"), layers, dict(installed_files("v0.13.0")))
    shutil.copytree(weights.build(CACHE), made.work / "weights")
    script = "/app/tensorrt_llm/examples/llama/convert_checkpoint.py"
    made.run("python3", script, "--model_dir", "/w/weights", "--output_dir", "/w/checkpoint")
    sizes = ["--max_batch_size", "4", "--max_seq_len", "1024", "--gemm_plugin", "auto"]
    made.run("trtllm-build", "--checkpoint_dir", "/w/checkpoint", "--output_dir", "/w/engine", *sizes)
    from tests.lab.mirror import content

    for name, entry in content.backend_tree("v0.13.0", "0" * 40).items():
        if not name.startswith("all_models/inflight_batcher_llm/") or not isinstance(entry, bytes | tuple):
            continue
        text = (entry[0] if isinstance(entry, tuple) else entry).decode()
        if name.endswith("config.pbtxt"):
            text = re.sub(r"\$\{(\w+)\}", lambda found: FILLED.get(found[1], found[0]), text)
        path = made.work / "repository" / name.removeprefix("all_models/inflight_batcher_llm/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return made


@pytest.fixture
def server(container: Container, tmp_path: Path) -> Iterator[Server]:
    made = Server(container, tmp_path / "server.log")
    try:
        made.wait_ready()
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
            made.process.wait()


QUESTION = {
    "text_input": "What is machine learning?",
    "max_tokens": 24,
    "bad_words": "",
    "stop_words": "",
}


def test_server_answers_streams_and_stops(server: Server) -> None:
    for model in ("ensemble", "tensorrt_llm_bls"):
        status, answer = server.post(model, "generate", QUESTION)
        assert status == 200, answer
        assert "artificial intelligence" in json.loads(answer)["text_output"]
    status, events = server.post("ensemble", "generate_stream", {**QUESTION, "stream": True})
    assert status == 200
    pieces = [
        json.loads(line[6:])["text_output"] for line in events.splitlines() if line.startswith("data: ")
    ]
    assert len(pieces) > 10
    assert "artificial intelligence" in "".join(pieces)
    assert "[stand-in] tensorrtllm backend" in server.log.read_text()
    assert server.stop() == 0


def test_page_has_the_metrics_of_the_backend(server: Server) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    for name, label, value in (
        ("request", 'request_type="max"', 4),
        ("request", 'request_type="waiting"', 0),
        ("kv_cache_block", 'kv_cache_block_type="max"', 4 * 16),
        ("kv_cache_block", 'kv_cache_block_type="used"', 0),
    ):
        labels = re.findall(rf"^nv_trt_llm_{name}_metrics{{(.*)}} {value}$", page, re.MULTILINE)
        found = [each for each in labels if label in each]
        assert len(found) == 1 and 'model="tensorrt_llm",' in f"{found[0]},", page


def test_a_cancelled_request_frees_the_decoder(server: Server) -> None:
    import numpy as np
    import tritonclient.grpc as triton

    client = triton.InferenceServerClient(f"127.0.0.1:{server.grpc}")
    inputs = []
    for name, value, kind in (
        ("input_ids", np.array([[10, 20, 30]], np.int32), "INT32"),
        ("input_lengths", np.array([[3]], np.int32), "INT32"),
        ("request_output_len", np.array([[900]], np.int32), "INT32"),
        ("streaming", np.array([[True]]), "BOOL"),
    ):
        tensor = triton.InferInput(name, value.shape, kind)
        tensor.set_data_from_numpy(value)
        inputs.append(tensor)
    seen: list[Any] = []
    client.start_stream(lambda result, error: seen.append(error or result))
    client.async_stream_infer("tensorrt_llm", inputs)
    end = time.monotonic() + 30
    while len(seen) < 3 and time.monotonic() < end:
        time.sleep(0.05)
    assert len(seen) >= 3
    client.stop_stream(cancel_requests=True)
    begin = time.monotonic()
    assert server.stop() == 0  # with 900 tokens to go it would take longer, or the exit timeout
    assert time.monotonic() - begin < 12


def test_an_engine_for_another_gpu_stops_the_server(container: Container, tmp_path: Path) -> None:
    container.see("NVIDIA A100-SXM4-80GB:1")
    try:
        # a server that ends because no model loads crashes at its end now and then: the real program, once in seven runs here
        for number in range(3):
            refused = Server(container, tmp_path / f"server-{number}.log")
            if refused.process.wait(90) != -signal.SIGSEGV:
                break
        assert refused.process.returncode == 1
        said = refused.log.read_text()
        assert "expecting compute 8.0 got compute 8.6, please rebuild" in said
        assert "failed to load all models" in said
    finally:
        container.see("NVIDIA A10:1")
