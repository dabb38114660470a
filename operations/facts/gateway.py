"""The gateway, as it is."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pyinfra.api.facts import FactBase

from operations.facts.parse import digest_pairs, loaded_gateway, permissions
from operations.plan.exposure.gateway import MODES
from operations.plan.observed.observed import LoadedGateway
from operations.plan.permissions import Permissions


@dataclass(frozen=True)
class Gateway:
    """
    + digests: path -> SHA-256 of each of its files that is there
    + modes: path -> permissions of its directory and of everything in it
    + loaded: what the container runs with; empty where none runs
    + active, enabled: of its unit
    """

    digests: Mapping[str, str] = field(default_factory=dict)
    modes: Mapping[str, Permissions] = field(default_factory=dict)
    loaded: LoadedGateway = field(default_factory=LoadedGateway)
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
        # the record of a container that does not run any more is out of date
        runs_with = loaded_gateway(loaded if active == "active" else "")
        return Gateway(found, permissions(files), runs_with, active == "active", enabled == "enabled")
