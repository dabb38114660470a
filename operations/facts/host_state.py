"""The one-round-trip probe: everything a release cares about, read by one script (files/host/probe.sh)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import FactBase

from operations.facts.database import contents, state_command
from operations.facts.firewall import firewall as read_firewall
from operations.facts.firewall import firewall_command, guard_command, guard_rules
from operations.facts.parse import (
    SECTION,
    assignments,
    digest_pairs,
    loaded_gateway,
    permissions,
    sections,
    tabbed,
    unit_properties,
    verdict,
)
from operations.facts.selinux import selinux
from operations.plan import ownership
from operations.plan.artifacts.artifact import DIRECTORIES, artifact_path
from operations.plan.capacity.gpu import QUERY_FIELDS, read_query
from operations.plan.exposure import door, exporters, gateway
from operations.plan.machine.disks import root_file_system
from operations.plan.machine.local_disks import data_root, local_disks, mount_unit
from operations.plan.machine.selinux import BOOLEANS
from operations.plan.observed.observed import Container, Measurements, Observed, StoredArtifact
from operations.scripts import host_functions, host_script

# A source tree's files are not listed in its manifest; a release's are compared by their content.
UNMEASURED = ("source", "release")
# of the probe's lanes, and of it all: where one is missing, the output was cut
ENDS = {"end-docker", "end-services", "end"}

_PART = "\x1f"


class HostState(FactBase[Observed]):
    """
    The host as `operations.plan.observed.observed.Observed`.

    + data_root: where the artifacts are
    + state_root: where what the service keeps is
    + service: the serving container's name
    + database: the database's container; empty where the model has none
    + local_disks: whether the host's local disks are looked at
    + packages, units, urls: what to ask for, by name
    + files: those of ours outside the data root; unit_files: those of them that are units
    + inside: files of ours in the data root of which the content is read as well
    + firewall: our rules' mark, and whether some are wanted
    + programs: units beside the server that write down the key of what they run; None: the service's exporters
    """

    def command(
        self,
        data_root: str,
        state_root: str,
        service: str,
        packages: list[str],
        files: list[str],
        units: list[str],
        urls: list[str],
        unit_files: list[str],
        inside: Sequence[str] = (),
        database: str = "",
        local_disks: bool = False,
        firewall: tuple[str, bool] = ("", False),
        programs: Sequence[str] | None = None,
    ) -> str:
        own = [exporters.service(service, kind) for kind in (exporters.NODE, exporters.DCGM)]
        return host_script(
            "probe.sh",
            {
                "DATA_ROOT": data_root,
                "STATE_ROOT": state_root,
                "SERVICE": service,
                "DATABASE_STATE": state_command(database) if database else "",
                **ownership.variables(data_root, files, unit_files),
                "MEASURED": "\n".join(DIRECTORIES[kind] for kind in DIRECTORIES if kind not in UNMEASURED),
                "GPU_FIELDS": ",".join(QUERY_FIELDS),
                "PACKAGES": "\n".join(packages),
                "FILES": "\n".join([*files, *inside]),
                "UNITS": "\n".join(units),
                "URLS": "\n".join(urls),
                "MOUNT_UNIT": mount_unit(data_root) if local_disks else "",
                "BOOLEANS": "\n".join(BOOLEANS),
                "DOOR_RECORD": door.record(door.service(service)),
                "EXPORTERS": "\n".join(own if programs is None else programs),
                "GATEWAY_RECORD": gateway.record(gateway.service(service)),
                "GATEWAY_DIRECTORY": gateway.directory(state_root),
                "GATEWAY_MODES": gateway.MODES,
                "GUARD_STATE": guard_command(service),
                "FIREWALL_STATE": firewall_command(*firewall),
            },
            functions=f"{host_functions('disks.sh')}\n{host_functions('ownership.sh')}",
        )

    def process(self, output: list[str]) -> Observed:
        try:
            return observed(output)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            # anything else would end the run of all hosts
            raise FactProcessError(f"the host's state could not be read: {error}") from error


def observed(output: list[str]) -> Observed:
    """The probe's output as an Observed. Raises ValueError if the output is truncated."""
    part = sections(output)
    if not part.keys() >= ENDS:
        raise ValueError("the probe's output ends early")
    artifacts, release_manifests = _artifacts(part["manifests"], part["sizes"])
    links = tabbed(part["links"])
    current = links.get("current", "").rsplit("/", 1)[-1]
    answer = read_query("\n".join(part["gpus"]))
    resources = tabbed(part["resources"])
    spoken = list(takewhile(lambda line: not line.startswith(SECTION), output))
    return Observed(
        noise=" ".join(" ".join(spoken).split()),
        os_release=assignments(part["os-release"]),
        architecture="".join(part["architecture"]).strip(),
        kernel="".join(part.get("kernel", [])).strip(),
        packages=package_versions(part["packages"]),
        file_digests={path: digest for digest, path in digest_pairs(part["files"])},
        version_locks=list_lines(part["version-locks"]),
        daemon_json="\n".join(part["daemon-json"]),
        units=unit_properties(part["units"]),
        detached_units=tuple(
            line.split()[0] for line in part["detached"] if line.strip().startswith("tritonhost-")
        ),
        images=tabbed(part["images"]),
        image_records=tabbed(part["image-records"]),
        container=_container(part["container"]),
        artifacts=artifacts,
        current=current,
        previous=links.get("previous", "").rsplit("/", 1)[-1],
        alone=links.get("alone", "").rsplit("/", 1)[-1],
        verdicts={
            release: found for release, text in tabbed(part["verdicts"]).items() if (found := verdict(text))
        },
        release_digests={
            path.removeprefix("./"): digest for digest, path in digest_pairs(part["release-files"])
        },
        release_manifest=release_manifests.get(current, {}),
        inodes=tabbed(part["inodes"]),
        root=root_file_system(part["root"]),
        data_root=data_root(part["data-root"]),
        local=local_disks(part["local-disks"]),
        memory=1024 * int(resources.get("memory", 0)),
        data_free=1024 * int(resources.get("free", 0)),
        gpus=answer.gpus,
        gpu_problem=answer.problem,
        gpu_remarks=answer.remarks,
        database=contents(part["database"]),
        ready=tabbed(part["ready"]),
        measurements={name: measurements(line) for name, line in tabbed(part["measurements"]).items()},
        listening=listening_ports(part["listening"]),
        door="".join(part["door"]).strip(),
        exporters=tabbed(part["exporters"]),
        gateway=loaded_gateway("".join(part["gateway"]).strip()),
        gateway_modes=permissions(part["gateway-modes"]),
        exposed=permissions(part.get("owners", [])),
        guard=guard_rules(part["guard"]),
        firewall=read_firewall(part["firewall"]),
        selinux=selinux(part["selinux"]),
    )


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


