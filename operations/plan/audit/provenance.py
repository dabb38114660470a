"""provenance.json: what a release was made of, as found on the host; release.json has what was wanted.

It is in the release's directory and in its manifest. It is not an input of the release's id: a release on another host, or
after another upgrade of the distribution's packages, is the same release. It has no time and no host name, so that two
hosts that were made of the same parts have the same text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from operations.plan.release import Release


@dataclass(frozen=True)
class Package:
    """An installed rpm. `version`: epoch:version-release."""

    name: str
    version: str
    architecture: str
    header_sha256: str
    payload_sha256: str
    key_id: str  # of the key that signed it, 16 hexadecimal digits; empty: not signed


@dataclass(frozen=True)
class Image:
    """A container image. `id`: docker's; `digests`: those by which registries know it, none for a built one."""

    id: str
    digests: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """What the host's own tools state."""

    packages: tuple[Package, ...] = ()
    images: Mapping[str, Image] = field(default_factory=dict)  # by tag
    files: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(
        default_factory=dict
    )  # directory -> manifest
    commit: str = ""  # of the checkout
    tree: str = ""
    # path -> its commit and repository
    submodules: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    os_version: str = ""  # of Oracle Linux, such as 9.5


def packages(found: Found) -> list[dict[str, str]]:
    """The rpms, by name, architecture and version, without rpm's own entries for trusted keys."""
    return [
        {
            "name": package.name,
            "version": package.version,
            "architecture": package.architecture,
            "header_sha256": package.header_sha256,
            "payload_sha256": package.payload_sha256,
            "key_id": package.key_id,
        }
        for package in sorted(found.packages, key=lambda p: (p.name, p.architecture, p.version))
        if package.name != "gpg-pubkey"
    ]


def images(found: Found) -> dict[str, dict[str, Any]]:
    """The container images, by tag."""
    return {
        tag: {"id": image.id, "digests": list(image.digests)} for tag, image in sorted(found.images.items())
    }


def provenance(release: Release, found: Found) -> dict[str, Any]:
    """provenance.json of a release, with the artifacts that still exist: a checkpoint may be gone once its engine is made."""
    artifacts = {
        name: {
            "key": artifact.key,
            "files": {
                path: {"sha256": entry["sha256"], "size": entry["size"]}
                for path, entry in sorted(found.files[artifact.path].items())
            },
        }
        for name, artifact in release.named_artifacts.items()
        if artifact.path in found.files
    }
    source = {
        "commit": found.commit,
        "tree": found.tree,
        "submodules": dict(sorted(found.submodules.items())),
    }
    return {
        "release": release.id,
        "packages": packages(found),
        "images": images(found),
        "artifacts": artifacts,
        "source": source if found.commit else None,
    }
