"""A program beside the server, in a container and a unit of its own: an exporter, or what a monitoring server runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from operations.plan.artifacts import commands
from operations.plan.artifacts.artifact import ServingImage
from operations.plan.artifacts.keys import key_of
from operations.plan.serving import serve

TMP = "/tmp:rw,noexec,nosuid,nodev,size=64m,mode=1777"


@dataclass(frozen=True)
class HostProgram:
    """
    One program on the host's own network.

    + service: its unit and container
    + title: what it is called by those who made it
    + image_record: the file that holds the id of its image
    + data_root: what has to be mounted before it starts
    + address, port: where it listens
    + mounts: host path -> path in the container, which it reads
    + read: name -> digest of what it reads there when it starts: with another one it is started again
    + shows: names on its page of metrics, and how often each is there at least
    + scheme, page: of the address that it is asked at
    """

    service: str
    title: str
    image: ServingImage
    image_record: str
    data_root: str
    address: str
    port: int
    arguments: tuple[str, ...]
    options: tuple[str, ...]
    gpus: str | None = None
    mounts: Mapping[str, str] = field(default_factory=dict)
    read: Mapping[str, str] = field(default_factory=dict)
    shows: Mapping[str, int] = field(default_factory=dict)
    scheme: str = "http"
    page: str = "/metrics"

    @property
    def key(self) -> str:
        """The hash of what its container is made from: with another key it is started again."""
        return key_of({"image": self.image.key, "run": self._run(), **self.read})

    @property
    def run(self) -> list[str]:
        """The container that answers."""
        return self._run("--label", f"tritonhost.exporter={self.key}")

    @property
    def record(self) -> str:
        """Where its unit writes the key of the container that runs."""
        return record(self.service)

    @property
    def url(self) -> str:
        """Its page, as the host itself reaches it."""
        address = "127.0.0.1" if IPv4Address(self.address).is_unspecified else self.address
        return f"{self.scheme}://{address}:{self.port}{self.page}"

    def _run(self, *labels: str) -> list[str]:
        """`docker run` of it, on the host's own network; `$image` stands for the image's id."""
        return commands.container(
            serve.IMAGE,
            self.arguments,
            name=self.service,
            gpus=self.gpus,
            network="host",
            mounts=self.mounts,
            options=[
                *self.options,
                *("--read-only", "--tmpfs", TMP),
                *labels,
                # the unit's journal is the log
                *("--log-driver", "none"),
            ],
        )


def limits(user: int, memory: str, processes: int) -> tuple[str, ...]:
    """docker's options for a container's user, memory and processes."""
    return (
        *("--user", f"{user}:{user}", "--pids-limit", str(processes)),
        *("--memory", memory, "--memory-swap", memory),
    )


def record(service: str) -> str:
    """See HostProgram.record."""
    return f"/run/{service}"


def script_path(service: str) -> str:
    """What its unit runs."""
    return f"/etc/{service}.sh"


def unit_path(service: str) -> str:
    """The file of its unit."""
    return f"/etc/systemd/system/{service}.service"