def measurements(line: str) -> Measurements:
    """`load_s=12.5 gpu_mib=4096`, which files/host/measure.sh writes; a value that is not a number counts as not measured."""
    told = dict(pair.split("=", 1) for pair in line.split() if "=" in pair)

    def number(name: str) -> float | None:
        try:
            value = float(told[name])
        except (LookupError, ValueError):
            return None
        return value if math.isfinite(value) else None

    mib = number("gpu_mib")
    return Measurements(
        load_s=number("load_s"),
        answer_s=number("answer_s"),
        gpu_mib=None if mib is None else int(mib),
        bench_first_ms=number("bench_first_ms"),
        bench_rate=number("bench_rate"),
        bench_of=told.get("bench_of", "")[:100],
    )


def listening_ports(lines: list[str]) -> frozenset[int]:
    """The ports of `<address>:<port in hexadecimal>`, as /proc/net/tcp has them."""
    return frozenset(
        int(m[1], 16) for line in lines if (m := re.fullmatch(r"[0-9A-F]+:([0-9A-F]{4})", line.strip()))
    )


def _container(lines: list[str]) -> Container | None:
    """docker inspect's JSON of one container."""
    # one line of JSON; what docker warns of beside it is none
    text = next((line for line in lines if line.lstrip().startswith("{")), "")
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
