"""docker's settings: the type of each, and which values are refused or cause a warning on a host of ours.

Types and names: daemon/config/config.go, config_linux.go and daemon/command/config.go of moby/moby at 29. A name that is not in
the table may belong to a newer docker: docker itself validates it before its file is replaced (files/host/configure_docker.sh).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

Settings = Mapping[str, Any]
Verdict = Literal["refused", "warning"]


@dataclass(frozen=True)
class Rule:
    """
    When a value is refused or causes a warning.

    + when: a condition on the value and on all settings
    + expected, why: for the line that reports it
    + alone: it applies whatever else a host's own file has
    """

    when: Callable[[Any, Settings], bool]
    verdict: Verdict
    expected: str
    why: str
    alone: bool = True


@dataclass(frozen=True)
class Setting:
    """
    One of docker's settings.

    + kind: the type of its value, a key of KINDS
    + rules: which values are refused or cause a warning
    + fine: why every other value is fine
    """

    kind: str
    fine: str
    rules: tuple[Rule, ...] = ()


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _text_table(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _mirrors(value: Any) -> bool:
    return _texts(value) and all(
        urlsplit(url).scheme in ("http", "https") and urlsplit(url).netloc for url in value
    )


def _whole(value: Any) -> bool:
    return type(value) is int


# kind -> what it must be, and whether a value is that
KINDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "switch": ("true or false", lambda value: isinstance(value, bool)),
    "number": ("a whole number", _whole),
    "text": ("text", lambda value: isinstance(value, str)),
    "texts": ("a list of text", _texts),
    "mirrors": ("a list of URLs such as https://mirror.example", _mirrors),
    "text table": ('a table of text, numbers in quotes: {"max-size": "10m", "max-file": "3"}', _text_table),
    "switches": (
        "a table of true and false",
        lambda value: isinstance(value, dict) and all(isinstance(item, bool) for item in value.values()),
    ),
    "table": ("a table", lambda value: isinstance(value, dict)),
    "tables": (
        'a list of tables such as {"base": "10.200.0.0/16", "size": 24}',
        lambda value: isinstance(value, list) and all(isinstance(item, dict) for item in value),
    ),
    "tables by name": (
        "a table of tables",
        lambda value: isinstance(value, dict) and all(isinstance(item, dict) for item in value.values()),
    ),
    "level": (
        "debug, info, warn, error or fatal",
        lambda value: (
            isinstance(value, str)
            and value.lower() in ("trace", "debug", "info", "warn", "error", "fatal", "panic")
        ),
    ),
    # text or a number, by docker's version
    "size": ('a size such as "64m"', lambda value: isinstance(value, str) or _whole(value)),
}


def _is(*values: Any) -> Callable[[Any, Settings], bool]:
    """Equal and of the same type: Python's 0 is its False."""
    return lambda value, _: any(type(value) is type(v) and value == v for v in values)


def _cgroup_driver(settings: Settings) -> str:
    """The driver that exec-opts names; empty if docker chooses."""
    options = settings.get("exec-opts")
    words = [str(word) for word in options] if isinstance(options, list) else []
    pairs = (word.partition("=") for word in words)
    return next((value.strip() for key, _, value in pairs if key.strip() == "native.cgroupdriver"), "")


def _unknown_runtime(value: Any, settings: Settings) -> bool:
    # nvidia: nvidia-ctk adds it; with a dot: a shim of containerd, which this file does not define
    runtimes = settings.get("runtimes")
    known = {"runc", "nvidia", *(runtimes if isinstance(runtimes, dict) else ())}
    return isinstance(value, str) and value != "" and "." not in value and value not in known


def _gateway_mode(value: Any, _: Settings) -> bool:
    bridge = value.get("bridge") if isinstance(value, dict) else None
    mode = bridge.get("com.docker.network.bridge.gateway_mode_ipv4") if isinstance(bridge, dict) else None
    return mode in ("routed", "isolated")


def _hosts(value: Any) -> list[str]:
    return [str(host) for host in value] if isinstance(value, list) else []


