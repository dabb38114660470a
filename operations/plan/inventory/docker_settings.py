"""docker's settings, of the inventory's `docker_daemon_settings` and of a host's own daemon.json, against the table of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from operations.plan.catalog.docker_daemon import KINDS, SETTINGS, Settings, Verdict
from operations.plan.errors import PlanError, shown

INVENTORY = "docker_daemon_settings"


@dataclass(frozen=True)
class Finding:
    """A setting that is refused or causes a warning; `key` with the file or key that has it."""

    key: str
    found: object
    verdict: Verdict
    expected: str
    why: str

    @property
    def error(self) -> PlanError:
        """The same as the line a plan ends in."""
        return PlanError(self.key, self.found, self.expected, self.why)

    @property
    def line(self) -> str:
        """The same as a warning."""
        return str(self.error)


_IGNORED = "docker takes that for an option of its command line and ignores it in its file"


def check(settings: Any, where: str) -> None:
    """
    Refuse the inventory's settings that are certainly wrong, before any host is contacted.

    + where: its key, for the error

    Raises PlanError. `runtimes` is left to operations/plan/inventory/settings.py.
    """
    if not isinstance(settings, Mapping):
        return  # the settings' own validation refuses it
    for key, value in settings.items():
        at = f"{where}: {key}"
        if key in FLAGS:
            raise PlanError(at, shown(value), f"the name {FLAGS[key]}", _IGNORED)
        if not re.fullmatch(r"[a-z][a-z0-9-]*", str(key)):
            then = f"no name of docker's is written so; {_nearest(str(key).lower().replace('_', '-'))}"
            raise PlanError(where, key, "names of small letters, digits and hyphens", then.removesuffix("; "))
        if key == "hosts":
            then = "docker's own unit says -H, and docker does not start with both; add a drop-in to docker.service"
            raise PlanError(at, value, "no sockets here", then)
    own = {key: value for key, value in settings.items() if key != "runtimes"}
    for found in judged(own, where, alone=True):
        if found.verdict == "refused":
            raise found.error


def _nearest(key: str) -> str:
    near = get_close_matches(key, SETTINGS, n=1, cutoff=0.8) if len(key) < 80 else []
    return f"the nearest that is known is {near[0]}" if near else ""


def unknown(settings: Settings) -> tuple[str, ...]:
    """A warning for each of the inventory's settings that the table lacks: docker validates it on the host."""
    lines = []
    for key, value in settings.items():
        if key not in SETTINGS:
            then = "; ".join(filter(None, (_nearest(key), "docker is asked before its file is replaced")))
            lines.append(str(PlanError(f"{INVENTORY}: {key}", value, "a setting that is known here", then)))
    return tuple(lines)


def judged(settings: Settings, where: str, alone: bool = False) -> Iterator[Finding]:
    """
    The settings that are refused or cause a warning, in the table's order.

    + settings: all of them, as docker reads them
    + where: the file or the key that holds them
    + alone: a host's own file may have others
    """
    for key, known in SETTINGS.items():
        value = settings.get(key)
        if value is None:
            continue
        wanted, fits = KINDS[known.kind]
        if not fits(value):
            yield Finding(f"{where}: {key}", value, "refused", wanted, "docker does not start with it")
            continue
        # the first rule that holds
        rules = (rule for rule in known.rules if rule.alone or not alone)
        broken = next((rule for rule in rules if rule.when(value, settings)), None)
        if broken:
            yield Finding(f"{where}: {key}", value, broken.verdict, broken.expected, broken.why)
    for key, name in FLAGS.items():
        if key in settings:
            yield Finding(f"{where}: {key}", settings[key], "warning", f"the name {name}", _IGNORED)


# Options of dockerd's command line that have another name in the file. docker does not report such a name as unknown: it
# starts without the setting (findConfigurationConflicts of moby's daemon/config/config.go; seen with 20.10.24).
FLAGS: Mapping[str, str] = {
    "registry-mirror": "registry-mirrors",
    "insecure-registry": "insecure-registries",
    "host": "hosts",
    "label": "labels",
    "log-opt": "log-opts",
    "exec-opt": "exec-opts",
    "storage-opt": "storage-opts",
    "dns-opt": "dns-opts",
    "default-ulimit": "default-ulimits",
    "default-address-pool": "default-address-pools",
    "default-network-opt": "default-network-opts",
    "authorization-plugin": "authorization-plugins",
    "node-generic-resource": "node-generic-resources",
    "cdi-spec-dir": "cdi-spec-dirs",
    "feature": "features",
    "add-runtime": "runtimes",
    "http-proxy": "proxies",
    "https-proxy": "proxies",
    "no-proxy": "proxies",
}
