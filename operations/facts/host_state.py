"""The one-round-trip probe: everything a release cares about, read by one script (files/host/probe.sh)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import FactBase

from operations.facts.database import state_command
from operations.facts.firewall import firewall as read_firewall
from operations.facts.firewall import firewall_command, guard_command
from operations.plan import gateway
from operations.plan.artifacts import DIRECTORIES, artifact_path
from operations.plan.disks import root_file_system
from operations.plan.gpu import QUERY_FIELDS, Gpu, parse_query
from operations.plan.local_disks import data_root, local_disks, mount_unit
from operations.plan.observed import Container, Observed, StoredArtifact
from operations.plan.selinux import BOOLEANS
from operations.scripts import host_functions, host_script

# A source tree's files are not listed in its manifest; a release's are compared by their content.
UNMEASURED = ("source", "release")

_SECTION, _PART = "\x1e", "\x1f"


class HostState(FactBase[Observed]):
    """
    The host as `operations.plan.observed.Observed`.

    + data_root: where the artifacts are
    + service: the serving container's name
    + database: the database's container; empty where the model has none
    + local_disks: whether the host's local disks are looked at
    + packages, files, units, urls: what to ask for, by name
    + firewall: our rules' mark, and whether some are wanted
    """

    def command(
        self,
        data_root: str,
        service: str,
        packages: list[str],
        files: list[str],
        units: list[str],
        urls: list[str],
        database: str = "",
        local_disks: bool = False,
        firewall: tuple[str, bool] = ("", False),
    ) -> str:
        return host_script(
            "probe.sh",
            {
                "DATA_ROOT": data_root,
                "SERVICE": service,
                "DATABASE_STATE": state_command(database) if database else "",
                "SEALED": "\n".join(DIRECTORIES.values()),
                "MEASURED": "\n".join(DIRECTORIES[kind] for kind in DIRECTORIES if kind not in UNMEASURED),
                "GPU_FIELDS": ",".join(QUERY_FIELDS),
                "PACKAGES": "\n".join(packages),
                "FILES": "\n".join(files),
                "UNITS": "\n".join(units),
                "URLS": "\n".join(urls),
                "MOUNT_UNIT": mount_unit(data_root) if local_disks else "",
                "BOOLEANS": "\n".join(BOOLEANS),
                "GATEWAY_RECORD": gateway.record(gateway.service(service)),
                "GATEWAY_DIRECTORY": gateway.directory(data_root),
                "GATEWAY_MODES": gateway.MODES,
                "GUARD_STATE": guard_command(service),
                "FIREWALL_STATE": firewall_command(*firewall),
            },
            functions=host_functions("disks.sh"),
        )

    def process(self, output: list[str]) -> Observed:
        try:
            return observed(output)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            # anything else would end the run of all hosts
            raise FactProcessError(f"the host's state could not be read: {error}") from error


def sections(output: list[str]) -> dict[str, list[str]]:
    """The probe's output, section by section."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in output:
        if line.startswith(_SECTION):
            lines = found.setdefault(line[1:].strip(), [])
        else:
            lines.append(line)
    return found


def observed(output: list[str]) -> Observed:
    """The probe's output as an Observed. Raises ValueError where it ended early: a part of a host is no host."""
    part = sections(output)
    if "end" not in part:
        raise ValueError("the probe's output ends early")
    artifacts, release_manifests = _artifacts(part["manifests"], part["sizes"])
    links = _tabbed(part["links"])
    current = links.get("current", "").rsplit("/", 1)[-1]
    gpus, gpu_problem = _gpus(part["gpus"])
    resources = _tabbed(part["resources"])
    spoken = list(takewhile(lambda line: not line.startswith(_SECTION), output))
    return Observed(
        noise=" ".join(" ".join(spoken).split()),
        os_release=_assignments(part["os-release"]),
        architecture="".join(part["architecture"]).strip(),
        packages=package_versions(part["packages"]),
        file_digests={path: digest for digest, path in digest_pairs(part["files"])},
        version_locks=list_lines(part["version-locks"]),
        daemon_json="\n".join(part["daemon-json"]),
        units=_units(part["units"]),
        detached_units=tuple(line.split()[0] for line in part["detached"] if line.strip()),
        images=_tabbed(part["images"]),
        image_records=_tabbed(part["image-records"]),
        container=_container(part["container"]),
        artifacts=artifacts,
        current=current,
        previous=links.get("previous", "").rsplit("/", 1)[-1],
        verdicts=_tabbed(part["verdicts"]),
        release_digests={
            path.removeprefix("./"): digest for digest, path in digest_pairs(part["release-files"])
        },
        release_manifest=release_manifests.get(current, {}),
        inodes=_tabbed(part["inodes"]),
        root=root_file_system(part["root"]),
        data_root=data_root(part["data-root"]),
        local=local_disks(part["local-disks"]),
        memory=1024 * int(resources.get("memory", 0)),
        data_free=1024 * int(resources.get("free", 0)),
        gpus=gpus,
        gpu_problem=gpu_problem,
        database=_tabbed(part["database"]),
        ready=_tabbed(part["ready"]),
        measurements={name: measured(line) for name, line in _tabbed(part["measurements"]).items()},
        listening=listening_ports(part["listening"]),
        gateway="".join(part["gateway"]).strip(),
        gateway_modes=_tabbed(part["gateway-modes"]),
        guard="".join(part["guard"]).strip(),
        firewall=read_firewall(part["firewall"]),
        selinux=_tabbed(part["selinux"]),
    )


def _assignments(lines: list[str]) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, value in pairs}


