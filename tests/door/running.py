"""A door that runs, over a data root of a test and a Triton of a test: as a process of its own, as in its container."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.door.fake_triton import WORDS
from tests.lab.standins.chroot import free_port

IMAGE = Path(__file__).resolve().parents[2] / "files" / "image"
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'robot' %}{{ raise_exception('no robots') }}{% endif %}"
    "[{{ message.role }}] {{ message.content }}\n{% endfor %}{% if add_generation_prompt %}<|turn|>{% endif %}"
)
LONGEST, LONGEST_PROMPT = 4096, 400


def data_root(root: Path, template: str | None = TEMPLATE, model: str = "tiny", **config: Any) -> Path:
    """The directory of a host with one release: `current` leads to it."""
    for name in ("releases/r1", "weights/w1", "engines/e1", "usage"):
        (root / name).mkdir(parents=True, exist_ok=True)
    document = {
        "release": "r1",
        "model": model,
        "artifacts": {"weights": {"key": "w1"}, "engine": {"key": "e1"}},
    }
    (root / "releases/r1/release.json").write_text(json.dumps(document))
    built = {"build_config": {"max_seq_len": LONGEST, "max_input_len": LONGEST_PROMPT}}
    (root / "engines/e1/config.json").write_text(json.dumps(built))
    weights = root / "weights/w1"
    WORDS.save(str(weights / "tokenizer.json"))
    settings: dict[str, Any] = {"bos_token": {"content": "<s>"}, "eos_token": "</s>"}
    if template is not None:
        settings["chat_template"] = template
    (weights / "tokenizer_config.json").write_text(json.dumps(settings))
    (weights / "config.json").write_text(json.dumps({"max_position_embeddings": 4096, **config}))
    (weights / "generation_config.json").write_text(json.dumps({"eos_token_id": [257, 258]}))
    if not (root / "current").is_symlink():
        (root / "current").symlink_to("releases/r1")
    return root


@dataclass
class Running:
    """A door's process. `url`: where OpenAI's clients reach it"""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def stop(self, wait_s: float = 15) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(wait_s)

    def memory_mib(self) -> float:
        """Its resident memory."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(each for each in text.splitlines() if each.startswith("VmRSS"))
        return int(line.split()[1]) / 1024


def start(root: Path, *ports: int, drain_s: int = 5, **service: Any) -> Running:
    """
    Start a door over a data root, and wait until it answers.

    + ports: of the servers' gRPC: of the one for clients, and of the one beside it
    """
    places = [
        {"link": str(root / link), "address": f"127.0.0.1:{port}"}
        for link, port in zip(("current", "next"), ports, strict=False)
    ]
    told = {
        "listen": free_port(),
        "data_root": str(root),
        "usage": str(root / "usage"),
        "drain_s": drain_s,
        "services": [{"current": places[0], "next": places[1] if len(places) > 1 else None, **service}],
    }
    log = root / "door.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "door"],
            cwd=IMAGE,
            env={**os.environ, "DOOR": json.dumps(told), "PYTHONUNBUFFERED": "1"},
            stdout=out,
            stderr=out,
        )
    made = Running(process, int(told["listen"]), log)  # type: ignore[call-overload]
    end = time.monotonic() + 20
    while time.monotonic() < end and process.poll() is None:
        try:
            made.get("/health/live")
            return made
        except OSError:
            time.sleep(0.05)
    process.kill()
    raise AssertionError(log.read_text())
