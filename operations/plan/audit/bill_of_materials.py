"""A release's bill of materials as CycloneDX 1.6: https://cyclonedx.org/docs/1.6/json/.

Made from what lies beside the release (release.json, provenance.json) and the rpms that are installed now. The same
materials give the same text: everything is sorted, there is no time in it, and the serial number is made of the content.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from operations.plan.artifacts.artifact import published

Component = dict[str, Any]

# What CycloneDX calls an artifact of ours
_TYPES = {"dataset": "data", "source": "application"}
_GITHUB = "https://github.com/"


def bill_of_materials(
    release: Mapping[str, Any],
    provenance: Mapping[str, Any],
    packages: Sequence[Mapping[str, str]],
    os_version: str,
) -> dict[str, Any]:
    """
    The bill of materials of one host's release.

    + release, provenance: release.json and provenance.json
    + packages: the rpms that are installed, as operations.plan.audit.provenance.packages lists them
    + os_version: Oracle Linux's, such as 9.5
    """
    images = [_image(tag, inputs, provenance["images"].get(tag)) for tag, inputs in release["images"].items()]
    bases = [base for inputs in release["images"].values() for base in _bases(inputs)]
    artifacts = [
        _artifact(name, entry, provenance["artifacts"].get(name, {}).get("files", {}))
        for name, entry in release["artifacts"].items()
    ]
    submodules = (provenance["source"] or {}).get("submodules", {})
    components = [
        *(_package(package, os_version) for package in packages),
        *images,
        *bases,
        *artifacts,
        *(_submodule(path, entry) for path, entry in submodules.items()),
    ]
    components = sorted({c["bom-ref"]: c for c in components}.values(), key=lambda c: str(c["bom-ref"]))
    root = {
        "type": "application",
        "bom-ref": f"release:{release['release']}",
        "name": f"tritonhost/{release['model']}",
        "version": release["release"],
        "description": release["summary"],
    }
    content = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": root},
        "components": components,
        "dependencies": _dependencies(root["bom-ref"], release, components),
    }
    canonical = json.dumps(content, sort_keys=True)
    return {"serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, canonical)}", **content}


def _purl(kind: str, path: str, version: str, **qualifiers: str) -> str:
    """https://github.com/package-url/purl-spec: parts percent-encoded, qualifiers in order, empty ones left out."""
    said = "&".join(f"{key}={quote(value, safe='/:')}" for key, value in sorted(qualifiers.items()) if value)
    return f"pkg:{kind}/{quote(path)}@{quote(version, safe='')}{f'?{said}' if said else ''}"


def _properties(**values: str) -> list[dict[str, str]]:
    """What CycloneDX has no field for."""
    return [
        {"name": f"tritonhost:{name.replace('_', '-')}", "value": value}
        for name, value in sorted(values.items())
        if value
    ]


def _package(package: Mapping[str, str], os_version: str) -> Component:
    epoch, _, version = package["version"].partition(":")
    purl = _purl(
        "rpm",
        f"oraclelinux/{package['name']}",
        version,
        arch=package["architecture"],
        distro=f"oraclelinux-{os_version}" if os_version else "",
        epoch=epoch if epoch != "0" else "",
    )
    return {
        "type": "library",
        "bom-ref": purl,
        "name": package["name"],
        "version": package["version"].removeprefix("0:"),
        "purl": purl,
        # no hashes: they would be taken for those of the rpm file, which an installed package does not keep
        "properties": _properties(
            header_sha256=package["header_sha256"],
            payload_sha256=package["payload_sha256"],
            signed_by_key=package["key_id"],
        ),
    }


def _published(image: str, digest: str) -> Component:
    """An image as its makers publish it, wherever it was pulled from. + image: name:tag without registry"""
    name, _, tag = image.partition(":")
    registry = "nvcr.io" if name.startswith("nvidia/") else "docker.io"
    purl = _purl("oci", name.rsplit("/", 1)[-1], digest, repository_url=f"{registry}/{name}", tag=tag)
    return {
        "type": "container",
        "bom-ref": purl,
        "name": name,
        "version": tag,
        "purl": purl,
        "hashes": [{"alg": "SHA-256", "content": digest.removeprefix("sha256:")}],
    }


