"""TLS and API keys in front of the server: what the gateway is, and what its certificate and its keys have to be.

Triton is meant to stand behind a gateway that says who may ask and encrypts what is said
(https://github.com/triton-inference-server/server/blob/main/docs/customization_guide/deploy.md): here nginx, in a container
of its own, which lets through inference alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from operations.plan.artifacts import commands
from operations.plan.artifacts.artifact import ServingImage
from operations.plan.artifacts.keys import key_of
from operations.plan.errors import TOKEN, PlanError
from operations.plan.inventory.gateway_settings import (
    KEY_FORM,
    LEAST_CHARACTERS,
    LONGEST_KEY,
    SHORTEST_KEY,
    version,
)
from operations.plan.permissions import Permissions
from operations.plan.serving import serve

# unused, as the server's own 60600: https://systemd.io/UIDS-GIDS/ assigns no user in 60578 to 61183
USER = 60601
# where the container finds its files
MOUNT = "/etc/tritonhost"
CONFIGURATION, TLS, KEYS, LIMITS = "nginx.conf", "tls.pem", "keys.map", "limits.conf"
FILES = (CONFIGURATION, TLS, KEYS, LIMITS)
SCRIPT = "gateway.sh"  # what its unit runs
# of a release that serves a share of the requests, and has not been decided about
CANARY = "a canary"
RELEASED = "released"  # names the proven release that serves; absent: no load balancer is to send requests
FRESH = ".new"  # where files are put before they are in place
# of find: path, tab, mode:user:group
MODES = "%p\\t%m:%U:%G\\n"
# gRPC's methods that ask and change nothing: https://github.com/triton-inference-server/common, grpc_service.proto
GRPC_METHODS = (
    *("ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata"),
    *("ModelInfer", "ModelStreamInfer"),
)
# what nginx puts aside of requests that are larger than its buffers, in memory and counted only where it is used
TMP = "/tmp:rw,noexec,nosuid,nodev,size=2g,mode=1777"
# it would look for its log and its lock where the image has them, before it has read where they are
_WITHOUT_FILES_OF_ITS_OWN = ("-e", "stderr", "-p", "/tmp")
HOST = "host"  # by which a door counts what comes from the host itself, without a key
LARGEST_FILE = 65536  # bytes
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Gateway:
    """
    nginx in a container with a unit of its own.

    + service: its unit and container
    + directory: its files on the host; nobody but root and the container's user may enter
    + address, port: where people reach it
    + behind: where HTTP, gRPC and metrics answer on the host's loopback
    + drain_s: how long a gateway that is stopped goes on with the requests it has
    + door_port: where the door answers on the host's loopback; 0: there is none
    + proxies: load balancers before it, which say whose request it is
    """

    service: str
    image: ServingImage
    image_record: str
    directory: str
    address: str
    port: int
    behind: tuple[int, int, int]
    max_request_mib: int
    drain_s: int
    door_port: int = 0
    proxies: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The hash of what its container is made from: if it differs, the container is started again."""
        # nginx cannot go from one address to all of them, or back, while it holds the port (EADDRINUSE at the reload)
        listens = "everywhere" if self.address == "0.0.0.0" else "one address"
        return key_of({"image": self.image.key, "run": self._run(), "listens": listens})

    @property
    def run(self) -> list[str]:
        """The container that serves."""
        return self._run("--label", f"tritonhost.gateway={self.key}")

    def _run(self, *labels: str) -> list[str]:
        return self._container(self.directory, ["-g", "daemon off;"], self.service, labels)

    @property
    def test(self) -> list[str]:
        """The container that reads what is in $fresh, and says whether nginx would take it."""
        return self._container("$fresh", ["-t", "-q"], f"{self.service}-test")

    def _container(
        self, directory: str, command: Sequence[str], name: str, labels: Sequence[str] = ()
    ) -> list[str]:
        """
        `docker run` of nginx over the files of a directory; `$image` stands for the image's id.

        On the host's own network, because Triton, or the front before it, is on the host's loopback.
        """
        return commands.container(
            serve.IMAGE,
            [*_WITHOUT_FILES_OF_ITS_OWN, "-c", f"{MOUNT}/{CONFIGURATION}", *command],
            name=name,
            network="host",
            mounts={directory: MOUNT},
            options=[
                *("--user", f"{USER}:{USER}", "--read-only", "--tmpfs", TMP, "--pids-limit", "256"),
                *("--memory", "4g", "--memory-swap", "4g"),
                *labels,
                *("--log-driver", "none"),
                # finish what was begun, and take nothing new
                *("--stop-signal", "SIGQUIT", "--entrypoint", "nginx"),
            ],
        )

    @property
    def record(self) -> str:
        """Where its unit writes the key of the container and the digest of the files that nginx has read."""
        return record(self.service)

    @property
    def http2_directive(self) -> bool:
        """Whether HTTP/2 is a directive, and no longer a parameter of `listen`: https://nginx.org/r/http2, from 1.25.1 on."""
        return self._version >= (1, 25, 1)

    @property
    def keeps_connections(self) -> bool:
        """Whether nginx keeps connections to the server unless it is told not to: from 1.29.7 on (https://nginx.org/en/CHANGES)."""
        return self._version >= (1, 29, 7)

    @property
    def _version(self) -> tuple[int, ...]:
        return tuple(map(int, version(str(self.image.inputs["image"])).split(".")))

    @property
    def local_address(self) -> str:
        """The address on which the host reaches it."""
        return "127.0.0.1" if self.address == "0.0.0.0" else self.address

    @property
    def local_url(self) -> str:
        """Where the host reaches it."""
        return f"https://{self.local_address}:{self.port}"


