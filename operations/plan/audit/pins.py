"""What to set in an inventory or a profile so that nothing is exposed any more. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from operations.plan.audit.bulletins import Feed
from operations.plan.audit.exposed import EXPOSED, Finding, entries_with, highest_fix, is_exposed
from operations.plan.audit.fleet import Entry, Fleet
from operations.plan.catalog.support_matrix import PLAIN_RELEASES, RELEASES, StackRelease, built
from operations.plan.catalog.version_floors import PLAIN_MAY_BE_NEWER, package_components
from operations.plan.errors import PlanError
from operations.plan.inventory import gateway_settings
from operations.plan.planning import FIRST_LLMAPI_VERSION, LAST_ENGINE_VERSION

STACK = ("triton", "tensorrt-llm", "tensorrt")
DEPLOY = "the inventory has it already: tritonhost deploy"
RESTART = "it is installed: start docker again"
_PACKAGES = {
    "docker_packages": ("docker-ce", "containerd.io"),
    "nvidia_container_toolkit_packages": ("nvidia-container-toolkit",),
}
Pins = Mapping[str, Mapping[str, str | None]]


@dataclass(frozen=True)
class Proposal:
    """
    + key: of a profile or of the inventory; empty: it is no setting of this tool
    + value: what to set; None: it has to be found out, and `note` says how
    + place: the file that has the key
    """

    components: tuple[str, ...]
    key: str
    value: Any
    place: str
    hosts: tuple[str, ...]
    note: str

    @property
    def there(self) -> bool:
        """Whether the inventory has the value already, and the host does not yet."""
        return self.note in (DEPLOY, RESTART)


def proposals(
    fleet: Fleet, findings: Sequence[Finding], feed: Feed, pins: Pins, today: date
) -> list[Proposal]:
    """
    What closes the findings that are exposed; the same change of several hosts once.

    + pins: docker_packages and nvidia_container_toolkit_packages as this version ships them
    """
    found = [
        *_of_profiles(fleet, findings, feed, today),
        *_of_packages(fleet, findings, feed, pins, today),
        *_of_gateways(fleet, findings, feed, today),
        *_of_drivers(findings),
    ]
    merged: dict[str, Proposal] = {}
    for one in found:
        key = repr((one.components, one.key, one.value, one.place, one.note))
        hosts = (*merged[key].hosts, *one.hosts) if key in merged else one.hosts
        merged[key] = Proposal(
            one.components, one.key, one.value, one.place, tuple(dict.fromkeys(hosts)), one.note
        )
    return list(merged.values())


# --- the image of a profile


def _of_profiles(fleet: Fleet, findings: Sequence[Finding], feed: Feed, today: date) -> Iterator[Proposal]:
    for entry in entries_with(fleet, findings, STACK):
        exposed = {
            one.component: None
            for one in findings
            if one.status == EXPOSED and one.host == entry.host and one.component in STACK
        }
        value, note = _release(entry, feed, today)
        place = f"inventories/models/{entry.wanted.model}.toml" if entry.wanted.model else "the profile"
        yield Proposal(tuple(exposed), "image.release", value, place, (entry.host,), note)


def _release(entry: Entry, feed: Feed, today: date) -> tuple[str | None, str]:
    """The least release from that of the host on with which nothing is exposed."""
    wanted = entry.wanted
    rows = dict(_candidates(wanted.kind, wanted.source))
    runs = min((one.version for one in entry.components if one.component == "triton"), default="")
    for release, components in sorted(rows.items()):
        if release < max(runs, wanted.image_release) or is_exposed(components, feed, today):
            continue
        if release == wanted.image_release:
            return release, DEPLOY
        return release, "then its digest: tritonhost lock"
    return (
        None,
        "no release that is known closes it: see tritonhost currency, or accept it for a while with a waiver",
    )


def _candidates(kind: str, source: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Each release that a profile of a kind can name, with what it would serve with."""
    if kind == "plan":
        for name, row in (RELEASES | PLAIN_RELEASES).items():
            known = name in PLAIN_RELEASES or name < PLAIN_MAY_BE_NEWER
            yield name, _components(row, tensorrt=known, llm=False)
        return
    for name, row in RELEASES.items():
        if kind == "engine" and row.version[:2] > LAST_ENGINE_VERSION:
            continue
        if kind == "llmapi" and row.version < FIRST_LLMAPI_VERSION:
            continue
        try:
            yield name, _components(built(row, None) if source == "build" else row)
        except PlanError:  # of a release that cannot be built
            continue


def _components(row: StackRelease, tensorrt: bool = True, llm: bool = True) -> list[tuple[str, str]]:
    found = [("triton", row.triton_release)]
    if llm:
        found.append(("tensorrt-llm", row.tensorrt_llm))
    if tensorrt and row.tensorrt:
        found.append(("tensorrt", row.tensorrt))
    return found


# --- packages, the gateway, the driver


def _of_packages(
    fleet: Fleet, findings: Sequence[Finding], feed: Feed, pins: Pins, today: date
) -> Iterator[Proposal]:
    for key, components in _PACKAGES.items():
        for entry in entries_with(fleet, findings, components):
            exposed = [
                one
                for one in findings
                if one.status == EXPOSED and one.component in components and one.host == entry.machine
            ]
            names = tuple(dict.fromkeys(one.component for one in exposed))
            wanted: Mapping[str, str | None] = getattr(entry.wanted, key)
            shipped = pins.get(key, {})
            value: Mapping[str, str | None] | None = None
            if wanted and not is_exposed(package_components(wanted), feed, today):
                running = any(one.where == "running" for one in exposed)
                value, note = wanted, RESTART if running else DEPLOY
            elif shipped and not is_exposed(package_components(shipped), feed, today):
                value, note = shipped, "these are the pins of this version"
            else:
                note = f"a version with {highest_fix(exposed)}: tritonhost lock --check says what the repository has"
            yield Proposal(
                names, key, dict(value) if value else None, "inventories/group_data", (entry.machine,), note
            )


def _of_gateways(fleet: Fleet, findings: Sequence[Finding], feed: Feed, today: date) -> Iterator[Proposal]:
    for entry in entries_with(fleet, findings, ("nginx",)):
        named = entry.wanted.gateway_image
        value, note = gateway_settings.IMAGE, "then its digest: tritonhost lock"
        if named and not is_exposed([("nginx", gateway_settings.version(named))], feed, today):
            value, note = named, DEPLOY
        elif is_exposed([("nginx", gateway_settings.version(value))], feed, today):
            yield Proposal(
                ("nginx",), "gateway.image", None, "inventories/group_data", (entry.host,), "a newer one"
            )
            continue
        yield Proposal(("nginx",), "gateway.image", value, "inventories/group_data", (entry.host,), note)


def _of_drivers(findings: Sequence[Finding]) -> Iterator[Proposal]:
    by_host: dict[str, list[Finding]] = {}
    for one in findings:
        if one.status == EXPOSED and one.component == "driver":
            by_host.setdefault(one.host, []).append(one)
    for host, exposed in by_host.items():
        note = f"the operator's: install {highest_fix(exposed)} or later and boot the host (docs/how-to/driver.md)"
        yield Proposal(("driver",), "", None, "", (host,), note)