_LOCAL = ("fd://", "unix:///var/run/docker.sock", "unix:///run/docker.sock")
_OWN_BRIDGE = "it is about docker's own bridge, which no container of ours is on"
_CONTAINERS_NAME_IT = "our containers name their own"
_LOG_DRIVERS = ("json-file", "local", "journald", "none", "syslog", "")
SETTINGS: Mapping[str, Setting] = {
    # what is refused
    "userns-remap": Setting(
        "text",
        "empty: nobody is mapped",
        (
            Rule(
                lambda value, _: bool(value),
                "refused",
                "no user namespaces",
                "containers on the host's network, which download and build, do not start with them, and none can read "
                "its mounts; remove the setting and restart docker, or use another host",
            ),
        ),
    ),
    "hosts": Setting(
        "texts",
        "docker's own unit names them, and a host whose unit does not has them here",
        (
            Rule(
                lambda value, _: bool(_hosts(value)) and not any(host in _LOCAL for host in _hosts(value)),
                "refused",
                "unix:///var/run/docker.sock among them",
                "the docker command of this host has no other way to it; add it and restart docker",
            ),
            Rule(
                lambda value, settings: (
                    settings.get("tlsverify") is not True
                    and any(host.startswith("tcp://") for host in _hosts(value))
                ),
                "warning",
                "sockets of the host alone, or tlsverify",
                "any client that reaches that port is root on this host",
            ),
        ),
    ),
    "storage-driver": Setting(
        "text",
        "docker refuses what the kernel or the file system does not have, and its old file comes back",
        (
            Rule(
                _is("devicemapper", "aufs", "overlay"),
                "refused",
                "overlay2, or none named",
                "docker has not had it since 25.0, and does not start with it",
            ),
            Rule(
                _is("vfs"),
                "warning",
                "overlay2, or none named",
                "each layer of an image is a whole copy: a serving image of 20 GiB takes many times that",
            ),
        ),
    ),
    "default-runtime": Setting(
        "text",
        "runc is docker's own default",
        (
            Rule(
                _unknown_runtime,
                "refused",
                "runc, or one that runtimes names",
                "docker does not start with one it does not know; take it out, or declare it on the host",
                alone=False,
            ),
            Rule(
                lambda value, _: value not in ("runc", "io.containerd.runc.v2", ""),
                "warning",
                "runc",
                "every container that names no runtime is run by it: with nvidia, those of NVIDIA's images see all GPUs",
            ),
        ),
    ),
    "exec-opts": Setting(
        "texts",
        "either driver runs containers with GPUs",
        (
            Rule(
                lambda _, settings: _cgroup_driver(settings) not in ("", "systemd", "cgroupfs"),
                "refused",
                "native.cgroupdriver=systemd or cgroupfs",
                "docker does not start with another",
            ),
        ),
    ),
    "cgroup-parent": Setting(
        "text",
        "empty: docker's own",
        (
            Rule(
                lambda value, settings: (
                    bool(value)
                    and not str(value).endswith(".slice")
                    and _cgroup_driver(settings) == "systemd"
                ),
                "refused",
                "a name that ends in .slice",
                "docker does not start with another while systemd manages its groups",
            ),
            Rule(
                lambda value, _: bool(value),
                "warning",
                "none",
                "its limits of memory and processes hold for the server and for what builds its engine",
            ),
        ),
    ),
    "default-network-opts": Setting(
        "tables by name",
        "the server's network names what it needs of its bridge",
        (
            Rule(
                _gateway_mode,
                "refused",
                "gateway_mode_ipv4 nat, or none named",
                "docker publishes no port of the server's network otherwise",
            ),
        ),
    ),
    "data-root": Setting(
        "text",
        "the preflight measures what is free there",
        (
            Rule(
                lambda value, _: isinstance(value, str) and not value.startswith("/"),
                "refused",
                "an absolute path",
                "docker would take it from wherever it was started",
            ),
        ),
    ),
    # warnings
    "iptables": Setting(
        "switch",
        "true is docker's default",
        (
            Rule(
                lambda value, settings: value is False and settings.get("userland-proxy") is False,
                "refused",
                "one of iptables and userland-proxy",
                "without both, clients cannot reach a port that docker publishes",
            ),
            Rule(
                _is(False),
                "warning",
                "true",
                "only docker-proxy publishes ports: the server sees the host's address instead of its clients', and answers to "
                "what egress allows do not come back",
            ),
        ),
    ),
    "bridge": Setting(
        "text",
        _OWN_BRIDGE,
        (
            Rule(
                _is("none"),
                "warning",
                "docker's own bridge",
                "our containers name their networks; others of this host, and docker build by hand, have none without it",
            ),
        ),
    ),
    "ip-forward": Setting(
        "switch",
        "true is docker's default",
        (
            Rule(
                _is(False),
                "warning",
                "true",
                "a published port is forwarded only while net.ipv4.ip_forward is 1, which docker does not set then",
            ),
        ),
    ),
    "firewall-backend": Setting(
        "text",
        "iptables is docker's default",
        (
            Rule(
                _is("nftables"),
                "warning",
                "iptables",
                "docker does not set net.ipv4.ip_forward then, and tritonhost was not tried with it",
            ),
        ),
    ),
    "log-driver": Setting(
        "text",
        "the server's container has none, and its output goes to the journal",
        (
            Rule(
                lambda value, _: value not in _LOG_DRIVERS,
                "warning",
                "json-file, local, journald, syslog or none",
                "containers that build do not start while its receiver is away",
            ),
        ),
    ),
    "authorization-plugins": Setting(
        "texts",
        "none",
        (
            Rule(
                lambda value, _: bool(value),
                "warning",
                "none",
                "a plugin may refuse what a deploy or the service asks of docker",
            ),
        ),
    ),
    "seccomp-profile": Setting(
        "text",
        "a profile of the site's own holds for our containers, too",
        (Rule(_is("unconfined"), "warning", "docker's own", "containers may make every call of the kernel"),),
    ),
    "features": Setting(
        "switches",
        "our builds ask for BuildKit themselves, and GPUs come by the nvidia runtime",
        (
            Rule(
                lambda value, _: isinstance(value, dict) and value.get("containerd-snapshotter") is True,
                "warning",
                '{"containerd-snapshotter": false}',
                "images are kept under /var/lib/containerd, and the preflight measures docker's data-root",
            ),
        ),
    ),
    # every value is fine
    "selinux-enabled": Setting("switch", "set to true where the host has SELinux, unless the inventory says"),
    "no-new-privileges": Setting("switch", "our containers ask for it themselves"),
    "live-restore": Setting("switch", "systemd stops the server before docker, and starts it after it"),
    "icc": Setting("switch", _OWN_BRIDGE),
    "ip-masq": Setting("switch", _OWN_BRIDGE),
    "bip": Setting("text", _OWN_BRIDGE),
    "bip6": Setting("text", _OWN_BRIDGE),
    "fixed-cidr": Setting("text", _OWN_BRIDGE),
    "fixed-cidr-v6": Setting("text", _OWN_BRIDGE),
    "mtu": Setting("number", _OWN_BRIDGE),
    "default-gateway": Setting("text", _OWN_BRIDGE),
    "default-gateway-v6": Setting("text", _OWN_BRIDGE),
    "ipv6": Setting("switch", _OWN_BRIDGE),
    "ip": Setting("text", "our ports are published on an address that is named"),
    "ip6tables": Setting("switch", "our ports are published on IPv4"),
    "ip-forward-no-drop": Setting("switch", "the guard judges what is forwarded to the server"),
    "allow-direct-routing": Setting("switch", "the guard admits only what docker published"),
    "bridge-accept-fwmark": Setting("text", "the guard judges what is forwarded to the server"),
    "userland-proxy": Setting(
        "switch", "false: the guard knows the loopback's way; with iptables false refused there"
    ),
    "userland-proxy-path": Setting("text", "docker tries it before its file is replaced"),
    "default-address-pools": Setting("tables", "the server's network is taken from them"),
    "network-control-plane-mtu": Setting("number", "of swarm"),
    "log-opts": Setting("text table", "of the log driver"),
    "log-level": Setting("level", "of docker's own log"),
    "log-format": Setting("text", "of docker's own log"),
    "raw-logs": Setting("switch", "of docker's own log"),
    "debug": Setting("switch", "of docker's own log"),
    "labels": Setting("texts", "nothing of ours reads them"),
    "registry-mirrors": Setting("mirrors", "of Docker Hub, by the digests that are pinned"),
    "insecure-registries": Setting("texts", "images are pulled by the digests that are pinned"),
    "allow-nondistributable-artifacts": Setting("texts", "nothing of ours is pushed"),
    "max-concurrent-downloads": Setting("number", "of pulls"),
    "max-concurrent-uploads": Setting("number", "nothing of ours is pushed"),
    "max-download-attempts": Setting("number", "of pulls"),
    "proxies": Setting("text table", "of pulls"),
    "dns": Setting(
        "texts", "the server resolves no names, and other containers have the host's network or none"
    ),
    "dns-opts": Setting("texts", "as dns"),
    "dns-search": Setting("texts", "as dns"),
    "resolv-conf": Setting("text", "as dns"),
    "host-gateway-ip": Setting("text", "nothing of ours uses that name"),
    "host-gateway-ips": Setting("texts", "nothing of ours uses that name"),
    "default-ulimits": Setting("tables by name", _CONTAINERS_NAME_IT),
    "default-shm-size": Setting("size", _CONTAINERS_NAME_IT),
    "default-ipc-mode": Setting("text", _CONTAINERS_NAME_IT),
    "default-cgroupns-mode": Setting("text", "nothing of ours looks at its groups"),
    "init": Setting("switch", _CONTAINERS_NAME_IT),
    "init-path": Setting("text", "docker's own program as a rule"),
    "default-init": Setting("text", "docker's own program as a rule"),
    "shutdown-timeout": Setting("number", "systemd has stopped the server before docker"),
    "storage-opts": Setting("texts", "docker refuses those it does not know, and its old file comes back"),
    "exec-root": Setting("text", "nothing of ours looks there"),
    "pidfile": Setting("text", "nothing of ours looks there"),
    "group": Setting("text", "root asks docker, and needs no group"),
    "containerd": Setting("text", "docker refuses it beside its unit's own, and its file is left as it is"),
    "containerd-namespace": Setting("text", "nothing of ours asks containerd"),
    "containerd-plugin-namespace": Setting("text", "nothing of ours asks containerd"),
    "cri-containerd": Setting("switch", "nothing of ours asks containerd"),
    "cdi-spec-dirs": Setting("texts", "GPUs come by the nvidia runtime"),
    "cpu-rt-period": Setting("number", "no container of ours is a real-time one"),
    "cpu-rt-runtime": Setting("number", "no container of ours is a real-time one"),
    "tls": Setting("switch", "of sockets on the network, which hosts is judged by"),
    "tlsverify": Setting("switch", "of sockets on the network, which hosts is judged by"),
    "tlscacert": Setting("text", "of sockets on the network"),
    "tlscert": Setting("text", "of sockets on the network"),
    "tlskey": Setting("text", "of sockets on the network"),
    "metrics-addr": Setting("text", "docker's own figures"),
    "network-diagnostic-port": Setting("number", "docker's own figures"),
    "experimental": Setting("switch", "nothing of ours needs it, or is changed by it"),
    "builder": Setting("table", "how much docker keeps of builds"),
    "node-generic-resources": Setting("texts", "of swarm"),
    "swarm-default-advertise-addr": Setting("text", "of swarm"),
    "swarm-raft-heartbeat-tick": Setting("number", "of swarm"),
    "swarm-raft-election-tick": Setting("number", "of swarm"),
    "runtimes": Setting("tables by name", "nvidia-ctk adds its own, and others stay"),
}