def service(server: str) -> str:
    """The gateway's unit and container, of the server's name."""
    return f"{server}-gateway"


def directory(state_root: str) -> str:
    """Where its files are on the host."""
    return f"{state_root}/gateway"


def released(state_root: str) -> str:
    """The file that says which release load balancers may use. It changes without nginx, which reads it at each request."""
    return f"{directory(state_root)}/{RELEASED}"


def undecided(state_root: str) -> str:
    """The file that names a release which requests have to decide about: load balancers use it as a canary alone."""
    return f"{directory(state_root)}/undecided"


def released_text(release: str, canary: bool = False) -> str:
    """What is in it."""
    return f"{release} canary\n" if canary else f"{release}\n"


def modes(directory: str) -> dict[str, Permissions]:
    """path -> permissions of everything in its directory: nobody else may read."""
    user = str(USER)
    own = {f"{directory}/{name}": Permissions("400", user, user) for name in FILES}
    root = {directory: Permissions("750", "0", user), f"{directory}/{SCRIPT}": Permissions("600", "0", "0")}
    return {**root, **own}


def record(service: str) -> str:
    """See Gateway.record."""
    return f"/run/{service}"


@dataclass(frozen=True)
class Limits:
    """
    What a client may use; None: as much as it likes.

    + requests_per_minute: as many may come at once, if none came before
    + concurrent: requests that are being answered
    + tokens_per_day: of prompts and answers, through the door; a day of UTC
    """

    requests_per_minute: int | None = None
    concurrent: int | None = None
    tokens_per_day: int | None = None


# the largest value of each limit; nginx's zones take no higher rate, and no longer queue
MOST = {"requests_per_minute": 60000, "concurrent": 4096, "tokens_per_day": 10**12}