def package_versions(lines: list[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for line in lines:
        name, tab, version = line.partition("\t")
        if tab:  # the others say that a package is not installed
            found[name] = (*found.get(name, ()), version.strip())
    return found


def list_lines(lines: list[str]) -> tuple[str, ...]:
    """A file's lines, without white space at the end of each and without empty ones at the end of all."""
    return tuple("\n".join(line.rstrip() for line in lines).rstrip("\n").splitlines())


def digest_pairs(lines: list[str]) -> list[tuple[str, str]]:
    """sha256sum's lines: digest, two spaces, path."""
    return [(m.group(1), m.group(2)) for line in lines if (m := re.match(r"([0-9a-f]{64}) [ *](.+)$", line))]


def _units(lines: list[str]) -> dict[str, dict[str, str]]:
    """systemctl show's blocks, one a unit, parted by empty lines."""
    found: dict[str, dict[str, str]] = {}
    for block in "\n".join(lines).split("\n\n"):
        properties = _assignments(block.splitlines())
        if "Id" in properties:
            found[properties["Id"]] = properties
    return found


def _tabbed(lines: list[str]) -> dict[str, str]:
    return dict(line.split("\t", 1) for line in lines if "\t" in line)


def measured(line: str) -> dict[str, str]:
    """`load_s=12.5 gpu_mib=4096` as a table; files/host/measure.sh writes it."""
    return dict(pair.split("=", 1) for pair in line.split() if "=" in pair)


def listening_ports(lines: list[str]) -> frozenset[int]:
    """The ports of `<address>:<port in hexadecimal>`, as /proc/net/tcp has them."""
    return frozenset(int(line.rpartition(":")[2], 16) for line in lines if ":" in line)


def _container(lines: list[str]) -> Container | None:
    """docker inspect's JSON of one container."""
    text = "".join(lines).strip()
    if not text:
        return None
    value = json.loads(text)
    return Container(
        id=value["Id"],
        running=bool(value["State"]["Running"]),
        started_at=value["State"]["StartedAt"],
        image_id=value["Image"],
        labels=value["Config"]["Labels"] or {},
        sources=frozenset(bind.split(":")[0] for bind in value.get("HostConfig", {}).get("Binds") or ()),
        networks=frozenset(value.get("NetworkSettings", {}).get("Networks") or ()),
        ports=frozenset(
            int(place["HostPort"])
            for places in (value.get("HostConfig", {}).get("PortBindings") or {}).values()
            for place in places or ()
            if place.get("HostPort", "").isdecimal()
        ),
    )


def _artifacts(
    manifests: list[str], sizes: list[str]
) -> tuple[dict[tuple[str, str], StoredArtifact], dict[str, dict[str, str]]]:
    present = sizes_and_times(sizes)
    artifacts: dict[tuple[str, str], StoredArtifact] = {}
    releases: dict[str, dict[str, str]] = {}
    for chunk in "\n".join(manifests).split(_PART)[1:]:
        path, _, text = chunk.partition("\n")
        directory = path.rsplit("/", 1)[0]
        manifest = read_manifest(text)
        if manifest is None:
            continue  # an unreadable manifest is none: the directory counts as an interrupted run's garbage
        kind, key, files = manifest["kind"], manifest["key"], manifest["files"]
        if kind not in DIRECTORIES or not directory.endswith(artifact_path("", kind, key)):
            continue
        problem = ""
        if kind == "release":
            releases[key] = {name: entry["sha256"] for name, entry in files.items()}
        else:
            inside = {
                n.removeprefix(f"{directory}/"): v
                for n, v in present.items()
                if n.startswith(f"{directory}/")
            }
            problem = file_problem(files, inside)
        artifacts[kind, key] = StoredArtifact(kind, key, manifest["inputs"], problem)
    return artifacts, releases


def read_manifest(text: str) -> dict[str, Any] | None:
    """A manifest with kind, key, inputs and files; None for anything else."""
    try:
        value = json.loads(text)
        if not {"kind", "key", "inputs", "files"} <= value.keys():
            return None
        return value if all(_is_entry(name, entry) for name, entry in value["files"].items()) else None
    except (json.JSONDecodeError, AttributeError, RecursionError):
        return None


def _is_entry(name: str, entry: object) -> bool:
    """Whether a manifest may say this of a file: one inside its directory, with a size and a SHA-256."""
    return (
        bool(name)
        and not name.startswith("/")
        and ".." not in name.split("/")
        and isinstance(entry, dict)
        and type(entry.get("size")) is int
        and entry["size"] >= 0
        and isinstance(entry.get("sha256"), str)
        and re.fullmatch(r"[0-9a-f]{64}", entry["sha256"]) is not None
        and "mtime" in entry
    )


def sizes_and_times(lines: list[str]) -> dict[str, tuple[str, str]]:
    """find's lines of path, size in bytes and modification time in seconds, parted by tabs."""
    return {
        path: (size, time) for path, size, time in (li.split("\t") for li in lines if li.count("\t") == 2)
    }


def file_problem(files: Mapping[str, Mapping[str, Any]], present: Mapping[str, tuple[str, str]]) -> str:
    """The first file that is not as its manifest records it: gone, of another size, or changed later."""
    for name, entry in files.items():
        found = present.get(name)
        if found is None:
            return f"{name} is missing"
        if found[0] != str(entry["size"]):
            return f"{name} has {found[0]} bytes instead of {entry['size']}"
        if found[1] != str(entry["mtime"]):
            return f"{name} was changed after it was made"
    return ""


def _gpus(lines: list[str]) -> tuple[tuple[Gpu, ...], str]:
    try:
        return parse_query("\n".join(lines)), ""
    except ValueError as error:
        return (), str(error)
