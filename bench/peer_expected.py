"""What bench/peer/playbook.yml expects of a host: the inventory's plan, and what only the host knows, read over SSH."""

from __future__ import annotations

import base64
import configparser
import hashlib
import io
import json
import shlex
import tarfile
from dataclasses import dataclass
from typing import Any

from operations.plan import Release, plan_release
from operations.plan.capacity.gpu import QUERY, parse_query
from operations.plan.catalog.package_names import CONFLICTING_PACKAGES
from operations.plan.errors import PlanError, one_line
from operations.plan.exposure import firewall, network
from operations.plan.inventory.settings import from_host_data
from operations.plan.inventory.without_model import kind_of
from operations.plan.machine import daemon_json, packages, version_locks
from operations.remote import host_files
from operations.remote.repository_files import PATHS as REPOSITORIES
from tests.verify.connection import Connection, Target, connected

# without what changes from one second to the next
GPU_FIELDS = "index,name,uuid,compute_cap,memory.total,driver_version"


class NotMeasured(Exception):
    """A host or a run that cannot be compared, in words."""


@dataclass(frozen=True)
class Expected:
    """Of one host. `variables`: for the playbook; `files`: what it copies, name -> content."""

    variables: dict[str, Any]
    files: dict[str, bytes]


@dataclass(frozen=True)
class Reader:
    """Commands on one host, as root."""

    connection: Connection

    def said(self, command: str) -> str:
        """What a shell command prints. Raises NotMeasured."""
        target = self.connection.target
        root = f"sudo -n sh -c {shlex.quote(command)}" if target.data.get("_sudo") else command
        done = self.connection.ssh(target.address, root)
        if done.returncode != 0:
            raise NotMeasured(f"{target.name}: {command}: {one_line(done.stderr)[:300]}")
        return done.stdout

    def content(self, path: str) -> bytes:
        return base64.b64decode(self.said(f"base64 {shlex.quote(path)}"))

    def tree(self, directory: str) -> dict[str, bytes]:
        """The files of a directory, by their paths in it."""
        packed = base64.b64decode(self.said(f"set -e; tar -C {shlex.quote(directory)} -cf - . | base64"))
        found = {}
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            for member in archive:
                if (opened := archive.extractfile(member)) is not None:
                    found[member.name.removeprefix("./")] = opened.read()
        return found


def expected_of(target: Target) -> Expected:
    """What the playbook finds on this host if it is converged. Raises NotMeasured and Unreachable."""
    if kind := kind_of(target.data):
        raise NotMeasured(f"{target.name}: found a host of kind {kind}, expected one that serves a model")
    try:
        with connected(target) as connection:
            reader = Reader(connection)
            release = _release(target, reader)
            return _expected(release, reader)
    except PlanError as error:
        raise NotMeasured(f"{target.name}: {error}") from None


def _release(target: Target, reader: Reader) -> Release:
    """What the host should be. Raises NotMeasured for parts that the playbook does not know."""
    settings = from_host_data(target.data, target.name)
    os_release = dict(
        line.split("=", 1) for line in reader.said("cat /etc/os-release").splitlines() if "=" in line
    )
    os_release = {key: value.strip("\"'") for key, value in os_release.items()}
    os_major = packages.check_os(os_release, reader.said("uname -m").strip())
    selinux = reader.said("test ! -e /sys/fs/selinux/enforce || echo yes") != ""
    release = plan_release(settings, parse_query(reader.said(QUERY)), os_major, selinux=selinux)
    parts = {
        "services": settings.services,
        "database": release.database,
        "front": release.fronted,
        "gateway": release.gateway,
        "door": release.door,
        "monitoring": settings.monitoring,
        "local_disks": settings.local_disks != "none",
        "selinux": release.selinux,
    }
    if unknown := [name for name, wanted in parts.items() if wanted]:
        raise NotMeasured(f"{target.name}: the playbook does not check {', '.join(unknown)}")
    return release


