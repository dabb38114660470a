"""The exporters' images: a real node_exporter, and the stand-in's page of metrics beside what the real one prints."""

from __future__ import annotations

import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from operations.plan.catalog.gpu_counters import PROFILING, counters
from tests.lab.standins import exporter_images
from tests.lab.standins.chroot import CACHE, Container, free_port

pytestmark = pytest.mark.lab
SAMPLE = Path(__file__).resolve().parents[2] / "unit" / "captures" / "metrics" / "dcgm.prom"


@contextmanager
def page(container: Container, words: list[str], port: int) -> Iterator[str]:
    """The page of metrics of a program in a container, once it answers."""
    process = subprocess.Popen(container.command(*words), env=container.environment)
    try:
        for _ in range(100):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                    yield answer.read().decode()
                    return
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None
                time.sleep(0.1)
        pytest.fail("no answer within 10 s")
    finally:
        process.kill()
        process.wait()


def dcgm(folder: Path, text: str) -> Container:
    container = Container(folder, exporter_images.dcgm_layers(CACHE), settings=exporter_images.DCGM_SETTINGS)
    (container.work / "counters.csv").write_text(text)
    return container


def families(text: str) -> dict[str, tuple[str, list[str]]]:
    """name -> type, and the labels of its first sample."""
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)", text, re.MULTILINE))
    first: dict[str, list[str]] = {}
    for name, labels in re.findall(r"^(\w+)\{(.*)\}", text, re.MULTILINE):
        first.setdefault(name, re.findall(r'(\w+)="', labels))
    return {name: (kind, first.get(name, [])) for name, kind in types.items()}


def test_node_exporter_is_where_the_real_image_has_it(tmp_path: Path) -> None:
    container = Container(
        tmp_path, exporter_images.node_layers(CACHE), settings=exporter_images.NODE_SETTINGS
    )
    port = free_port()
    assert exporter_images.NODE_TAG.removeprefix("v") in container.run("/bin/node_exporter", "--version")
    words = ["/bin/node_exporter", f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    with page(container, words, port) as text:
        assert "node_uname_info{" in text


def test_stand_in_prints_the_real_names_and_labels(tmp_path: Path) -> None:
    container, port = dcgm(tmp_path, counters()), free_port()
    container.see("NVIDIA A100-SXM4-40GB:2")
    words = ["/usr/bin/dcgm-exporter", "--collectors", "/w/counters.csv", "--address", f"127.0.0.1:{port}"]
    with page(container, words, port) as text:
        assert families(text) == families(SAMPLE.read_text())
        assert len(re.findall(r"^DCGM_FI_DEV_GPU_TEMP\{", text, re.MULTILINE)) == 2


def test_stand_in_leaves_out_a_gpu_that_is_lost(tmp_path: Path) -> None:
    container, port = dcgm(tmp_path, counters()), free_port()
    (container.root / "etc/lab/gpus").write_text("NVIDIA A10:2\nlost.1=1\n")
    words = ["/usr/bin/dcgm-exporter", "-f", "/w/counters.csv", "-a", f"127.0.0.1:{port}"]
    with page(container, words, port) as text:
        assert len(re.findall(r"^DCGM_FI_DEV_GPU_TEMP\{", text, re.MULTILINE)) < 2


@pytest.mark.parametrize(
    ("text", "said"),
    [("DCGM_FI_DEV_NOTHING, gauge, x\n", "Could not find DCGM field"), ("one, two\n", "Malformed CSV")],
)
def test_stand_in_refuses_lists_that_the_real_one_refuses(tmp_path: Path, text: str, said: str) -> None:
    done = dcgm(tmp_path, text).attempt(
        "/usr/bin/dcgm-exporter", "-f", "/w/counters.csv", "-a", "127.0.0.1:1"
    )
    assert done.returncode != 0 and said in done.stderr


def test_stand_in_shows_profiling_to_root_with_the_capability(tmp_path: Path) -> None:
    container, port = dcgm(tmp_path, counters(profiling=True)), free_port()
    words = ["/usr/bin/dcgm-exporter", "-f", "/w/counters.csv", "-a", f"127.0.0.1:{port}"]
    with page(container, words, port) as text:
        assert {name for name, _, _ in PROFILING} <= families(text).keys()
    with page(
        container, ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-all", *words], port
    ) as text:
        assert "_PROF_" not in text
