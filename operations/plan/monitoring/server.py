"""A monitoring server: what a host of the group `monitoring` runs, and everything that its programs read."""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from operations.plan.artifacts.artifact import ServingImage
from operations.plan.artifacts.images import monitoring_image
from operations.plan.artifacts.keys import digest, key_of
from operations.plan.errors import PlanError
from operations.plan.exposure import network
from operations.plan.exposure.host_program import HostProgram, limits, script_path, unit_path
from operations.plan.inventory.monitoring_server_settings import KEY, MonitoringServer
from operations.plan.inventory.settings import Settings
from operations.plan.machine.packages import DOCKER_ID, LOCK_PLUGIN, SELINUX_POLICY, for_os, only_repositories
from operations.plan.machine.version_locks import all_locks
from operations.plan.monitoring import site
from operations.plan.monitoring.prometheus import CA_FILE, KEY_FILE
from operations.plan.monitoring.site import Site
from operations.plan.monitoring.watched import JOBS, Watched

# of the units, the containers and the guard
NAME = "monitoring"
PROMETHEUS, ALERTMANAGER, GRAFANA = (f"{NAME}-{word}" for word in ("prometheus", "alertmanager", "grafana"))
SERVICES = (PROMETHEUS, ALERTMANAGER, GRAFANA)
VENDORS = (DOCKER_ID,)  # no GPU, and nothing of NVIDIA
# unused, as those of the exporters before them
PROMETHEUS_USER, ALERTMANAGER_USER, GRAFANA_USER = 60605, 60606, 60607
# where the programs find what they read
MOUNT = "/etc/tritonhost"
CURRENT = f"{MOUNT}/current"
ALERTS_FILE = "alertmanager.yml"
PASSWORD_FILE = "secrets/grafana-password"
CERTIFICATE_FILE, PRIVATE_KEY_FILE = "secrets/grafana.crt", "secrets/grafana.key"
ADMINISTRATOR = "admin"
# nothing is asked of a machine outside, and nobody makes an account
_GRAFANA_SETTINGS = {
    "GF_ANALYTICS_REPORTING_ENABLED": "false",
    "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
    "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
    "GF_PLUGINS_PREINSTALL_DISABLED": "true",
    "GF_NEWS_NEWS_FEED_ENABLED": "false",
    "GF_SECURITY_DISABLE_GRAVATAR": "true",
    "GF_USERS_ALLOW_SIGN_UP": "false",
    "GF_SNAPSHOTS_EXTERNAL_ENABLED": "false",
    # its page of metrics has no key
    "GF_METRICS_ENABLED": "false",
    "GF_PATHS_DATA": "/var/lib/grafana",
    "GF_PATHS_PROVISIONING": f"{CURRENT}/grafana/provisioning",
    "GF_LOG_MODE": "console",
    "GF_LOG_LEVEL": "warn",
}


@dataclass(frozen=True)
class Secrets:
    """
    What the machine that deploys has for a monitoring server; never printed.

    + password: of Grafana's user `admin`
    + certificate, private_key: Grafana's, PEM; empty: none
    + receivers: the site's alertmanager.yml; empty: none
    + gateway_key, gateway_ca: for the hosts behind a gateway; empty: none
    + warnings: what is to be known of the certificate
    """

    password: str = field(repr=False)
    certificate: str = field(default="", repr=False)
    private_key: str = field(default="", repr=False)
    receivers: str = field(default="", repr=False)
    gateway_key: str = field(default="", repr=False)
    gateway_ca: str = field(default="", repr=False)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReadFile:
    """
    A file that the programs read.

    + owner: the user that alone reads it; 0: everybody does
    """

    text: str = field(repr=False)
    owner: int = 0

    @property
    def mode(self) -> int:
        """Nobody writes to it."""
        return 0o400 if self.owner else 0o444