@dataclass(frozen=True)
class Secrets:
    """
    What the gateway needs and nobody else may have; never part of a representation.

    + tls: certificates and private key, PEM
    + keys: API keys as (name, key)
    + limits: what a name may use, of those that have limits
    + certificate: the host's own, DER
    + ends: the last moment of the certificate
    """

    tls: str = field(repr=False)
    keys: tuple[tuple[str, str], ...] = field(repr=False)
    certificate: bytes = field(repr=False)
    ends: datetime
    limits: Mapping[str, Limits] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def map(self) -> str:
        """
        The keys as entries of nginx's map, Authorization -> name.

        As patterns, because nginx compares plain strings without regard to case (https://nginx.org/r/map); no character of a
        key has a meaning in one.
        """
        return "".join(f'"~^(?i:bearer) {key}$" {name};\n' for name, key in self.keys)

    @property
    def limited(self) -> list[tuple[int, str, Limits]]:
        """The names with limits, each with a number for nginx's variables, which take no other characters."""
        return [(number, name, self.limits[name]) for number, name in enumerate(sorted(self.limits))]


def api_keys(text: str, where: str) -> tuple[tuple[tuple[str, str], ...], dict[str, Limits]]:
    """
    The keys of a file, one a line: a name, a space, a key, and after it the limits of that name. A name may have several keys,
    for a change without a gap; its limits are for all of them together. Returns (name, key) of each, and the limits by name.

    + where: host, key and file, for the error

    Raises PlanError for what is no such line, for a key that is short, guessable, or somebody else's too; without its text.
    """
    if text.startswith("\ufeff"):
        raise PlanError(where, "a byte order mark before the first line", "a file without one")
    if "\r" in text:
        raise PlanError(where, "Windows line ends", "Unix line ends", "dos2unix, or write it again")
    found: list[tuple[str, str]] = []
    limits: dict[str, Limits] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.split("#")[0].split()
        if not words:
            continue
        problem = _problem(words[:2], [key for _, key in found])
        if problem:
            then = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))' makes one"
            raise PlanError(f"{where}: line {number}", *problem, then)
        given = _limits(words[2:], f"{where}: line {number}")
        if limits.setdefault(words[0], given) != given:
            expected = "the limits that its earlier line has: they are the name's, whichever key is used"
            raise PlanError(f"{where}: line {number}", f"other limits of {words[0]}", expected)
        found.append((words[0], words[1]))
    if not found:
        raise PlanError(where, "no key", "at least one line: a name, a space, a key")
    return tuple(found), {name: given for name, given in limits.items() if given != Limits()}


def _limits(words: Sequence[str], where: str) -> Limits:
    """What a line says after its key. Raises PlanError, without the words: one of them may be a key."""
    found: dict[str, int] = {}
    for word in words:
        name, _, value = word.partition("=")
        known = MOST.get(name)
        if known is None or name in found or not value.isdecimal() or not 1 <= int(value) <= known:
            expected = "each of " + ", ".join(f"{each}=1 to {most}" for each, most in MOST.items())
            raise PlanError(
                where, "a word after the key that is no limit (not shown)", f"{expected}, or none"
            )
        found[name] = int(value)
    return Limits(**found)


def _problem(words: Sequence[str], known: Sequence[str]) -> tuple[str, str] | None:
    """What was found and what was expected of one line; None for a good one."""
    if len(words) != 2:
        return f"{len(words)} word{'' if len(words) == 1 else 's'} (not shown)", "a name, a space, a key"
    name, key = words
    if not _NAME.fullmatch(name):
        return "a name with other characters (not shown)", "letters, digits and ._- in a name, 64 at most"
    if name == HOST:
        return f"the name {HOST}", "another: that of requests from the host itself"
    if TOKEN.search(key):
        return "a Hugging Face token (not shown)", "a key of the gateway's own"
    if len(key) < SHORTEST_KEY:
        return f"a key of {len(key)} characters", f"{SHORTEST_KEY} or more"
    if not KEY_FORM.fullmatch(key):
        found = f"a key of {len(key)} characters, some of which no key has (not shown)"
        return found, f"at most {LONGEST_KEY} letters, digits, _ and -"
    if len(set(key)) < LEAST_CHARACTERS:
        return "a key of few different characters (not shown)", "one that was made at random"
    if key in known:
        return "a key that another line has too (not shown)", "a key for each"
    return None
