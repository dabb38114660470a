"""Download everything that an inventory's hosts fetch into one directory."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from operations.bundle import checkouts, images, models, rpms, sums, wheels
from operations.bundle.fetch import BundleError, download
from operations.plan.artifacts.artifact import published
from operations.plan.artifacts.images import registry_of
from operations.plan.audit import bulletins
from operations.plan.balancing import load_balancer
from operations.plan.capacity.gpu import Gpu
from operations.plan.catalog.shapes import SHAPES
from operations.plan.errors import PlanError, one_line
from operations.plan.explain import KNOWN_GPUS, gpu_name, gpus_from
from operations.plan.inventory.door_settings import PYTHON as DOOR_PYTHON
from operations.plan.inventory.hosts import checked_hosts, settings_of
from operations.plan.inventory.settings import Settings
from operations.plan.machine.openpgp import armored, fingerprints
from operations.plan.machine.packages import BY_HAND, for_os, toolkit_url, wanted_packages
from operations.plan.monitoring import server
from operations.plan.planning import plan_release
from operations.plan.profile.profiles import PlanProfile, Profile, load_profile
from operations.plan.release import Release

# Oracle Linux's own packages: https://yum.oracle.com/ . git-lfs is in both versions' AppStream.
SYSTEM_REPOSITORIES = {
    "baseos": "https://yum.oracle.com/repo/OracleLinux/OL{os_major}/baseos/latest/$basearch/",
    "appstream": "https://yum.oracle.com/repo/OracleLinux/OL{os_major}/appstream/$basearch/",
}
MANIFEST = "bundle.json"
FORMAT = 1
# The settings that name sources: one bundle has one value of each
_SOURCES = (
    "docker_repository_url",
    "docker_gpg_key_url",
    "docker_gpg_fingerprint",
    "nvidia_container_toolkit_repository_url",
    "nvidia_container_toolkit_channel",
    "nvidia_container_toolkit_gpg_key_url",
    "nvidia_container_toolkit_gpg_fingerprint",
    "hub_endpoint",
    "git_mirrors",
    "image_registry",
    "docker_hub_registry",
    "docker_daemon_settings",
    "profile_overrides",
)
Entry = dict[str, Any]


def settings_in(inventory: Path) -> dict[str, Settings]:
    """
    The settings of each host of an inventory, with the data of its groups, as pyinfra reads them.

    Raises PlanError as a deploy would, and for a file that is no inventory or ends with an error.
    """
    if not inventory.is_file() or inventory.suffix != ".py":
        found = "a file of another kind" if inventory.is_file() else "no such file"
        then = "such as inventories/oci.py"
        expected = "the Python file of an inventory"
        raise PlanError("", found, expected, then, where=str(inventory), reference="no-inventory")
    try:
        names = runpy.run_path(str(inventory))
    except PlanError:
        raise
    except Exception as error:  # whatever a site's own Python raises
        found = f"{type(error).__name__}: {one_line(str(error))}"
        expected = "an inventory that runs without an error"
        raise PlanError("", found, expected, where=str(inventory), reference="python-error") from None
    hosts = checked_hosts(names.get("hosts"), inventory.name)
    # pyinfra takes each list of the module for a group
    groups = {
        name: [one[0] if isinstance(one, tuple) and one else one for one in value]
        for name, value in names.items()
        if name != "hosts" and not name.startswith("_") and isinstance(value, list)
    }
    return settings_of(hosts, inventory.stem, inventory.parent / "group_data", groups)


def gpus_for(one: Settings, profile: Profile, plan: Callable[[tuple[Gpu, ...]], Release]) -> Release:
    """
    The release for the GPUs of a host that nobody has asked: those of its shape or of its profile, else the first known that fit.

    + plan: makes the release for some GPUs

    Raises PlanError where none fit.
    """
    if one.shape:
        row = SHAPES[one.shape]
        return plan(gpus_from(f"{gpu_name(row)}:{row.gpu_count}"))
    if profile.hardware:
        return plan(gpus_from(f"{profile.hardware.gpu}:{profile.hardware.count}"))
    problem: PlanError | None = None
    for name in ("NVIDIA H200", *reversed(KNOWN_GPUS)):
        try:
            return plan(gpus_from(f"{name}:8"))
        except PlanError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def releases_of(inventory: Path, os_majors: Sequence[str]) -> list[Release]:
    """
    One release for each distinct host of an inventory and each version of Oracle Linux, planned for a GPU that fits.

    Raises PlanError as a deploy would, and if two hosts fetch from different sources.
    """
    settings = {name: one for name, one in settings_in(inventory).items() if one.serves}
    if not settings:
        raise PlanError(
            "",
            "hosts without a model alone",
            "a host that serves",
            where=str(inventory),
            reference="no-hosts",
        )
    first_name, first = next(iter(settings.items()))
    releases: dict[str, Release] = {}
    for name, one in settings.items():
        for key in _SOURCES:
            if getattr(one, key) != getattr(first, key):
                raise PlanError(
                    key,
                    getattr(one, key),
                    f"the same as {first_name}'s",
                    "make a bundle for each, from inventories of their own",
                    host=name,
                    reference="hosts-of-several-sources",
                )
        profile = load_profile(one.model, one.profile_overrides)
        everything = one.model_copy(update={"gpu_ids": "all"})
        for major in os_majors:
            release = gpus_for(one, profile, lambda gpus: plan_release(everything, gpus, major, profile))  # noqa: B023 - called at once
            # hosts with the same release may have different versions of docker
            releases[f"{release.id} {major} {wanted_packages(one, major)}"] = release
    return list(releases.values())


def servers_of(inventory: Path) -> list[Settings]:
    """The settings of an inventory's monitoring servers and load balancers. Raises PlanError."""
    return [one for one in settings_in(inventory).values() if not one.serves]


