"""The servers of a host: their ports, their GPUs, and where each says that it is ready."""

from __future__ import annotations

from dataclasses import dataclass

from operations.plan.inventory.settings import Settings
from operations.plan.profile.profiles import Profile

LOOPBACK = "127.0.0.1"
# With a proxy, clients use the proxy's ports; the servers' ports are higher by this number, or by twice this number.
BEHIND_FRONT = 10000


@dataclass(frozen=True)
class Server:
    """One server that can run a release. `service`: its unit and container; `link`: the link to its release."""

    service: str
    link: str
    address: str
    ports: tuple[int, int, int]  # HTTP, gRPC, metrics

    @property
    def serve(self) -> str:
        """The release's file that runs it."""
        return "serve" if self.link == "current" else f"serve-{self.link}"

    @property
    def wait_ready(self) -> str:
        """The release's file that waits for it."""
        return "wait-ready" if self.link == "current" else f"wait-ready-{self.link}"


def local_address(settings: Settings) -> str:
    """The address at which a host reaches its own server."""
    return LOOPBACK if settings.server_bind_address == "0.0.0.0" else settings.server_bind_address


def servers(settings: Settings, ports: tuple[int, int, int]) -> tuple[Server, ...]:
    """The servers of a host that may run a release: the main server first. `ports`: those for clients."""
    if settings.front == "none":
        return (Server(settings.service_name, "current", local_address(settings), ports),)
    current, beside = (
        (ports[0] + by, ports[1] + by, ports[2] + by) for by in (BEHIND_FRONT, 2 * BEHIND_FRONT)
    )
    return (
        Server(settings.service_name, "current", LOOPBACK, current),
        Server(f"{settings.service_name}-next", "next", LOOPBACK, beside),
    )


def ready_url(address: str, port: int, model: str) -> str:
    return f"http://{address}:{port}/v2/models/{model}/ready"


def ready_urls(settings: Settings, profile: Profile) -> dict[str, str]:
    """
    For each model that takes clients' requests, the URL at which the host checks whether it is ready.

    The models are checked, not the server, whose own readiness stays 200 when an unload takes the ensemble down.
    With a proxy, the check goes through it: what counts is what clients reach.
    """
    port = settings.http_port or profile.server.http_port
    return {model: ready_url(local_address(settings), port, model) for model in profile.asked_models}
