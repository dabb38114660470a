"""What an inventory may say about a host: every key, its type and its bounds, in one place.

The values come from inventories/group_data (and `--data`); the keys that belong to pyinfra itself (its connectors'
`ssh_…` and its global arguments `_sudo` …) are left alone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from operations.plan.catalog.host_checks import WAIVABLE
from operations.plan.catalog.package_names import refused_extra
from operations.plan.catalog.server_options import ServerOption
from operations.plan.catalog.shapes import SHAPES, expected
from operations.plan.catalog.unit_names import OTHERS_UNITS
from operations.plan.catalog.values import Port, Switch
from operations.plan.catalog.version_floors import Waiver
from operations.plan.errors import NOWHERE, TOKEN, Origin, PlanError, suggestion, text_of, typed
from operations.plan.inventory import docker_settings, load_balancer_settings, without_model
from operations.plan.inventory.door_settings import DoorSettings
from operations.plan.inventory.field_types import (
    CONNECTOR_KEYS,
    AbsolutePath,
    Commit,
    Digest,
    Fingerprint,
    Network,
    PackageName,
    Registry,
    RepositoryName,
    RpmVersion,
    SystemdName,
    Url,
    not_root,
    whole,
    without_registry,
)
from operations.plan.inventory.gateway_settings import GatewaySettings, check_paths
from operations.plan.inventory.load_balancer_settings import LoadBalancer
from operations.plan.inventory.lock_file import with_locked_digests
from operations.plan.inventory.monitoring_server_settings import SECRET_FILES, MonitoringServer
from operations.plan.inventory.monitoring_settings import MonitoringSettings
from operations.plan.inventory.notification_settings import NotificationSettings, check_webhooks
from operations.plan.inventory.reach import check_reach
from operations.plan.inventory.rollout_settings import RolloutSettings
from operations.plan.inventory.services import units_of
from operations.plan.inventory.share_settings import ShareSettings
from operations.plan.inventory.wave_settings import WaveSettings
from operations.plan.profile.tables import different_ports
from operations.plan.toml_file import check_plain
from operations.plan.wording import Form, complaint, from_validation

# the cloud's metadata service (169.254.169.254) and the boot volume's storage (169.254.0.2) on OCI
LINK_LOCAL = IPv4Network("169.254.0.0/16")


class Settings(BaseModel):
    """One host's inventory data, validated: what the site decides, as against what the model profile decides."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    # What is served
    model: str = Field(min_length=1)
    profile_overrides: dict[str, Any] = {}
    # Several services on one host, name -> settings of its own; empty: one. operations/plan/inventory/services.py
    services: dict[str, dict[str, Any]] = {}
    # of several services the one that the host served alone before: what it keeps stays where it is
    at_data_root: Switch = False

    # What was rented: its GPUs are held against what nvidia-smi finds. The dynamic inventory sets it; None: not known.
    shape: str | None = None

    # Where things live
    data_root: AbsolutePath = "/var/lib/tritonhost"
    service_name: SystemdName = "triton"
    grow_root_file_system: Switch = True
    # the host's local NVMe devices hold the data root: all of them as one array, or one alone
    local_disks: Literal["none", "raid0", "raid10"] = "none"
    # disks that carry no signature, and something other than zeros, are taken for empty ones
    local_disks_erase: Switch = False

    # Who is told when a run begins and how it ends. None: nobody.
    notifications: NotificationSettings | None = None

    # Hosts of one run hand each other what one of them has made or downloaded. None: each makes its own.
    share: ShareSettings | None = None
    # The first host of an upgrade serves a share of the requests, which decide. None: its gates alone do.
    rollout: RolloutSettings | None = None
    # Driver and kernel at versions of the site's, host by host and with a reboot. None: neither is touched.
    wave: WaveSettings | None = None

    # Checks of operations/plan/catalog/host_checks.py that are warnings here when they fail
    preflight_waived: list[str] = []

    # Host packages, at exact versions. `{os_major}` stands for the host's Oracle Linux major version.
    docker_repository_url: Url
    docker_gpg_key_url: Url
    docker_gpg_fingerprint: Fingerprint
    docker_packages: dict[PackageName, RpmVersion]
    nvidia_container_toolkit_repository_url: Url
    nvidia_container_toolkit_gpg_key_url: Url
    nvidia_container_toolkit_gpg_fingerprint: Fingerprint
    nvidia_container_toolkit_packages: dict[PackageName, RpmVersion]
    # what `{channel}` stands for in the repository's URL
    nvidia_container_toolkit_channel: Literal["stable", "experimental"] = "stable"
    # whether the packages themselves are signed by the key in a way rpm can check, as a mirror's may be; NVIDIA's are not
    nvidia_container_toolkit_gpgcheck: Switch = False
    # git and git-lfs come with the distribution; None accepts the version its repositories hold.
    git_packages: dict[PackageName, RpmVersion | None] = {"git": None, "git-lfs": None}
    # Where dnf finds what is the distribution's own, name -> URL, for a site that does not reach Oracle's: nothing else
    # is asked then. Empty: whatever repositories the host has.
    system_repositories: dict[RepositoryName, Url] = {}
    # what else a site or a guide wants on its hosts, such as dnf-utils, zip, unzip
    extra_packages: dict[PackageName, RpmVersion | None] = {}
    # dnf keeps pinned packages at their versions and podman, buildah and runc away, also in an operator's own `dnf update`
    version_lock: Switch = True
    # how long a run waits for another package manager, and for cloud-init's first boot
    package_lock_wait_s: Annotated[int, whole(0, 7200, "seconds")] = 600
    # Merged into /etc/docker/daemon.json; keys of that file that are not named here stay as they are.
    docker_daemon_settings: dict[str, Any] = {}

    # Versions below the floors of operations/plan/catalog/version_floors.py that the site accepts, each with a reason and a last day
    waivers: list[Waiver] = []

    # Where artifacts come from: each can be pointed at a mirror
    hub_endpoint: Url = "https://huggingface.co"
    # URL prefix -> the prefix to fetch from instead, for git and the submodules' own URLs
    git_mirrors: dict[Url, Url] = {}
    image_registry: Registry = "nvcr.io"
    # for images that are not NVIDIA's: PostgreSQL with pgvector
    docker_hub_registry: Registry = "docker.io"
    # a Python package index (PEP 503) for images that are built here; None: pip's own default
    python_index_url: Url | None = None
    # tag -> 40-hex commit, for a mirror whose history is not upstream's
    backend_commits: dict[str, Commit] = {}
    # image reference without registry -> digest
    image_digests: dict[Annotated[str, AfterValidator(without_registry)], Digest] = {}

    # Serving
    http_port: Port | None = None
    grpc_port: Port | None = None
    metrics_port: Port | None = None
    bind_address: str = "127.0.0.1"
    expose: Switch = False
    # who may reach the ports where bind_address is not the host's loopback; 0.0.0.0/0 only with expose
    allowed_sources: list[Network] = []
    # TLS and API keys in front; Triton's own ports are on the host's loopback then. None: Triton itself is reached.
    gateway: GatewaySettings | None = None
    # OpenAI's interface, behind the gateway; without a gateway on the host's loopback alone. None: there is none
    door: DoorSettings | None = None
    # The host's own metrics for node_exporter, and where Prometheus finds the host. None: neither.
    monitoring: MonitoringSettings | None = None
    # The host runs Prometheus, Alertmanager and Grafana for the others, and serves no model. None: it serves.
    monitoring_server: MonitoringServer | None = None
    # The host takes the clients of the others, and serves no model. None: it serves.
    load_balancer: LoadBalancer | None = None
    # what the server may connect to by itself; nothing, and never the cloud's metadata
    egress: list[Network] = []
    # auto: docker confines containers where the host has SELinux, and what they mount is labelled for it
    selinux: Literal["auto", "off"] = "auto"
    gpu_ids: Annotated[
        list[Annotated[int, Field(ge=0, le=1023, strict=True)]] | Literal["all"],
        Form('"all", or a list of GPU indices such as [0, 1]'),
    ] = "all"
    tritonserver_arguments: list[ServerOption] = []
    # The server's user, as uid:gid. Not the 1000 of Triton's images: on Oracle's images that is opc, who may become root.
    # The default is unused: https://systemd.io/UIDS-GIDS/ assigns no user in 60578 to 61183
    server_user: Annotated[str, BeforeValidator(not_root)] = "60600:60600"
    # processes and threads of the serving container; None: operations.plan.release.PIDS_PER_GPU for each GPU
    pids_limit: Annotated[int, whole(256, 4194304, "processes and threads")] | None = None
    start_timeout_s: Annotated[int, whole(10, 7200, "seconds")] = 1800
    stop_timeout_s: Annotated[int, whole(5, 600, "seconds")] = 60

    # Upgrades
    # with haproxy in front, an upgrade that fits beside the running server loses no request; without, it is done in place
    front: Literal["none", "haproxy"] = "none"
    haproxy_packages: dict[PackageName, RpmVersion | None] = {"haproxy": None}
    # how long a server that no new request reaches may take for those it has
    drain_s: Annotated[int, whole(1, 3600, "seconds")] = 60
    # how many serving hosts are changed at a time, once the first of the inventory has succeeded alone
    max_unavailable: Annotated[int, whole(1, 1000, "hosts")] = 1
    # how long a new release is watched after its golden answer, in which a crash counts
    soak_s: Annotated[int, whole(0, 3600, "seconds")] = 30
    # how much longer its golden answers may take than those of the release before; operations/plan/serving/gates.py
    latency_factor: Annotated[float, Field(ge=1, le=1000, strict=True)] = 3.0
    # with "smoke" a new release is measured through the door, and must reach a share of what the one before reached
    bench_gate: Literal["smoke"] | None = None
    bench_share: Annotated[float, Field(gt=0, le=1, strict=True)] = 0.8
    measurements_directory: Annotated[str, Field(min_length=1, max_length=500)] = "inventories/measurements"
    # The answers of proven releases, on the machine that deploys: a release that answers differently is held back
    record_golden: Switch = True
    golden_directory: Annotated[str, Field(min_length=1, max_length=500)] = "inventories/golden"
    # where the numbers are computed another way, the part of the words that must be the same
    golden_agreement: Annotated[float, Field(ge=0, le=1)] = 0.6
    # and how much less likely an answer may be, in nats a word, where the server gives log-probabilities
    golden_less_likely: Annotated[float, Field(ge=0, le=100)] = 0.5
    # a release that was taken back is not tried again by itself
    retry_failed: Switch = False
    # two at least: the one that serves, and the one to roll back to
    keep_releases: Annotated[int, whole(2, 50, "releases, one of them to roll back to,")] = 3

    @field_validator("shape")
    @classmethod
    def _a_known_shape(cls, value: str | None) -> str | None:
        if value is not None and value not in SHAPES:
            raise ValueError(expected(value))
        return value

    @field_validator("bind_address")
    @classmethod
    def _an_ip_address(cls, value: str) -> str:
        try:
            ipaddress.IPv4Address(value)
        except ValueError:
            raise ValueError("an IPv4 address of the host, such as 127.0.0.1") from None
        return value

    @field_validator("service_name")
    @classmethod
    def _not_a_transient_unit_s(cls, value: str) -> str:
        if value == "tritonhost" or value.startswith("tritonhost-"):
            raise ValueError("a name that does not begin as those of the transient units do, tritonhost-")
        if value in OTHERS_UNITS or value.startswith(("systemd-", "nvidia-", "docker", "containerd")):
            raise ValueError(
                "a name that is no unit of the distribution's, of docker or of NVIDIA, such as triton"
            )
        return value

    @field_validator("preflight_waived")
    @classmethod
    def _known_checks(cls, value: list[str]) -> list[str]:
        if unknown := [name for name in value if name not in WAIVABLE]:
            raise ValueError(
                f"names of checks that can be waived, and not {', '.join(unknown)}; known: {', '.join(WAIVABLE)}"
            )
        return value

    @field_validator("docker_daemon_settings")
    @classmethod
    def _without_runtimes(cls, value: dict[str, Any]) -> dict[str, Any]:
        # nvidia-ctk writes that key itself: the file would differ from the inventory in each run, and docker would restart
        if "runtimes" in value:
            raise ValueError(
                "settings without runtimes, which the NVIDIA container toolkit writes itself; remove that key"
            )
        return value

    @field_validator("gpu_ids")
    @classmethod
    def _distinct_gpus(cls, value: list[int] | str) -> list[int] | str:
        if isinstance(value, list) and (not value or len(set(value)) != len(value)):
            raise ValueError("at least one GPU index, each named once")
        return value

    @field_validator("extra_packages", "git_packages", "haproxy_packages")
    @classmethod
    def _packages_of_its_own(cls, value: dict[str, str | None]) -> dict[str, str | None]:
        for name in value:
            if why := refused_extra(name):
                raise ValueError(why)
        return value

    @field_validator("data_root")
    @classmethod
    def _a_directory_of_our_own(cls, value: str) -> str:
        levels = [level for level in value.split("/") if level not in ("", ".")]
        if ".." in levels or len(levels) < 2:
            raise ValueError("an absolute directory of at least two levels, such as /var/lib/tritonhost")
        if levels[0] in ("boot", "dev", "etc", "proc", "run", "sys", "tmp"):
            raise ValueError(
                f"a directory outside /{levels[0]}, on a disk that is kept, such as /var/lib/tritonhost"
            )
        return f"/{'/'.join(levels)}"

    @field_validator("egress")
    @classmethod
    def _no_metadata(cls, value: list[IPv4Network]) -> list[IPv4Network]:
        if any(network.subnet_of(LINK_LOCAL) for network in value):
            raise ValueError(
                f"networks outside {LINK_LOCAL}: the cloud's metadata holds the host's credentials"
            )
        return value

    @model_validator(mode="after")
    def _reached_by_somebody_declared(self) -> Settings:
        check_reach(self.bind_address, self.allowed_sources, self.expose)
        return self

    @model_validator(mode="after")
    def _monitoring_for_somebody_declared(self) -> Settings:
        if self.monitoring:
            self.monitoring.check_reach(self.bind_address, self.expose)
        if self.monitoring_server:
            self.monitoring_server.check(self.expose)
        if self.load_balancer:
            self.load_balancer.check(self.expose)
        if self.wave:
            self.wave.check()
        return self

    @model_validator(mode="after")
    def _channel_in_the_url(self) -> Settings:
        url = self.nvidia_container_toolkit_repository_url
        if self.nvidia_container_toolkit_channel != "stable" and "{channel}" not in url:
            raise complaint(
                "nvidia_container_toolkit_repository_url",
                url,
                "a URL with {channel} in it, because nvidia_container_toolkit_channel is "
                f'"{self.nvidia_container_toolkit_channel}"',
                reference="channel-not-in-url",
            )
        return self

    @model_validator(mode="after")
    def _measured_through_the_door(self) -> Settings:
        if self.bench_gate and self.door is None:
            raise complaint(
                "bench_gate",
                self.bench_gate,
                "door = {} too, through which a release is measured",
                then="write it beside, or take bench_gate out",
                reference="bench-without-door",
            )
        return self

    @model_validator(mode="after")
    def _ports_of_their_own(self) -> Settings:
        different_ports(self.http_port, self.grpc_port, self.metrics_port)
        return self

    @model_validator(mode="after")
    def _one_of_the_services(self) -> Settings:
        units = units_of(self.services)
        if self.services and self.service_name not in units.values():
            raise complaint(
                "services",
                sorted(units),
                "an entry of the inventory for each",
                then="the inventory passes its hosts through with_services, as inventories/oci.py does",
                reference="services-in-one-entry",
            )
        return self

    @property
    def serves(self) -> bool:
        """Whether the host serves a model."""
        return self.monitoring_server is None and self.load_balancer is None

    @property
    def state_root(self) -> str:
        """
        The directory of what a service keeps: links to its releases, its database, its gateway.

        Of a host with one service it is the data root. Artifacts are below the data root for all services.
        """
        if not self.services or self.at_data_root:
            return self.data_root
        return f"{self.data_root}/services/{self.service_name}"

    @property
    def to_data_root(self) -> str:
        """The way from there to the data root, as links have it: empty, or a relative path that ends in a slash."""
        return "" if self.state_root == self.data_root else "../../"

    @property
    def beside(self) -> tuple[str, ...]:
        """The units of the other services on the host."""
        return tuple(unit for unit in units_of(self.services).values() if unit != self.service_name)

    @property
    def server_bind_address(self) -> str:
        """Where Triton listens, or haproxy before it: behind a gateway on the host's loopback."""
        return "127.0.0.1" if self.gateway else self.bind_address