def make(
    releases: Sequence[Release],
    bundle: Path,
    group: str,
    url: str,
    system: Mapping[str, str] | None = None,
    python: str | None = None,
    servers: Sequence[Settings] = (),
) -> int:
    """
    The directory has everything that these releases fetch, and the group data for it. Returns the number of files.

    + group: the inventory's own group, for which the group data is written
    + url: where hosts will reach the bundle's server
    + system: name -> address of the distribution's repositories; None: the inventory's, or Oracle's
    + servers: monitoring servers and load balancers
    + python: the version that wheels are for; None: the images' version, from the support matrix

    Continues what an interrupted run left. Raises BundleError or PlanError with one line.
    """
    _begin(bundle)
    (bundle / sums.NAME).unlink(missing_ok=True)
    entries: list[Entry] = []
    try:
        entries += _packages(bundle, releases, system, servers)
        entries += _images(bundle, releases, servers)
        entries += _checkouts(bundle, releases)
        entries += _models(bundle, releases)
        entries += _wheels(bundle, releases, python)
        entries += _bulletins(bundle)
    except HTTPError as error:
        raise BundleError(
            f"{error.url.partition('?')[0]}: found HTTP {error.code}, expected an answer without an account"
        ) from None
    manifest = {
        "format": FORMAT,
        "url": url,
        "contents": sorted(entries, key=lambda e: (e["kind"], e["name"])),
    }
    (bundle / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    place = bundle / "group_data" / f"{group}.py"
    place.parent.mkdir(exist_ok=True)
    git_hosts = {urlsplit(entry["from"]).hostname or "" for entry in entries if entry["kind"] == "git"}
    text = group_data(releases, url, sorted(_system(releases[0].settings, system)), sorted(git_hosts))
    place.write_text(text, encoding="utf-8")
    for left in bundle.rglob("*.part"):
        left.unlink()
    return sums.write(bundle)


def _bulletins(bundle: Path) -> list[Entry]:
    """The feed of `tritonhost exposure`: the site has no network to read bulletins from."""
    feed, path = bulletins.newest([bulletins.OWN, bulletins.SHIPPED])
    (bundle / path.name).write_bytes(path.read_bytes())
    return [
        {"kind": "bulletins", "name": path.name, "from": feed.source, "pinned": feed.collected.isoformat()}
    ]


def _begin(bundle: Path) -> None:
    bundle.mkdir(parents=True, exist_ok=True)
    marker = bundle / MANIFEST
    if not marker.exists():
        if any(bundle.iterdir()):
            raise BundleError(
                f"{bundle}: found files of something else, expected an empty directory or a bundle"
            )
        marker.write_text("{}\n", encoding="utf-8")


def _system(settings: Settings, given: Mapping[str, str] | None) -> dict[str, str]:
    return dict(given or settings.system_repositories or SYSTEM_REPOSITORIES)


def _say(text: str) -> None:
    print(f"bundle: {text}", flush=True)


def _packages(
    bundle: Path,
    releases: Sequence[Release],
    system: Mapping[str, str] | None,
    servers: Sequence[Settings],
) -> list[Entry]:
    entries = []
    settings = releases[0].settings
    for name, url, fingerprint in (
        ("docker-ce", settings.docker_gpg_key_url, settings.docker_gpg_fingerprint),
        (
            "nvidia-container-toolkit",
            settings.nvidia_container_toolkit_gpg_key_url,
            settings.nvidia_container_toolkit_gpg_fingerprint,
        ),
    ):
        key = bundle / "keys" / name
        download(url, key)
        text = key.read_text(encoding="utf-8", errors="replace")
        if (found := fingerprints(text)) != [fingerprint]:
            raise BundleError(
                f"package key {url}: found {', '.join(found) or 'no OpenPGP key'}, expected {fingerprint}"
            )
        key.write_text(armored(text), encoding="utf-8")
        entries.append({"kind": "package key", "name": name, "from": url, "pinned": fingerprint})
    for major in sorted({release.os_major for release in releases}):
        repositories = {
            "docker-ce": settings.docker_repository_url,
            "nvidia-container-toolkit": toolkit_url(settings, major),
            **_system(settings, system),
        }
        urls = {name: for_os(url, major).replace("$basearch", "x86_64") for name, url in repositories.items()}
        directory = bundle / "rpm" / f"el{major}"
        there: list[rpms.Rpm] = []
        for name, url in urls.items():
            _say(f"metadata of {url}")
            there += rpms.mirror_metadata(url, directory / name, name)
        needed = needed_packages(releases, major, there, servers)
        _say(f"{len(needed)} packages for Oracle Linux {major}")
        for rpm in needed:
            rpms.fetch(rpm, urls[rpm.repository], directory / rpm.repository)
        entries += [
            {
                "kind": "rpm",
                "name": f"el{major}/{rpm.repository}/{rpm.location}",
                "from": f"{urls[rpm.repository].rstrip('/')}/{rpm.location}",
                "pinned": ":".join(rpm.checksum),
            }
            for rpm in needed
        ]
    return entries


def needed_packages(
    releases: Sequence[Release], major: str, there: Sequence[rpms.Rpm], servers: Sequence[Settings] = ()
) -> list[rpms.Rpm]:
    """
    Every available package that dnf may need on a host of this version, in a run or for an operator's own commands.

    A run installs only packages of `wanted_packages`. What no release's settings need, such as haproxy or mdadm, is not
    in the bundle either: after a change of such a setting, make the bundle again.
    """
    wanted = {pin for release in releases for pin in wanted_packages(release.settings, major).items()}
    for one in servers:
        kind = server if one.monitoring_server else load_balancer
        wanted |= set(kind.packages(one, major).items())
    return rpms.closure(there, sorted(wanted, key=str), BY_HAND)


def _images(bundle: Path, releases: Sequence[Release], servers: Sequence[Settings]) -> list[Entry]:
    wanted: dict[str, tuple[str, str]] = {}  # name:tag -> digest, registry
    of_hosts = [(release.settings, release.images) for release in releases]
    for settings, made in [
        *of_hosts,
        *((one, server.images(one)) for one in servers if one.monitoring_server),
    ]:
        for image in made:
            registry = registry_of(settings, image)
            wanted |= {name: (digest, registry) for name, digest in published(image.inputs).items()}
    entries = []
    for name, (digest, registry) in sorted(wanted.items()):
        _say(f"image {registry}/{name}")
        insecure = releases[0].settings.docker_daemon_settings.get("insecure-registries", [])
        plain = registry in insecure or f"http://{registry}" in insecure
        images.Registry(registry, plain).fetch(bundle, name.split(":")[0], digest)
        entries.append({"kind": "image", "name": name, "from": registry, "pinned": digest})
    return entries


def _checkouts(bundle: Path, releases: Sequence[Release]) -> list[Entry]:
    collector = checkouts.Collector(bundle, releases[0].settings.git_mirrors)
    for release in releases:
        inputs = release.source.inputs if release.source else {}
        if "repository" in inputs:  # otherwise it comes out of the image
            wanted = checkouts.Checkout(inputs["repository"], inputs["commit"], inputs["tag"])
            _say(f"git repository {wanted.url} {wanted.tag}")
            collector.fetch(wanted, inputs["submodules"], inputs["lfs"])
    return [
        {"kind": "git", "name": f"{c.url} {c.tag or c.commit[:12]}", "from": c.url, "pinned": c.commit}
        for c in sorted(set(collector.found), key=lambda c: (c.url, c.commit))
    ]


def _models(bundle: Path, releases: Sequence[Release]) -> list[Entry]:
    downloads = {
        step.artifact.key: step.artifact for release in releases for step in release.recipe.downloads
    }
    entries = []
    for artifact in downloads.values():
        _say(f"{artifact.kind} {artifact.inputs['repository']}")
        request = models.fetch(bundle, artifact)
        name = f"{request['repository']}"
        entries.append(
            {"kind": artifact.kind, "name": name, "from": request["endpoint"], "pinned": request["revision"]}
        )
    return entries


def _wheels(bundle: Path, releases: Sequence[Release], python: str | None) -> list[Entry]:
    entries: list[Entry] = []
    for release in releases:
        for image in release.images:
            requirements = image.files.get("requirements.txt")
            if requirements is None:
                continue
            # the door's image is the Python that its name says
            version = DOOR_PYTHON if image.name == "door" else python or release.stack.python
            if not version:
                raise BundleError(
                    f"Python of the image {release.stack.image}: found none in the support matrix, expected its version; "
                    "run python3 --version in it, and pass the answer with --python"
                )
            _say(f"wheels for Python {version}")
            index = release.settings.python_index_url
            names = wheels.fetch(bundle, requirements, version, index)
            entries += [
                {
                    "kind": "wheel",
                    "name": name,
                    "from": index or "pip's own index",
                    "pinned": "a hash of requirements.txt",
                }
                for name in names
            ]
    if entries:
        wheels.write_index(bundle)
    return list({entry["name"]: entry for entry in entries}.values())


def group_data(releases: Sequence[Release], url: str, system: Sequence[str], git_hosts: Sequence[str]) -> str:
    """
    The text of a group_data file that points to the bundle's server.

    + system: the names of the distribution's repositories; + git_hosts: the hosts whose repositories the bundle has
    """
    settings, base = releases[0].settings, url.rstrip("/")
    address = urlsplit(base).netloc
    data: dict[str, Any] = {
        "docker_repository_url": f"{base}/rpm/el{{os_major}}/docker-ce/",
        "docker_gpg_key_url": f"{base}/keys/docker-ce",
        "nvidia_container_toolkit_repository_url": f"{base}/rpm/el{{os_major}}/nvidia-container-toolkit/",
        "nvidia_container_toolkit_channel": "stable",
        "nvidia_container_toolkit_gpg_key_url": f"{base}/keys/nvidia-container-toolkit",
        "system_repositories": {name: f"{base}/rpm/el{{os_major}}/{name}/" for name in system},
        "hub_endpoint": f"{base}/hub",
        "git_mirrors": {f"https://{host}/": f"{base}/git/{host}/" for host in git_hosts},
        "image_registry": address,
        "docker_hub_registry": address,
        "python_index_url": f"{base}/pypi/simple/",
    }
    if base.startswith("http://"):
        insecure = [*settings.docker_daemon_settings.get("insecure-registries", []), f"http://{address}"]
        data["docker_daemon_settings"] = {
            **settings.docker_daemon_settings,
            "insecure-registries": list(dict.fromkeys(insecure)),
        }
    gated = [release for release in releases if getattr(release.profile, "gated", False)]
    if gated and not any(isinstance(release.profile, PlanProfile) for release in releases):
        # the bundle was made with the token and does not require one; the site controls who may have the files
        weights = {**settings.profile_overrides.get("weights", {}), "gated": False}
        data["profile_overrides"] = {**settings.profile_overrides, "weights": weights}
    lines = [f"{key} = {value!r}\n" for key, value in data.items()]
    return f'"""Everything from the bundle that {url} serves; written by `python -m operations.bundle make`."""\n\n{"".join(lines)}'