@dataclass(frozen=True)
class MonitoringPlan:
    """
    Everything that such a host should be.

    + selinux: docker confines containers
    + read: path below the directory of one configuration -> file
    + warnings: what is not watched, and why
    """

    settings: Settings
    os_major: str
    selinux: bool
    programs: tuple[HostProgram, ...]
    read: Mapping[str, ReadFile] = field(repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def own(self) -> MonitoringServer:
        """The inventory's table."""
        assert self.settings.monitoring_server
        return self.settings.monitoring_server

    @property
    def data_root(self) -> str:
        """Where all of it is."""
        return self.own.data_root

    @property
    def current(self) -> str:
        """The configuration that the programs read."""
        return f"{self.data_root}/config/current"

    @property
    def docker_settings(self) -> dict[str, Any]:
        """What daemon.json must have."""
        return {**({"selinux-enabled": True} if self.selinux else {}), **self.settings.docker_daemon_settings}

    @property
    def key(self) -> str:
        """
        The name of the configuration: the hash of its files, but of those with secrets only that they are there: everybody
        on the host reads it, and could try passwords.
        """
        said = {name: "" if file.owner else digest(file.text) for name, file in self.read.items()}
        return key_of({name: [text, self.read[name].owner] for name, text in said.items()})

    @property
    def images(self) -> tuple[ServingImage, ...]:
        """Those of the programs."""
        return tuple(program.image for program in self.programs)

    @property
    def guard(self) -> network.Guard:
        """Who reaches Grafana."""
        return network.Guard(
            service=NAME,
            ports=(),
            fronted=True,
            sources=(),
            egress=(),
            watched=(self.own.port,) if self.own.published else (),
            watchers=network.without_overlaps(self.own.sources),
        )

    @property
    def packages(self) -> dict[str, str | None]:
        """Docker at its versions, and what the guard and SELinux need at the distribution's."""
        return packages(self.settings, self.os_major)

    @property
    def locks(self) -> dict[str, str]:
        """Of those, the locks of dnf."""
        known = all_locks(self.settings, self.os_major)
        pinned = {name for name, version in self.packages.items() if version}
        return {name: line for name, line in known.items() if name in pinned or line.startswith("!")}

    @property
    def repositories(self) -> tuple[str, ...]:
        """dnf's options for the inventory's own repositories alone; none if it names none."""
        return only_repositories(self.settings, VENDORS)

    def archive(self) -> str:
        """The configuration as a tar archive in base64: owners and modes as they should be, and nothing that changes by the day."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for name in _directories(self.read):
                entry = tarfile.TarInfo(name)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
            for name, file in sorted(self.read.items()):
                entry = tarfile.TarInfo(name)
                content = file.text.encode()
                entry.size, entry.mode, entry.uid, entry.gid = len(content), file.mode, file.owner, file.owner
                tar.addfile(entry, io.BytesIO(content))
        return base64.encodebytes(packed.getvalue()).decode()


def _directories(files: Mapping[str, ReadFile]) -> list[str]:
    found = set()
    for name in files:
        parts = name.split("/")[:-1]
        found |= {"/".join(parts[: depth + 1]) for depth in range(len(parts))}
    return sorted(found)


def packages(settings: Settings, os_major: str) -> dict[str, str | None]:
    """See MonitoringPlan.packages."""
    own: dict[str, str | None] = {SELINUX_POLICY: None, "nftables": None}
    if settings.version_lock:
        own[LOCK_PLUGIN] = None
    wanted = {**own, **settings.docker_packages, **settings.extra_packages}
    return {name: for_os(version, os_major) if version else None for name, version in wanted.items()}


def images(settings: Settings) -> tuple[ServingImage, ...]:
    """Those of the programs. Raises PlanError for one without a digest."""
    own = settings.monitoring_server
    assert own
    named = (
        (PROMETHEUS, own.prometheus_image),
        (ALERTMANAGER, own.alertmanager_image),
        (GRAFANA, own.grafana_image),
    )
    return tuple(
        monitoring_image(settings, image, service.removeprefix(f"{NAME}-")) for service, image in named
    )


def users() -> dict[str, int]:
    """The directory of each program below the data root, and who alone writes there."""
    return {
        "prometheus": PROMETHEUS_USER,
        "alertmanager": ALERTMANAGER_USER,
        "grafana": GRAFANA_USER,
    }


def administered(data_root: str) -> str:
    """The file that says which password Grafana was proven to have."""
    return f"{data_root}/administered"


def read_names() -> list[str]:
    """The names of all files that a configuration may have."""
    secret = (ALERTS_FILE, PASSWORD_FILE, CERTIFICATE_FILE, PRIVATE_KEY_FILE, KEY_FILE, CA_FILE)
    return [*(name for name in site.files((), Site()) if name not in (site.EXAMPLE, site.COUNTERS)), *secret]


def etc_paths() -> list[str]:
    """Every file of ours outside the data root."""
    units = [unit_path(name) for name in SERVICES]
    guard = [f"/etc/systemd/system/{network.unit(NAME)}", network.rules_path(NAME)]
    return [*units, *map(script_path, SERVICES), *guard]


def planned(
    settings: Settings, os_major: str, selinux: bool, entries: Sequence[Watched], secrets: Secrets
) -> MonitoringPlan:
    """
    What a host of the group `monitoring` should be.

    + selinux: whether docker confines containers
    + entries: the hosts that it watches

    Raises PlanError for an image without a digest, and for gateways without a key.
    """
    own = settings.monitoring_server
    assert own
    _check_keys(own, entries)
    read = dict(_read(own, entries, secrets))
    programs = tuple(_programs(settings, own, selinux, read))
    remarks = [*secrets.warnings, *(remark for entry in entries for remark in entry.remarks)]
    if not secrets.receivers:
        remarks.append("nobody is told of an alert: it is only shown; set receivers")
    return MonitoringPlan(settings, os_major, selinux, programs, read, tuple(remarks))


def _check_keys(own: MonitoringServer, entries: Sequence[Watched]) -> None:
    """Who watches hosts behind a gateway has a key of it. Raises PlanError."""
    behind = [entry.host for entry in entries if any(JOBS[target.job].tls for target in entry.targets)]
    for name in ("gateway_key", "gateway_ca"):
        if behind and getattr(own, name) is None:
            what = (
                "a key of their gateways, of its own"
                if name == "gateway_key"
                else "the root of their certificates"
            )
            raise PlanError(
                f"{KEY}.{name}",
                f"nothing, and {behind[0]} is behind a gateway",
                f"a file of this machine with {what}",
                reference="no-gateway-key",
            )


def _read(
    own: MonitoringServer, entries: Sequence[Watched], secrets: Secrets
) -> Iterator[tuple[str, ReadFile]]:
    given = Site(
        prometheus=f"http://127.0.0.1:{own.prometheus_port}",
        alertmanager=f"127.0.0.1:{own.alertmanager_port}",
        remote_write=own.remote_write or "",
        **({"runbooks": own.runbooks} if own.runbooks else {}),
    )
    for name, text in site.files(entries, given, boards=f"{CURRENT}/grafana/dashboards").items():
        if name not in (site.EXAMPLE, site.COUNTERS):
            yield name, ReadFile(text)
    # it may hold passwords
    yield ALERTS_FILE, ReadFile(secrets.receivers or site.without_receivers(), ALERTMANAGER_USER)
    for name, text, owner in (
        (PASSWORD_FILE, secrets.password, GRAFANA_USER),
        (CERTIFICATE_FILE, secrets.certificate, GRAFANA_USER),
        (PRIVATE_KEY_FILE, secrets.private_key, GRAFANA_USER),
        (KEY_FILE, secrets.gateway_key, PROMETHEUS_USER),
        (CA_FILE, secrets.gateway_ca, PROMETHEUS_USER),
    ):
        if text:
            yield name, ReadFile(text, owner)


def _programs(
    settings: Settings, own: MonitoringServer, selinux: bool, read: Mapping[str, ReadFile]
) -> Iterator[HostProgram]:
    made = (_prometheus(own), _alertmanager(own), _grafana(own, read))
    for found, image, (directory, inside) in zip(made, images(settings), _DIRECTORIES, strict=True):
        label = ",z" if selinux else ""
        # the link `current` is followed in the container: it leads to the new configuration without another start
        volumes = (
            *("--volume", f"{own.data_root}/config:{MOUNT}:ro{label}"),
            *("--volume", f"{own.data_root}/{directory}:{inside}:rw{label}"),
        )
        common: dict[str, Any] = {
            "image": image,
            "image_record": image.record(own.data_root),
            "data_root": own.data_root,
            "options": (*found.pop("options"), *volumes),
        }
        yield HostProgram(**found, **common)


# of each program: its directory below the data root, and where it finds it
_DIRECTORIES = (
    ("prometheus", "/prometheus"),
    ("alertmanager", "/alertmanager"),
    ("grafana", "/var/lib/grafana"),
)


def _prometheus(own: MonitoringServer) -> dict[str, Any]:
    return {
        "service": PROMETHEUS,
        "title": "Prometheus",
        "address": "127.0.0.1",
        "port": own.prometheus_port,
        "arguments": (
            f"--config.file={CURRENT}/prometheus.yml",
            "--storage.tsdb.path=/prometheus",
            f"--storage.tsdb.retention.time={own.retention_days}d",
            f"--storage.tsdb.retention.size={own.retention_gib}GB",
            f"--web.listen-address=127.0.0.1:{own.prometheus_port}",
            "--log.level=warn",
        ),
        "options": (*limits(PROMETHEUS_USER, "4g", 1024), "--entrypoint", "/bin/prometheus"),
        "shows": {"prometheus_build_info": 1, "prometheus_config_last_reload_successful": 1},
    }


def _alertmanager(own: MonitoringServer) -> dict[str, Any]:
    return {
        "service": ALERTMANAGER,
        "title": "Alertmanager",
        "address": "127.0.0.1",
        "port": own.alertmanager_port,
        "arguments": (
            f"--config.file={CURRENT}/{ALERTS_FILE}",
            "--storage.path=/alertmanager",
            f"--web.listen-address=127.0.0.1:{own.alertmanager_port}",
            # one alone: nobody else is spoken to
            "--cluster.listen-address=",
            "--log.level=warn",
        ),
        "options": (*limits(ALERTMANAGER_USER, "512m", 256), "--entrypoint", "/bin/alertmanager"),
        "shows": {"alertmanager_build_info": 1, "alertmanager_config_last_reload_successful": 1},
    }


def _grafana(own: MonitoringServer, read: Mapping[str, ReadFile]) -> dict[str, Any]:
    environment = {
        **_GRAFANA_SETTINGS,
        "GF_SERVER_HTTP_ADDR": own.bind,
        "GF_SERVER_HTTP_PORT": str(own.port),
        "GF_SECURITY_ADMIN_USER": ADMINISTRATOR,
        # the first start alone reads it: files/host/grafana_password.sh sets a later one
        "GF_SECURITY_ADMIN_PASSWORD__FILE": f"{CURRENT}/{PASSWORD_FILE}",
    }
    if own.certificate:
        environment |= {
            "GF_SERVER_PROTOCOL": "https",
            "GF_SERVER_CERT_FILE": f"{CURRENT}/{CERTIFICATE_FILE}",
            "GF_SERVER_CERT_KEY": f"{CURRENT}/{PRIVATE_KEY_FILE}",
            "GF_SECURITY_COOKIE_SECURE": "true",
        }
    words = [word for key, value in environment.items() for word in ("--env", f"{key}={value}")]
    # it looks at the boards by itself, and a password is set while it runs
    at_start = {
        name: digest(file.text)
        for name, file in read.items()
        if name.startswith("grafana/provisioning/") or name in (CERTIFICATE_FILE, PRIVATE_KEY_FILE)
    }
    return {
        "service": GRAFANA,
        "title": "Grafana",
        "address": own.bind,
        "port": own.port,
        "arguments": (),
        "options": (*limits(GRAFANA_USER, "1g", 512), *words),
        "read": at_start,
        "scheme": "https" if own.certificate else "http",
        "page": "/api/health",
    }