def from_host_data(
    data: Mapping[str, Any], host: str, origin_of: Callable[[str], Origin] = lambda key: NOWHERE
) -> Settings:
    """
    The settings of one host.

    + data: everything the inventory holds for it, `host.data.dict()`
    + host: its name, for the error
    + origin_of: where a key's value was written, as far as that is known, for the error

    Raises PlanError with the key, what was found and what is allowed.
    """

    def refused(key: str, found: object, expected: str, then: str, reference: str) -> PlanError:
        error = PlanError(key, found, expected, then, reference=reference)
        return error.placed(origin_of(key), host)

    for key, value in data.items():
        if TOKEN.search(text_of(value)):
            then = "export HF_TOKEN instead"
            raise refused(key, value, "no secret in an inventory", then, "secret-in-inventory")
        if key in ("ssh_password", "ssh_key_password"):
            then = "use ssh_key" if key == "ssh_password" else "use ssh-agent"
            raise refused(key, "a password", "no secret in an inventory", then, "secret-in-inventory")
        if key.startswith("ssh_") and key not in CONNECTOR_KEYS:
            then = suggestion(key, CONNECTOR_KEYS)
            raise refused(key, f"unknown key {key}", "a known key", then, "unknown-key")
    strict = data.get("ssh_strict_host_key_checking", "yes")
    if strict != "yes":
        then = "anything else is not allowed: add the host's key to known_hosts"
        raise refused("ssh_strict_host_key_checking", strict, "yes", then, "host-key-not-checked")
    port = data.get("ssh_port", 22)
    if type(port) is not int or not 1 <= port <= 65535:
        then = f"write {port} without quotes" if isinstance(port, str) and port.isdecimal() else ""
        raise refused("ssh_port", typed(port), "a whole number from 1 to 65535", then, "wrong-value")
    checks: tuple[tuple[str, Callable[[Any], None]], ...] = (
        ("profile_overrides", lambda value: check_plain(value, "", within=("profile_overrides",))),
        ("docker_daemon_settings", lambda value: check_plain(value, "", within=("docker_daemon_settings",))),
        ("docker_daemon_settings", lambda value: docker_settings.check(value, "docker_daemon_settings")),
        ("gateway", lambda value: check_paths(value, "gateway")),
        ("monitoring_server", lambda value: check_paths(value, "monitoring_server", SECRET_FILES)),
        ("load_balancer", lambda value: check_paths(value, "load_balancer", load_balancer_settings.FILES)),
        ("notifications", lambda value: check_webhooks(value, "notifications")),
    )
    for key, check in checks:
        if data.get(key) is not None:
            try:
                check(data[key])
            except PlanError as error:
                raise error.placed(origin_of(key), host) from None
    try:
        data = with_locked_digests(data)
    except PlanError as error:
        raise error.placed(host=host) from None
    own = {k: v for k, v in data.items() if not k.startswith("_") and k not in CONNECTOR_KEYS}
    own = without_model.kept(own, Settings.model_fields)
    try:
        return Settings.model_validate(own)
    except ValidationError as error:
        raise from_validation(error, Settings, lambda path: origin_of(str(path[0])), host) from None
