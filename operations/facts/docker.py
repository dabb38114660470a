"""The docker engine's configuration."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from pyinfra.api.facts import FactBase

from operations.plan.machine.daemon_json import UNREAD

_ENGINE, _UNREAD = "engine-runtimes ", "daemon-json-unread"


@dataclass(frozen=True)
class Daemon:
    """daemon.json's text, and whether a running engine has NVIDIA's runtime (true where no engine runs)."""

    text: str = ""
    engine_knows_nvidia: bool = True
    running: bool = False
    unread: bool = False  # it was replaced by a run that ended before docker was restarted


@dataclass(frozen=True)
class Network:
    """A docker network's bridge, and the label that ours have; each empty where it has none."""

    bridge: str = ""
    label: str = ""


class NetworkOwner(FactBase[Network | None]):
    """
    The docker network of this name; None where there is none.

    + network: its name
    """

    @staticmethod
    def default() -> None:
        return None

    def command(self, network: str) -> str:
        bridge, label = '.Options "com.docker.network.bridge.name"', '.Labels "tritonhost.network"'
        # the first word says that there is one: of a plain network the others are empty
        asked = shlex.quote(f"network {{{{index {bridge}}}}} {{{{index {label}}}}}")
        return f"docker network inspect --format {asked} {shlex.quote(network)} 2>/dev/null || :"

    def process(self, output: list[str]) -> Network | None:
        found = next((line for line in output if line.startswith("network ")), None)
        if found is None:
            return None
        bridge, _, label = found.removeprefix("network ").partition(" ")
        return Network(bridge, label)


class DaemonConfiguration(FactBase[Daemon]):
    """/etc/docker/daemon.json, and what the running engine made of it."""

    default = Daemon

    def command(self) -> str:
        return (
            f"if systemctl is-active --quiet docker.service; then printf '{_ENGINE}'; "
            "docker info --format '{{range $name, $_ := .Runtimes}}{{$name}} {{end}}'; fi; "
            f"! test -e {UNREAD} || echo {_UNREAD}; "
            "! test -e /etc/docker/daemon.json || cat /etc/docker/daemon.json"
        )

    def process(self, output: list[str]) -> Daemon:
        engine = [line for line in output if line.startswith(_ENGINE)]
        text = "\n".join(line for line in output if not line.startswith(_ENGINE) and line != _UNREAD)
        knows = not engine or "nvidia" in engine[0].removeprefix(_ENGINE).split()
        return Daemon(text, knows, bool(engine), _UNREAD in output)
