"""What files/host/exposure.sh prints on a host that serves."""

from __future__ import annotations

import json

from tests.unit.builders import release

SECTION, PART = "\x1e", "\x1f"
RELEASE = release().document()
PACKAGES = [
    "docker-ce\t3:29.9.0-1.el9",
    "containerd.io\t0:2.2.6-1.el9",
    "nvidia-container-toolkit\t0:1.20.0-1",
    "package haproxy is not installed",
]


def output(**changed: list[str]) -> list[str]:
    """What the script prints on a host that serves."""
    parts = {
        "packages": PACKAGES,
        "driver": ["580.178.04", "580.178.04"],
        "engine": ["29.9.0"],
        "containers": [f"{PART}triton", f"{PART}triton-gateway", "NGINX_VERSION=1.30.7"],
        "release": [json.dumps(RELEASE)],
        "end": [],
    }
    return [line for name, lines in {**parts, **changed}.items() for line in (f"{SECTION}{name}", *lines)]
