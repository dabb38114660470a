"""OpenAI's interface in front of the server: what the door's container is, and what it is told.

files/image/door is the program. Triton's own frontend, trtllm-serve and LiteLLM were looked at first: docs/adr/0012-the-door.md.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import Any

from operations.plan.artifacts import commands
from operations.plan.artifacts.artifact import ServingImage
from operations.plan.artifacts.keys import key_of
from operations.plan.errors import PlanError
from operations.plan.inventory.services import units_of
from operations.plan.inventory.settings import Settings
from operations.plan.profile.profiles import PlanProfile, Profile, load_profile
from operations.plan.serving import serve
from operations.plan.serving.servers import LOOPBACK, local_address, servers

FIRST_USER, USERS = 60650, 500
# where the container writes its counters
USAGE = "/usage"
# the search model of kind `plan`, which turns a text into a vector: files/model_repository
EMBEDDING = {"model": "clip_search", "input": "text", "output": "text_embedding"}
# HTTP header by which the deploy asks for the release that is tried before clients reach it; the gateway passes none on
NEXT = ("X-Tritonhost-Server", "next")


def _one_part(key: str) -> tuple[str, ...]:
    return (f"door: a stream has one part, because {key} is not true; set it in the profile",)


# key of the profile -> the warning where it is not true
ONE_PART = {key: _one_part(key) for key in ("decoupled", "repository.parameters.decoupled_mode")}


@dataclass(frozen=True)
class Door:
    """
    The door, in a container with a unit of its own.

    + service: its unit and container
    + image_record: the file that holds the id of its image
    + data_root: of all artifacts, which it reads
    + usage: the directory of its counters, which it writes
    + port: where it listens, on the host's loopback
    + upstream: the ports of the servers' gRPC, which it may connect to
    + told: its configuration
    + user: the number of its user
    """

    service: str
    image: ServingImage
    image_record: str
    data_root: str
    usage: str
    port: int
    upstream: tuple[int, ...]
    told: str
    drain_s: int
    user: int

    @property
    def key(self) -> str:
        """The hash of what its container is made from: with another key it is started again."""
        return key_of({"image": self.image.key, "run": self._run()})

    @property
    def run(self) -> list[str]:
        """The container that serves."""
        return self._run("--label", f"tritonhost.door={self.key}")

    @property
    def record(self) -> str:
        """Where its unit writes the key of the container that runs."""
        return record(self.service)

    @property
    def url(self) -> str:
        """Where the host reaches it."""
        return f"http://{LOOPBACK}:{self.port}"

    def _run(self, *labels: str) -> list[str]:
        """
        `docker run` of the door; `$image` stands for the image's id.

        On the host's own network, because Triton, or the proxy before it, is on the host's loopback. The guard lets its user
        connect to the servers and to nothing else.
        """
        return commands.container(
            serve.IMAGE,
            ["python3", "-m", "door"],
            name=self.service,
            network="host",
            # the whole of it: the door follows the links to the releases, as the server's unit does
            mounts={self.data_root: self.data_root},
            options=[
                *("--mount", f"type=bind,source={self.usage},target={USAGE}"),
                *("--user", f"{self.user}:{self.user}", "--read-only", "--pids-limit", "256"),
                *("--memory", "4g", "--memory-swap", "4g"),
                *labels,
                # the unit's journal is the log
                *("--log-driver", "none"),
            ],
            # a thread for each core would be more than the container may have
            environment={"DOOR": self.told, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"},
        )


def service(server: str) -> str:
    """The door's unit and container, of the server's name."""
    return f"{server}-door"


def record(service: str) -> str:
    """See Door.record."""
    return f"/run/{service}"


def leads_file(state_root: str) -> str:
    """Where it is written which of its two servers the proxy leads clients to."""
    return f"{state_root}/leads"


def user(server: str) -> int:
    """
    The user of a service's door: one for each service, because the guard of each lets its own door connect, and no other user.

    https://systemd.io/UIDS-GIDS/ assigns none in 60578 to 61183; the server's is 60600, the gateway's 60601.
    """
    return FIRST_USER + zlib.crc32(server.encode()) % USERS


def usage_directory(state_root: str) -> str:
    """Where the counters are on the host."""
    return f"{state_root}/door"


def door(
    settings: Settings, profile: Profile, ports: tuple[int, int, int], image: ServingImage
) -> Door | None:
    """
    The door of a host; None where the inventory wants none.

    + ports: those for clients, or those behind the gateway

    Raises PlanError for a port that a server has, and for services that the host does not have.
    """
    given = settings.door
    if given is None:
        return None
    own = servers(settings, ports)
    taken = {port for server in own for port in server.ports} | set(ports)
    if settings.gateway:
        taken.add(settings.gateway.port)
    if given.port in taken:
        raise PlanError(
            "door.port",
            given.port,
            "a port that neither a server nor the gateway has",
            "move it, or http_port and its like",
            reference="door-port-taken",
        )
    services = [_told(settings, profile, ports[1], given.name or "")]
    services += [_other(settings, name) for name in given.also]
    told = {
        "listen": given.port,
        "data_root": settings.data_root,
        "usage": USAGE,
        "drain_s": settings.drain_s,
        "services": services,
    }
    _check_names(settings, profile, given.also)
    places = [place for each in services for place in (each["current"], each.get("next")) if place]
    return Door(
        service=service(settings.service_name),
        image=image,
        image_record=image.record(settings.data_root),
        data_root=settings.data_root,
        usage=usage_directory(settings.state_root),
        port=given.port,
        upstream=tuple(sorted({int(place["address"].rpartition(":")[2]) for place in places})),
        told=json.dumps(told, sort_keys=True, separators=(",", ":")),
        drain_s=settings.drain_s,
        user=user(settings.service_name),
    )


def _told(settings: Settings, profile: Profile, grpc_port: int, name: str) -> dict[str, Any]:
    """One service, as files/image/door/config.py reads it."""
    root = settings.state_root
    # with a proxy the main server is reached through it, as by all clients
    current = {"link": f"{root}/current", "address": f"{local_address(settings)}:{grpc_port}"}
    found: dict[str, Any] = {"name": name, "current": current}
    if settings.front != "none":
        beside = servers(settings, (0, grpc_port, 0))[1]
        found["leads"] = leads_file(root)
        found["next"] = {"link": f"{root}/{beside.link}", "address": f"{LOOPBACK}:{beside.ports[1]}"}
    if isinstance(profile, PlanProfile):
        found["embedding"] = EMBEDDING
    return found


def _check_names(settings: Settings, profile: Profile, also: list[str]) -> None:
    """Clients name a model: two of one name could not be told apart. Raises PlanError."""
    own = (settings.door.name if settings.door else None) or settings.model
    seen = {own}
    for service_name in also:
        table = settings.services[service_name]
        name = str((table.get("door") or {}).get("name") or table.get("model", settings.model))
        if name in seen:
            raise PlanError(
                "door.also",
                service_name,
                f"models of different names, and {name} is one already",
                f"write door.name in [hosts.NAME.services.{service_name}]",
                reference="door-names-alike",
            )
        seen.add(name)


def _is_other(settings: Settings, name: str) -> bool:
    return units_of(settings.services).get(name, name) != settings.service_name


def _other(settings: Settings, name: str) -> dict[str, Any]:
    """Another service of the host. Raises PlanError."""
    table = settings.services.get(name)
    if table is None or not _is_other(settings, name):
        others = [each for each in settings.services if each != name]
        raise PlanError(
            "door.also",
            name,
            f"other services of the host: {', '.join(others) or 'it has one'}",
            reference="door-of-another-service",
        )
    keys = ("service_name", "at_data_root", "grpc_port", "profile_overrides", "model", "bind_address")
    given = {key: table[key] for key in keys if key in table}
    # of a gateway only counts whether the server is behind one; what the host says is for all services
    given["gateway"] = True if "gateway" in table else settings.gateway
    unset = {"at_data_root": False, "grpc_port": None, "door": None}
    other = settings.model_copy(update={**unset, "service_name": name, **given})
    profile = load_profile(other.model, other.profile_overrides)
    named = table.get("door") or {}
    return _told(other, profile, other.grpc_port or profile.server.grpc_port, str(named.get("name") or ""))
