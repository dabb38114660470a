"""A real tritonserver out of the image's own layers, with the mirror's model repository, answers in English."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.standins import base_image, images
from tests.lab.standins.tree import installed_files

pytestmark = pytest.mark.lab
HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("LAB_CACHE", "/var/cache/tritonhost-lab"))
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

# Mounts and processes of the root file system end with this shell: nothing is left when it is killed.
ENTER = """
root=$1; work=$2; shift 2
mount --make-rprivate / && mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" &&
mount -t tmpfs -o mode=1777,size=256m tmpfs "$root/dev/shm" && mount --bind "$work" "$root/w" || exit 97
exec env -i $IMAGE_ENV chroot "$root" "$@"
"""


class Container:
    """The serving image's file system, unpacked, without a container engine."""

    def __init__(self, folder: Path) -> None:
        self.root, self.work = folder / "root", folder / "work"
        for path in (self.root, self.work):
            path.mkdir()
        for layer in base_image.base_layers(CACHE):
            with tarfile.open(layer.path) as archive:
                archive.extractall(self.root, filter="fully_trusted")
        for name, content in installed_files("v0.13.0").items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content[0] if isinstance(content, tuple) else content)
            path.chmod(content[1] if isinstance(content, tuple) else 0o644)
        for name in ("w", "etc/lab", "proc", "dev/shm"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "bin" / "nvidia-smi", self.root / "usr/bin/nvidia-smi")
        (self.root / "etc/lab/gpus").write_text("NVIDIA A10:1\n")

    def command(self, *words: str) -> list[str]:
        enter = [
            "unshare",
            "--mount",
            "--pid",
            "--ipc",
            "--fork",
            "--kill-child=SIGKILL",
            "sh",
            "-c",
            ENTER,
            "sh",
        ]
        return [*enter, str(self.root), str(self.work), *words]

    def run(self, *words: str) -> str:
        done = subprocess.run(
            self.command(*words), capture_output=True, text=True, env=ENVIRONMENT, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


ENVIRONMENT = {**os.environ, "IMAGE_ENV": " ".join(images.SETTINGS["Env"])}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A running tritonserver on loopback."""

    def __init__(self, container: Container, log: Path) -> None:
        self.http, self.grpc, metrics = free_port(), free_port(), free_port()
        ports = [f"--http-port={self.http}", f"--grpc-port={self.grpc}", f"--metrics-port={metrics}"]
        local = [f"--{kind}-address=127.0.0.1" for kind in ("http", "grpc", "metrics")]
        without_gpu = ["--allow-gpu-metrics=false", "--pinned-memory-pool-byte-size=0"]
        words = [
            "--model-repository=/w/repository",
            "--disable-auto-complete-config",
            *ports,
            *local,
            *without_gpu,
        ]
        self.log = log
        with log.open("wb") as out:
            command = container.command("tritonserver", *words)
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=ENVIRONMENT)

    def post(self, model: str, verb: str, body: dict[str, Any]) -> tuple[int, str]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http}/v2/models/{model}/{verb}",
            json.dumps({"bad_words": "", "stop_words": "", **body}).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def wait_ready(self) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            try:
                urllib.request.urlopen(
                    f"http://127.0.0.1:{self.http}/v2/models/ensemble/ready", timeout=2
                ).close()
                return
            except OSError:
                time.sleep(0.2)
        raise AssertionError(self.log.read_text()[-3000:])

    def stop(self) -> int:
        """Ask the server itself to stop: it is the only child of the shell that unshare became the parent of."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Container:
    from tests.lab.standins import weights

    made = Container(tmp_path_factory.mktemp("triton"))
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


QUESTION = {"text_input": "What is machine learning?", "max_tokens": 24}


def test_it_answers_streams_and_stops(server: Server) -> None:
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
    gpus = container.root / "etc/lab/gpus"
    was = gpus.read_text()
    gpus.write_text("NVIDIA A100-SXM4-80GB:1\n")
    try:
        refused = Server(container, tmp_path / "server.log")
        assert refused.process.wait(90) == 1
        said = refused.log.read_text()
        assert "expecting compute 8.0 got compute 8.6, please rebuild" in said
        assert "failed to load all models" in said
    finally:
        gpus.write_text(was)