def _expected(release: Release, reader: Reader) -> Expected:
    settings, service = release.settings, release.settings.service_name
    rendered, place = host_files.rendered(release), host_files.paths(settings)
    container = json.loads(reader.said(f"docker container inspect {service}"))[0]
    options = json.loads(reader.said(f"docker network inspect {network.network(service)}"))[0]["Options"]
    contents = reader.tree(release.path)
    variables = {
        "service": service,
        "data_root": settings.data_root,
        **_packages(release),
        **_artifacts(release, reader),
        "images": [
            {
                "tag": image.tag,
                "id": reader.said(f"docker image inspect --format '{{{{.Id}}}}' {image.tag}").strip(),
                "record": image.record(settings.data_root),
            }
            for image in release.images
        ],
        "release": {
            "path": release.path,
            "files": {f"{release.path}/{name}": _digest(content) for name, content in contents.items()},
            "verdict": f"{settings.data_root}/verdicts/{release.id}",
            **{name: _link(reader, f"{settings.state_root}/{name}") for name in ("current", "previous")},
        },
        "guard": {
            "unit": release.guard.unit,
            "rules": release.guard.rules_path,
            "table": release.guard.table,
        },
        "firewall": _firewall(release, reader),
        "network": {"name": network.network(service), "options": options},
        "container": {"image": container["Image"], "labels": container["Config"]["Labels"]},
        "gpus": {
            "fields": GPU_FIELDS,
            "lines": reader.said(f"nvidia-smi --query-gpu={GPU_FIELDS} --format=csv,noheader").splitlines(),
        },
        "ready_urls": list(release.ready_urls.values()),
    }
    listed = reader.said(f"nft --stateless list table inet {release.guard.table}")
    files = {
        "daemon.json": reader.content(daemon_json.PATH),
        "guard.nft": rendered[place.guard_rules].text.encode(),
        "guard.service": rendered[place.guard_unit].text.encode(),
        "server.service": rendered[place.unit].text.encode(),
        "table": listed.encode(),
        **{f"release/{name}": content for name, content in contents.items()},
    }
    return Expected(variables, files)


def _packages(release: Release) -> dict[str, Any]:
    """Keys, repositories, versions and their locks."""
    settings, rendered = release.settings, host_files.rendered(release)
    repositories = []
    for path in REPOSITORIES:
        if path in rendered:
            parsed = configparser.ConfigParser(interpolation=None)
            parsed.read_string(rendered[path].text)
            file = path.rpartition("/")[2].removesuffix(".repo")
            repositories += [{"id": name, "file": file, **parsed[name]} for name in parsed.sections()]
    wanted = packages.wanted_packages(settings, release.os_major)
    begin, *lines, end = version_locks.with_locks(
        [], version_locks.all_locks(settings, release.os_major)
    ) or ["", ""]
    return {
        "package_keys": [
            {"path": path, "fingerprint": fingerprint} for path, fingerprint in packages.keys(settings)
        ],
        "repositories": repositories,
        "packages": [f"{name}-{version}" if version else name for name, version in wanted.items()],
        "conflicting_packages": list(CONFLICTING_PACKAGES),
        "version_locks": {"path": version_locks.LOCK_LIST, "begin": begin, "lines": lines, "end": end},
    }


def _artifacts(release: Release, reader: Reader) -> dict[str, Any]:
    """The data root, the checkout, and what the manifests list."""
    root = shlex.quote(release.data_root)
    directories = reader.said(f"find {root} -maxdepth 1 -type d -printf '%m %p\\n'").splitlines()
    manifests, files, read = {}, [], []
    for artifact in release.artifacts:
        path = f"{artifact.path}/manifest.json"
        text = reader.said(f"cat {shlex.quote(path)} 2>/dev/null || :")
        if not text:  # a checkpoint, which may be removed once its engine is made
            continue
        manifests[path] = _digest(text.encode())
        if artifact.checksums:
            read.append(artifact.path)
            files += [
                [f"{artifact.path}/{name}", entry["size"], entry["mtime"]]
                for name, entry in json.loads(text)["files"].items()
            ]
    source = None if release.image_first else release.source
    return {
        "data_directories": [
            {"path": path, "mode": f"0{mode}"} for mode, path in (line.split(" ", 1) for line in directories)
        ],
        "checkout": {
            "repository": source.inputs["repository"] if source else "",
            "path": f"{source.path}/tree" if source else "",
            "commit": source.inputs["commit"] if source else "",
        },
        "manifests": manifests,
        "artifact_directories": read,
        "artifact_files": sorted(files),
    }


def _firewall(release: Release, reader: Reader) -> dict[str, Any]:
    """firewalld's rules of ours, and the files of the zones that have one."""
    number = firewall.mark(release.settings.service_name).split('"')[1]
    found = reader.said(f"grep -lsF -e {number} /etc/firewalld/zones/*.xml || :").splitlines()
    listed = reader.said("firewall-cmd --list-all-zones").splitlines() if found else []
    rules = sorted(line.strip() for line in listed if number in line)
    return {"mark": number, "zones": sorted(found), "rules": rules}


def _link(reader: Reader, path: str) -> str:
    """Where a link leads, as it is written; empty without one."""
    return reader.said(f"readlink {shlex.quote(path)} || :").strip()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
