"""What the door costs: the same streams from Triton over gRPC and through the door, one after the other, on this machine.

    python bench/door.py [--rounds 5] [--seconds 8] [--json FILE] [--picture FILE]

A real tritonserver with the lab's small engine answers at a fixed pace (LAB_TOKEN_SECONDS), as a GPU does. For each number of
streams at once, direct and through the door alternate; each round gives the median time to the first token, and tokens a second.
Then 200 streams at once through the door: none lost, mixed or cut, and its memory. Needs root and the lab's packages.
Exit code 0: within the limits; 1: above one; 2: nothing was measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from files.image.door.triton import Channels, Model, Wish, model, parts  # noqa: E402
from tests.door.running import start  # noqa: E402
from tests.lab.standins import base_image  # noqa: E402
from tests.lab.standins.chroot import CACHE, Container, Server  # noqa: E402

TOKEN_SECONDS = 0.02
TOKENS = 40
AT_ONCE = (1, 8, 24)
MANY = 200
FIRST_TOKEN_MS, THROUGHPUT = (
    10.0,
    0.9,
)  # limits: more milliseconds at the median, and the share of the tokens a second
PROMPT = "What is machine learning?"


@dataclass
class Round:
    """One way for some seconds: seconds to the first token of each stream, and tokens a second of all."""

    first: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0
    wrong: int = 0

    @property
    def first_ms(self) -> float:
        return 1000 * statistics.median(self.first) if self.first else float("nan")

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


Stream = Callable[[int], Awaitable[tuple[float, int, str]]]


class Direct:
    """Streams from Triton itself, as the door asks for them."""

    def __init__(self, known: Model, channels: Channels) -> None:
        self.known, self.channels = known, channels

    async def stream(self, number: int) -> tuple[float, int, str]:
        """Seconds to the first token, tokens, and what they are."""
        wish = Wish(PROMPT, IDS, TOKENS, 0.0, 1.0, 0, number, in_parts=True)
        began, first, ids = time.monotonic(), 0.0, list[int]()
        async with aclosing(parts(self.channels, self.known, wish)) as made:
            async for part in made:
                if part.ids and not first:
                    first = time.monotonic() - began
                ids += part.ids
        return first, len(ids), str(ids)


class Through:
    """The same through the door, by a client that does no more than it must."""

    def __init__(self, port: int, name: str) -> None:
        self.port, self.name = port, name

    async def stream(self, number: int) -> tuple[float, int, str]:
        body = json.dumps(
            {
                "model": self.name,
                "prompt": IDS,
                "max_tokens": TOKENS,
                "temperature": 0,
                "seed": number,
                "stream": True,
                "stream_options": {"include_usage": True},
                "ignore_eos": True,
            }
        ).encode()
        began, first, text, tokens = time.monotonic(), 0.0, "", 0
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        try:
            async for line in reader:
                if not line.startswith(b"data: {"):
                    continue
                document = json.loads(line[6:])
                if document["choices"] and document["choices"][0]["text"]:
                    first = first or time.monotonic() - began
                    text += document["choices"][0]["text"]
                if document.get("usage"):
                    tokens = document["usage"]["completion_tokens"]
        finally:
            writer.close()
        return first, tokens, text


IDS: list[int] = []


async def load(stream: Stream, at_once: int, seconds: float) -> Round:
    """Streams one after the other, so many at once."""
    found, began = Round(), time.monotonic()

    async def client(number: int) -> None:
        while time.monotonic() - began < seconds:
            first, tokens, _ = await stream(number)
            found.first.append(first)
            found.tokens += tokens
            found.wrong += tokens != TOKENS

    await asyncio.gather(*(client(number) for number in range(at_once)))
    found.seconds = time.monotonic() - began
    return found


def served(folder: Path) -> tuple[Container, Server]:
    """A tritonserver with a small engine at a fixed pace; fills IDS."""
    from tests.lab.mirror import content
    from tests.lab.standins import small_models, weights
    from tests.lab.standins.test_tritonserver import FILLED
    from tests.lab.standins.tree import installed_files

    name = "meta-llama/Llama-3.1-8B-Instruct"
    container = Container(folder, base_image.base_layers(CACHE), dict(installed_files("v0.13.0")))
    source = small_models.build(CACHE, weights.build(CACHE) / "tokenizer.json")[name]
    subprocess.run(["cp", "-r", str(source), str(container.work / "weights")], check=True)
    script = "/app/tensorrt_llm/examples/llama/convert_checkpoint.py"
    container.run(
        "python3", script, "--model_dir", "/w/weights", "--output_dir", "/w/checkpoint", "--dtype", "float16"
    )
    sizes = ["--max_batch_size", "256", "--max_seq_len", "1024", "--gemm_plugin", "auto"]
    container.run("trtllm-build", "--checkpoint_dir", "/w/checkpoint", "--output_dir", "/w/engine", *sizes)
    tree = content.backend_tree("v0.13.0", "0" * 40)
    entry = tree["all_models/inflight_batcher_llm/tensorrt_llm/config.pbtxt"]
    assert isinstance(entry, bytes)
    text = entry.decode()
    filled = {**FILLED, "triton_max_batch_size": "256"}
    text = re.sub(r"\$\{(\w+)\}", lambda found: filled.get(found[1], found[0]), text)
    place = container.work / "repository" / "tensorrt_llm"
    for path, found in tree.items():
        if path.startswith("all_models/inflight_batcher_llm/tensorrt_llm/") and isinstance(
            found, bytes | tuple
        ):
            target = place / path.removeprefix("all_models/inflight_batcher_llm/tensorrt_llm/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(found[0] if isinstance(found, tuple) else found)
    (place / "config.pbtxt").write_text(text)
    container.environment["IMAGE_ENV"] += f" LAB_TOKEN_SECONDS={TOKEN_SECONDS}"
    server = Server(container, folder / "server.log")
    server.wait_ready("tensorrt_llm")
    return container, server


def door_root(folder: Path, container: Container) -> Path:
    """The data root of a host that serves it."""
    root = folder / "data"
    for name in ("releases/r1", "weights", "engines", "usage"):
        (root / name).mkdir(parents=True)
    subprocess.run(["cp", "-r", str(container.work / "weights"), str(root / "weights/w1")], check=True)
    subprocess.run(["cp", "-r", str(container.work / "engine"), str(root / "engines/e1")], check=True)
    artifacts = {"weights": {"key": "w1"}, "engine": {"key": "e1"}}
    document = {"release": "r1", "model": "small", "artifacts": artifacts}
    (root / "releases/r1/release.json").write_text(json.dumps(document))
    (root / "current").symlink_to("releases/r1")
    return root


async def compared(
    direct: Stream, through: Stream, given: argparse.Namespace
) -> dict[int, dict[str, list[Round]]]:
    """Streams at once -> way -> its rounds, the two ways in turn."""
    found: dict[int, dict[str, list[Round]]] = {}
    for at_once in AT_ONCE:
        rounds: dict[str, list[Round]] = {"direct": [], "door": []}
        for stream in (direct, through):
            await load(stream, at_once, 1.0)
        for number in range(given.rounds):
            pair = (("direct", direct), ("door", through))
            for name, stream in pair if number % 2 == 0 else pair[::-1]:
                rounds[name].append(await load(stream, at_once, given.seconds))
        found[at_once] = rounds
    return found


async def many(through: Stream) -> tuple[int, int, float]:
    """200 streams at once, each like the one that had the server for itself: how many were not, of how many, and seconds."""
    _, _, alone = await through(0)
    began = time.monotonic()
    results = await asyncio.gather(*(through(0) for _ in range(MANY)), return_exceptions=True)
    wrong = sum(isinstance(each, BaseException) or each[1:] != (TOKENS, alone) for each in results)
    return wrong, len(results), time.monotonic() - began


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def report(found: dict[int, dict[str, list[Round]]]) -> tuple[list[dict[str, Any]], bool]:
    """Print the table; its rows, and whether all are within the limits."""
    print(f"{'streams':>8}  {'way':8}{'first token, ms':>28}{'tokens a second':>28}")
    rows, good = [], True
    for at_once, rounds in found.items():
        medians = {}
        for way, each in rounds.items():
            first, rate = [r.first_ms for r in each], [r.rate for r in each]
            medians[way] = (statistics.median(first), statistics.median(rate))
            print(f"{at_once:>8}  {way:8}{spread(first):>28}{spread(rate):>28}")
            rows.append(
                {
                    "streams": at_once,
                    "way": way,
                    "first_ms": first,
                    "rate": rate,
                    "wrong": sum(r.wrong for r in each),
                }
            )
        more = medians["door"][0] - medians["direct"][0]
        share = medians["door"][1] / medians["direct"][1]
        print(f"{'':8}  door: {more:+.1f} ms to the first token, {share:.2f} of the tokens a second")
        good = good and more <= FIRST_TOKEN_MS and share >= THROUGHPUT
    return rows, good


def picture(rows: list[dict[str, Any]], machine: str) -> str:
    """The table as an SVG: for each number of streams, two bars for each figure."""
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 250" font-family="sans-serif" font-size="13">',
        '<rect width="720" height="250" fill="#ffffff"/>',
    ]
    figures = (("first_ms", "ms to the first token", 20), ("rate", "tokens a second", 380))
    for key, title, left in figures:
        top = max(statistics.median(row[key]) for row in rows)
        lines.append(f'<text x="{left}" y="24" font-weight="bold">{title}</text>')
        for number, row in enumerate(rows):
            value = statistics.median(row[key])
            y = 40 + number * 26 + (number // 2) * 8
            color = "#76848f" if row["way"] == "direct" else "#2a7ab8"
            lines.append(
                f'<rect x="{left + 110}" y="{y}" width="{150 * value / top:.1f}" height="20" fill="{color}"/>'
            )
            lines.append(f'<text x="{left}" y="{y + 15}">{row["streams"]} {row["way"]}</text>')
            lines.append(f'<text x="{left + 116 + 150 * value / top:.1f}" y="{y + 15}">{value:.1f}</text>')
    lines.append(f'<text x="20" y="240" fill="#555555">{machine}</text>')
    return "\n".join([*lines, "</svg>", ""])


def main() -> int:
    parser = argparse.ArgumentParser(
        description="time streams through the door against those of Triton itself"
    )
    parser.add_argument("--rounds", type=int, default=5, help="of each way (default 5)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of a round (default 8)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--picture", type=Path, help="write an SVG to this file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tritonhost-bench-") as name:
        folder = Path(name)
        (folder / "container").mkdir()
        try:
            container, server = served(folder / "container")
        except (AssertionError, OSError, subprocess.CalledProcessError) as error:
            print(f"no server to measure: {str(error)[-500:]}", file=sys.stderr)
            return 2
        door = start(door_root(folder, container), server.grpc)
        try:
            return asyncio.run(measured(given, server, door))
        finally:
            door.process.kill()
            door.process.wait()
            server.process.kill()
            server.process.wait()


async def measured(given: argparse.Namespace, server: Server, door: Any) -> int:
    from files.image.door.tokens import Words

    root = Path(door.log).parent
    IDS.extend(Words(root / "weights/w1/tokenizer.json", ()).encode(PROMPT, special=False))
    channels = Channels(f"127.0.0.1:{server.grpc}")
    direct, through = Direct(await model(channels), channels), Through(door.port, "small")
    idle = door.memory_mib()
    found = await compared(direct.stream, through.stream, given)
    rows, good = report(found)
    wrong, of, seconds = await many(through.stream)
    memory = door.memory_mib()
    print(
        f"{of} streams at once: {wrong} lost, mixed or cut, in {seconds:.1f} s; the door's memory {idle:.0f} to {memory:.0f} MiB"
    )
    machine = f"{_processor()}, {os.cpu_count()} cores shared by server, door and client; load {os.getloadavg()[0]:.1f}"
    print(machine)
    if given.json:
        figures = {
            "rows": rows,
            "many": {"wrong": wrong, "of": of, "seconds": seconds, "memory_mib": [idle, memory]},
        }
        given.json.write_text(json.dumps({**figures, "machine": machine}, indent=1) + "\n", encoding="utf-8")
    if given.picture:
        given.picture.write_text(picture(rows, machine), encoding="utf-8")
    return 0 if good and not wrong and memory < 512 else 1


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    sys.exit(main())
