"""lab.json and known_hosts: what other programs read about the running lab."""

import json
import os
from pathlib import Path
from typing import Any

from tests.lab import host
from tests.lab.settings import Settings


def _write(path: Path, text: str) -> None:
    """Readers see the old file or the new one, never half of one."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(text)
    os.replace(fresh, path)


def write_known_hosts(settings: Settings) -> None:
    """The host key of every host, for strict checking."""
    lines = [
        f"{found.address} {(found.folder / 'host_key.pub').read_text()}" for found in host.existing(settings)
    ]
    _write(settings.known_hosts, "".join(lines))


def read(settings: Settings) -> dict[str, Any]:
    """lab.json, or an empty record if no lab is up."""
    try:
        content: dict[str, Any] = json.loads(settings.record.read_text())
    except FileNotFoundError:
        return {}
    return content


def write(
    settings: Settings,
    fingerprints: dict[str, str],
    git: dict[str, Any],
    models: dict[str, Any],
    images: dict[str, str],
) -> None:
    """Write lab.json: the hosts, how to reach them, and the mirror's content."""
    record = {
        "os_major": settings.os_major,
        "gpus": settings.gpus,
        "hosts": [{"name": found.name, "address": found.address} for found in host.existing(settings)],
        "ssh_user": "opc",
        "ssh_key": str(settings.ssh_key),
        "known_hosts": str(settings.known_hosts),
        "mirror": {"http": settings.mirror, "hub": settings.hub, "registry": settings.registry},
        "gpg_fingerprints": fingerprints,
        "git": git,
        "images": images,
        "models": models,
    }
    _write(settings.record, json.dumps(record, indent=2) + "\n")
