"""A host's own /etc/docker/daemon.json together with what the inventory adds to it: what is refused there."""

from __future__ import annotations

from operations.plan.catalog.docker_daemon import Settings
from operations.plan.errors import PlanError, shown
from operations.plan.inventory.docker_settings import INVENTORY, Finding, judged
from operations.plan.machine import daemon_json

DEFAULT_ROOT = "/var/lib/docker"


def of_host(text: str, wanted: Settings) -> list[Finding]:
    """
    What docker would read on a host that is refused or causes a warning, each with the file or key that has it.

    + text: the host's own daemon.json; if it is not JSON, the merge refuses it
    + wanted: what the inventory adds to it
    """
    try:
        own = daemon_json.parse(text)
    except PlanError:
        return []
    found = list(judged({**own, **wanted}, ""))
    return [
        Finding(f"{_place(each.key, wanted)}{each.key}", each.found, each.verdict, each.expected, each.why)
        for each in found
    ]


def _place(key: str, wanted: Settings) -> str:
    return INVENTORY if key.removeprefix(": ") in wanted else daemon_json.PATH


def check_host(text: str, wanted: Settings, data_root: str, serves: bool) -> None:
    """
    Refuse a host if a release cannot run in its docker, or if docker would lose what runs there.

    + text: the host's own daemon.json
    + wanted: what the inventory adds to it
    + data_root: where the artifacts are
    + serves: whether a server of ours runs on it

    Raises PlanError.
    """
    for found in of_host(text, wanted):
        if found.verdict == "refused":
            raise found.error
    try:
        own = daemon_json.parse(text)
    except PlanError:
        return
    root = root_of(text, wanted)
    if root.rstrip("/") == data_root.rstrip("/"):
        at = f"{_place('data-root', wanted)}: data-root"
        raise PlanError(
            at, root, f"another directory than data_root, {data_root}", "docker closes its own to others"
        )
    if serves and (kept := _moved(own, {**own, **wanted})):
        key, before, after = kept
        raise PlanError(
            f"{INVENTORY}: {key}",
            after,
            f"{shown(before)} while the host serves",
            "docker has none of its images with another, and the server would not start again; stop it first "
            "(systemctl stop of its unit), and run again, which makes the images again",
        )


def _moved(own: Settings, merged: Settings) -> tuple[str, object, object] | None:
    """The setting that moves docker's images, with its old and its new value."""
    before, after = (str(each.get("data-root") or DEFAULT_ROOT).rstrip("/") for each in (own, merged))
    if before != after:
        return "data-root", before, after
    # only if the file says it: what docker has chosen by itself is not known
    if own.get("storage-driver") and own["storage-driver"] != merged.get("storage-driver"):
        return "storage-driver", own["storage-driver"], merged.get("storage-driver")
    stores = [
        features.get("containerd-snapshotter")
        for features in (own.get("features"), merged.get("features"))
        if isinstance(features, dict)
    ]
    if len(stores) == 2 and None not in stores and stores[0] != stores[1]:
        return "features", own["features"], merged["features"]
    return None


def root_of(text: str, wanted: Settings) -> str:
    """docker's data directory, from its file and the inventory; its default otherwise."""
    try:
        merged = {**daemon_json.parse(text), **wanted}
    except PlanError:
        merged = dict(wanted)
    root = merged.get("data-root")
    return root if isinstance(root, str) and root.startswith("/") else DEFAULT_ROOT
