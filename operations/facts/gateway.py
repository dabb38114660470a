"""The gateway, as it is."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pyinfra.api.facts import FactBase

from operations.facts.host_state import digest_pairs
from operations.plan.gateway import MODES


@dataclass(frozen=True)
class Gateway:
    """
    + digests: path -> SHA-256 of each of its files that is there
    + modes: path -> mode:user:group of its directory and of everything in it
    + loaded: the key of the container that runs, and the digest of the files that nginx has read; empty where none runs
    + active, enabled: of its unit
    """

    digests: Mapping[str, str] = field(default_factory=dict)
    modes: Mapping[str, str] = field(default_factory=dict)
    loaded: str = ""
    active: bool = False
    enabled: bool = False


class GatewayState(FactBase[Gateway]):
    """
    + service: its unit
    + directory: of its files
    + paths: its files
    + record: where its unit writes what nginx has read
    """

    default = Gateway

    def command(self, service: str, directory: str, paths: Sequence[str], record: str) -> str:
        unit = shlex.quote(f"{service}.service")
        return (
            f"echo $(systemctl is-active {unit}); echo $(systemctl is-enabled {unit} 2>/dev/null); "
            f"echo $(cat {shlex.quote(record)} 2>/dev/null); sha256sum -- {shlex.join(paths)} 2>/dev/null; "
            f"find {shlex.quote(directory)} -maxdepth 1 -printf {shlex.quote(MODES)} 2>/dev/null || :"
        )

    def process(self, output: list[str]) -> Gateway:
        active, enabled, loaded, *files = output
        found = {path: digest for digest, path in digest_pairs(files)}
        modes = dict(line.split("\t", 1) for line in files if "\t" in line)
        return Gateway(
            found, modes, loaded if active == "active" else "", active == "active", enabled == "enabled"
        )
