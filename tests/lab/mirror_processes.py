"""The lab mirror's processes, and their content, which tests/lab/mirror and tests/lab/standins make."""

import importlib
import importlib.util
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.lab.cgroups import Group
from tests.lab.settings import REPOSITORY, Settings
from tests.lab.shell import LabError, digest, say, step

MIRROR_SOURCES = Path(__file__).parent / "mirror"


def _exists(module: str) -> bool:
    """Whether the module can be imported; a part that is not in this checkout is reported and skipped."""
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        say(f"{module} is not in this checkout: running without it")
    return found


def _answers(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


class Process:
    """One long-running process of the mirror, in a control group of its own."""

    def __init__(self, settings: Settings, name: str, ports: tuple[int, ...]) -> None:
        self.settings = settings
        self.name = name
        self.ports = ports
        self.group = Group(settings.tag, name)
        self.log = settings.state / f"{name}.log"
        self.note = settings.state / f"{name}.made-from"

    def answers(self) -> bool:
        return self.group.populated() and all(_answers(self.settings.gateway, port) for port in self.ports)

    def run(self, argv: list[str], made_from: str) -> None:
        """Start the process, and restart it if it does not answer on its ports or if its code has changed."""
        if self.answers() and self.note.exists() and self.note.read_text() == made_from:
            return
        self.stop()
        self.group.create()
        with self.log.open("ab") as log:
            subprocess.Popen(
                self.group.joining(argv), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, cwd=REPOSITORY,
            )  # fmt: skip
        deadline = time.monotonic() + 20
        while not self.answers():
            if time.monotonic() > deadline or (
                not self.group.populated() and time.monotonic() > deadline - 18
            ):
                last = self.log.read_text(errors="replace").strip().splitlines()[-1:]
                raise LabError(
                    f"{self.name} does not answer on {self.settings.gateway} {self.ports}: {last}; see {self.log}"
                )
            time.sleep(0.05)
        self.note.write_text(made_from)

    def stop(self) -> None:
        self.group.kill()
        self.group.remove()


def processes(settings: Settings) -> list[Process]:
    return [Process(settings, "mirror", (8000, 8001)), Process(settings, "registry", (5000,))]


def start(settings: Settings) -> None:
    """Start the mirror and the registry on the gateway's address."""
    mirror, registry = processes(settings)
    sources = digest([MIRROR_SOURCES]) if MIRROR_SOURCES.is_dir() else ""
    if _exists("tests.lab.mirror.server"):
        (settings.cache / "git").mkdir(parents=True, exist_ok=True)
        (settings.cache / "hub").mkdir(parents=True, exist_ok=True)
        mirror.run(
            [
                sys.executable,
                "-m",
                "tests.lab.mirror.server",
                "--cache",
                str(settings.cache),
                "--bind",
                settings.gateway,
            ],
            sources,
        )
    else:
        mirror.ports = (8000,)
        mirror.run(
            [
                sys.executable,
                "-m",
                "http.server",
                "8000",
                "--bind",
                settings.gateway,
                "--directory",
                str(settings.cache),
            ],
            "packages only",
        )
    if _exists("tests.lab.mirror.registry"):
        command: Callable[[Path, str], list[str]] = importlib.import_module(
            "tests.lab.mirror.registry"
        ).command
        registry.run(command(settings.cache, settings.gateway), sources)


def build_served(settings: Settings) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Put git repositories, models and base images on the running mirror; the entries of lab.json for each."""
    content: dict[str, Any] = {"git": {}, "models": {}}
    images: dict[str, str] = {}
    if _exists("tests.lab.mirror.content"):
        with step("git repositories and models"):
            content = importlib.import_module("tests.lab.mirror.content").build(settings.cache)
    if _exists("tests.lab.standins.images") and _exists("tests.lab.mirror.registry"):
        with step("container images"):
            images = importlib.import_module("tests.lab.standins.images").build(
                settings.cache, settings.registry
            )
    return content["git"], content["models"], images
