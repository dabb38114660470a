"""What files/host/probe.sh prints on a host, as lines."""

from __future__ import annotations

import json
from collections.abc import Mapping

from operations.plan.observed.observed import Observed
from operations.plan.release import Release

SECTION, PART = "\x1e", "\x1f"

NAMES = (
    "os-release",
    "architecture",
    "kernel",
    "packages",
    "files",
    "version-locks",
    "daemon-json",
    "image-records",
    "owners",
    "manifests",
    "sizes",
    "links",
    "verdicts",
    "measurements",
    "listening",
    "release-files",
    "inodes",
    "root",
    "data-root",
    "local-disks",
    "resources",
    "door",
    "exporters",
    "gateway",
    "gateway-modes",
    "selinux",
    "gpus",
    "units",
    "detached",
    "ready",
    "guard",
    "firewall",
    "end-services",
    "container",
    "images",
    "database",
    "end-docker",
    "end",
)

OS_RELEASE = ['NAME="Oracle Linux Server"', 'ID="ol"', 'VERSION_ID="9.6"', "# a comment", ""]
GPU = "0, NVIDIA A10, GPU-0, 8.6, 23028, 22515, 580.95.05, Disabled"


def lines(sections: Mapping[str, list[str]]) -> list[str]:
    """The output with these sections' lines; all others are there, and empty."""
    found = []
    for name in NAMES:
        found += [f"{SECTION}{name}", *sections.get(name, [])]
    return found


def bare() -> list[str]:
    """A host that has nothing of ours, but a GPU and its driver."""
    return lines(
        {
            "os-release": OS_RELEASE,
            "architecture": ["x86_64"],
            "kernel": ["5.15.0-300.el9uek.x86_64"],
            "packages": [
                "package docker-ce is not installed",
                "runc\t4:1.2.5-3.el9_6",
                "git\t0:2.47.3-1.el9_6",
            ],
            "units": ["Id=docker.service", "LoadState=not-found", "ActiveState=inactive", "UnitFileState="],
            "links": ["current\t", "previous\t"],
            "root": [
                "/dev/mapper/ocivolume-root xfs 38684065792",
                "dm-0 lvm 38697697280",
                "sda3 part 49391075328",
                "sda disk 107374182400",
                "sda1 2048 204800 1",
                "sda2 206848 2097152 2",
                "sda3 2304000 96466944 3",
                "  /dev/sda3|ocivolume|49387929600|0|49391075328",
            ],
            "data-root": [
                "kind\tdirectory",
                "resolved\t/var/lib/tritonhost",
                "mount\t/ /dev/mapper/ocivolume-root xfs rw,relatime,attr2,inode64,logbufs=8,logbsize=32k,noquota",
                "entries\t",
            ],
            "space": [
                "Filesystem 1-blocks Used Available Capacity Mounted on",
                "/dev/mapper/ocivolume-root 38684065792 9000000000 29684065792 24% /",
            ],
            "gpus": [GPU],
            "ready": ["http://127.0.0.1:8000/v2/models/ensemble/ready\t000"],
        }
    )


def manifest(kind: str, key: str, inputs: Mapping[str, object], files: Mapping[str, object]) -> str:
    """A manifest as seal.sh writes it: one line."""
    return json.dumps({"kind": kind, "key": key, "inputs": inputs, "files": files})


def converged(wanted: Release, host: Observed) -> list[str]:
    """The host that is this release already, as `builders.converged` describes it."""
    assert host.container is not None
    entry = {"size": 3, "mtime": 1700000000, "sha256": "0" * 64}
    manifests, sizes = [], []
    for artifact in wanted.artifacts:
        files = {} if artifact.kind == "source" and not artifact.checksums else {"a file": entry}
        manifests += [f"{PART}{artifact.path}/manifest.json"]
        manifests += [manifest(artifact.kind, artifact.key, artifact.inputs, files)]
        sizes += [f"{artifact.path}/{name}\t3\t1700000000" for name in files]
    digests = {
        name: {"size": 1, "mtime": 1, "sha256": digest} for name, digest in host.release_manifest.items()
    }
    manifests += [f"{PART}{wanted.path}/manifest.json", manifest("release", wanted.id, {}, digests)]
    units = [[f"Id={name}", *(f"{k}={v}" for k, v in unit.items()), ""] for name, unit in host.units.items()]
    inspected = {
        "Id": host.container.id,
        "State": {"Running": host.container.running, "StartedAt": host.container.started_at},
        "Image": host.container.image_id,
        "Config": {"Labels": dict(host.container.labels)},
        "NetworkSettings": {"Networks": {name: {} for name in host.container.networks}},
    }
    return lines(
        {
            "os-release": OS_RELEASE,
            "architecture": ["x86_64"],
            "kernel": ["5.15.0-300.el9uek.x86_64"],
            "packages": [
                "package runc is not installed",
                *[f"{name}\t{version}" for name, versions in host.packages.items() for version in versions],
            ],
            "files": [f"{digest}  {path}" for path, digest in host.file_digests.items()],
            "version-locks": [*host.version_locks, ""],
            "daemon-json": host.daemon_json.splitlines(),
            "units": [line for unit in units for line in unit],
            "container": [json.dumps(inspected)],
            "images": [f"{tag}\t{image_id}" for tag, image_id in host.images.items()],
            "image-records": [f"{key}\t{image_id}" for key, image_id in host.image_records.items()],
            "manifests": manifests,
            "sizes": sizes,
            "links": [f"current\treleases/{host.current}", f"previous\t{host.previous}"],
            "release-files": [f"{digest}  ./{name}" for name, digest in host.release_digests.items()],
            "inodes": [f"{path}\t{inode}" for path, inode in host.inodes.items()],
            "root": [
                f"{host.root.source} {host.root.type} {host.root.size}",
                f"sda disk {host.root.disk_size}",
            ],
            "gpus": [GPU],
            "verdicts": [f"{name}\t{verdict.text}" for name, verdict in host.verdicts.items()],
            "ready": [f"{url}\t{status}" for url, status in host.ready.items()],
            "door": [host.door] if host.door else [],
            "exporters": [f"{name}\t{key}" for name, key in host.exporters.items()],
            "gateway": [f"{host.gateway.key} {host.gateway.digest}"],
            "gateway-modes": [f"{path}\t{mode}" for path, mode in host.gateway_modes.items()],
            "guard": ["changed" if host.guard.changed else host.guard.digest],
        }
    )
