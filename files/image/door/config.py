"""What the door is told at its start: the services whose models it offers, in the environment variable DOOR."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Embedding:
    """The model that turns a text into a vector. `model`: Triton's name of it; `input`, `output`: its tensors."""

    model: str
    input: str
    output: str


@dataclass(frozen=True)
class Place:
    """
    One server that may run a service's release.

    + link: the symbolic link to its release
    + address: host:port of Triton's gRPC
    """

    link: Path
    address: str


@dataclass(frozen=True)
class Service:
    """
    A service of the host.

    + name: the model's name for clients; empty: the name that its release has
    + current: what clients reach
    + next: a release that is tried before clients reach it; None: there is no second server
    + leads: the file that says which of the two the proxy leads clients to, by its link's name; None: there is no proxy
    """

    name: str
    current: Place
    next: Place | None = None
    leads: Path | None = None
    embedding: Embedding | None = None


@dataclass(frozen=True)
class Config:
    """
    + listen: TCP port on the host's loopback
    + data_root: the directory of all artifacts
    + usage: the directory of the counters, which the door writes
    + drain_s: how long a door that is stopped goes on with the answers it has begun
    """

    listen: int
    data_root: Path
    usage: Path
    drain_s: int
    services: tuple[Service, ...]


def parse(text: str) -> Config:
    """The configuration in JSON. Raises ValueError, KeyError or TypeError for a text that is none."""
    value = json.loads(text)

    def place(found: dict[str, str] | None) -> Place | None:
        return None if found is None else Place(Path(found["link"]), found["address"])

    services = []
    for each in value["services"]:
        current = place(each["current"])
        assert current is not None
        embedding = Embedding(**each["embedding"]) if each.get("embedding") else None
        leads = Path(each["leads"]) if each.get("leads") else None
        services.append(Service(each.get("name", ""), current, place(each.get("next")), leads, embedding))
    return Config(
        listen=int(value["listen"]),
        data_root=Path(value["data_root"]),
        usage=Path(value["usage"]),
        drain_s=int(value["drain_s"]),
        services=tuple(services),
    )
