"""What a host's packages, images, artifacts and checkout are, by their hashes: the material of provenance.json."""

from __future__ import annotations

import json

from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import FactBase

from operations.facts.host_state import read_manifest
from operations.facts.parse import sections
from operations.plan.audit.provenance import Found, Image, Package
from operations.scripts import host_script

_PART = "\x1f"
_NO_VALUE = "(none)"  # rpm's word for a tag that a header lacks


class Provenance(FactBase[Found]):
    """
    What is on the host, as `operations.plan.audit.provenance.Found`.

    + tags: images to describe
    + directories: artifacts whose manifests are read
    + tree: the checkout the templates come from; empty where there is none
    """

    def command(self, tags: list[str], directories: list[str], tree: str = "") -> str:
        variables = {"TAGS": "\n".join(tags), "DIRECTORIES": "\n".join(directories), "TREE": tree}
        return host_script("provenance.sh", variables)

    def process(self, output: list[str]) -> Found:
        try:
            return found(output)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            # anything else would end the run of all hosts
            raise FactProcessError(f"what the release is made of could not be read: {error}") from error


def found(output: list[str]) -> Found:
    """The script's output. Raises ValueError where it ended early: a part of a list is no list."""
    part = sections(output)
    if "end" not in part:
        raise ValueError("the output ends early")
    manifests = {}
    for chunk in "\n".join(part["artifacts"]).split(_PART)[1:]:
        directory, _, text = chunk.partition("\n")
        manifest = read_manifest(text)
        if manifest is not None:
            manifests[directory] = manifest["files"]
    commits = [line.strip() for line in part["commit"] if line.strip()]
    return Found(
        packages=tuple(_package(line) for line in part["packages"] if line.count("\t") == 7),
        images={
            tag: Image(identity, tuple(sorted(d.rpartition("@")[2] for d in json.loads(digests) or ())))
            for tag, identity, digests in (
                line.split("\t") for line in part["images"] if line.count("\t") == 2
            )
        },
        files=manifests,
        commit=commits[0] if len(commits) == 2 else "",
        tree=commits[1] if len(commits) == 2 else "",
        submodules={
            path: {"commit": commit, "repository": url}
            for path, commit, url in (
                line.split("\t") for line in part["submodules"] if line.count("\t") == 2
            )
        },
        os_version=_version(part["os-release"]),
    )


def _version(os_release: list[str]) -> str:
    lines = (line.partition("=") for line in os_release)
    return next((value.strip("\"'") for key, _, value in lines if key == "VERSION_ID"), "")


def _package(line: str) -> Package:
    values = ["" if value == _NO_VALUE else value for value in line.rstrip("\n").split("\t")]
    name, epoch, version, release, architecture, header, payload, signature = values
    return Package(
        name=name,
        version=f"{epoch}:{version}-{release}",
        architecture=architecture,
        header_sha256=header,
        payload_sha256=payload,
        # `RSA/SHA256, <date>, Key ID 72f97b74ec551f03`
        key_id=signature.rpartition("Key ID ")[2],
    )