def _bases(inputs: Mapping[str, Any]) -> list[Component]:
    """What an image was built on; nothing for one that was pulled."""
    return [] if "image" in inputs else [_published(*named) for named in published(inputs).items()]


def _image(tag: str, inputs: Mapping[str, Any], found: Mapping[str, Any] | None) -> Component:
    """The image that runs: a published one by its digest, a built one by the id that the engine gave it."""
    name, _, key = tag.partition(":")
    identity = found["id"] if found else ""
    if inputs["source"] == "pull":
        return {
            **_published(inputs["image"], inputs["digest"]),
            "properties": _properties(key=key, image_id=identity),
        }
    return {
        "type": "container",
        "bom-ref": f"image:{key}",
        "name": name,
        "version": key,
        "properties": _properties(key=key, image_id=identity, built_on=inputs.get("base") or ""),
    }


def _artifact(name: str, entry: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]) -> Component:
    kind, key, inputs = name.split("-")[0], entry["key"], entry["inputs"]
    made: Component = {
        "type": _TYPES.get(kind, "machine-learning-model"),
        "bom-ref": f"{kind}:{key}",
        "name": name,
        "version": key,
        "properties": _properties(key=key, tag=str(inputs.get("tag", ""))),
    }
    repository, revision = inputs.get("repository", ""), inputs.get("revision") or inputs.get("commit")
    if repository and revision:
        if repository.startswith(_GITHUB):
            purl = _github(repository, revision)
        else:
            # a data set's name may be that of a model
            path = f"datasets/{repository}" if kind == "dataset" else repository
            purl = _purl("huggingface", path, revision)
        made |= {"name": repository, "version": revision, "purl": purl}
    if files:
        made["components"] = [
            {
                "type": "file",
                "bom-ref": f"{kind}:{key}/{path}",
                "name": path,
                "hashes": [{"alg": "SHA-256", "content": file["sha256"]}],
            }
            for path, file in sorted(files.items())
        ]
    return made


def _github(repository: str, commit: str) -> str:
    # lower case, as the specification of the type wants it
    return _purl("github", repository.removeprefix(_GITHUB).removesuffix(".git").lower(), commit)


def _submodule(path: str, entry: Mapping[str, str]) -> Component:
    repository, commit = entry["repository"], entry["commit"]
    made: Component = {
        "type": "library",
        "bom-ref": f"submodule:{path}@{commit}",
        "name": path,
        "version": commit,
        "externalReferences": [{"type": "vcs", "url": repository}] if repository else [],
    }
    return {**made, "purl": _github(repository, commit)} if repository.startswith(_GITHUB) else made


def _dependencies(
    root: str, release: Mapping[str, Any], components: Sequence[Component]
) -> list[dict[str, Any]]:
    """The release rests on everything; what is made of other artifacts names them, by their keys among its inputs."""
    by_key = {
        entry["value"]: c["bom-ref"]
        for c in components
        for entry in c.get("properties", [])
        if entry["name"] == "tritonhost:key"
    }
    found: dict[str, set[str]] = {root: {c["bom-ref"] for c in components}}
    materials = {entry["key"]: entry["inputs"] for entry in release["artifacts"].values()}
    materials |= {tag.rpartition(":")[2]: inputs for tag, inputs in release["images"].items()}
    for key, inputs in materials.items():
        used = {by_key[v] for v in inputs.values() if isinstance(v, str) and v in by_key}
        found[by_key[key]] = used | {base["bom-ref"] for base in _bases(inputs)}
    # the checkout's submodules
    source = next((c["bom-ref"] for c in components if c["bom-ref"].startswith("source:")), None)
    if source:
        found[source] |= {c["bom-ref"] for c in components if c["bom-ref"].startswith("submodule:")}
    return [{"ref": ref, "dependsOn": sorted(used)} for ref, used in sorted(found.items())]
