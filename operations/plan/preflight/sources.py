"""Whether a host reaches what a deploy downloads from, and with what answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from operations.plan.catalog.host_checks import CHECKS
from operations.plan.catalog.sources import BACKEND_URL
from operations.plan.errors import one_line
from operations.plan.exposure import exporters
from operations.plan.inventory.settings import Settings
from operations.plan.machine.packages import for_os, runtime_packages, same_version, toolkit_url
from operations.plan.preflight.check import Check, Checks, Subject
from operations.plan.profile.profiles import PlanProfile, Profile
from operations.plan.profile.tables import Weights

NOT_TRUSTED = 60  # curl's exit code for a certificate
# May pass by itself, and the deploy's own steps ask again or wait for it
PASSING = frozenset(name for name in CHECKS if name.startswith("source ")) | {"name resolution"}


def sources(settings: Settings, profile: Profile, os_major: str) -> dict[str, str]:
    """Check name -> the URL that the host is asked to reach; only what a release of this profile comes from."""
    base = (for_os(settings.docker_repository_url, os_major), toolkit_url(settings, os_major))
    docker, toolkit = (
        f"{url.replace('$basearch', 'x86_64').rstrip('/')}/repodata/repomd.xml" for url in base
    )
    found = {"source docker": docker, "source toolkit": toolkit}
    if not isinstance(profile, PlanProfile):
        found["source git"] = mirrored(BACKEND_URL, settings.git_mirrors)
    found["source hub"] = settings.hub_endpoint
    found["source registry"] = registry_url(settings.image_registry, settings)
    node = exporters.wanted(settings).node
    if isinstance(profile, PlanProfile) or settings.gateway or settings.door or node:
        found["source docker hub"] = registry_url(settings.docker_hub_registry, settings)
    # otherwise pip's own default, which is pip's to know
    if (isinstance(profile, PlanProfile) or settings.door) and settings.python_index_url:
        found["source Python index"] = settings.python_index_url
    return found


def mirrored(url: str, mirrors: Mapping[str, str]) -> str:
    """A git URL as git fetches it: the longest prefix of `url.<base>.insteadOf` wins."""
    prefix = max((p for p in mirrors if url.startswith(p)), key=len, default="")
    return f"{mirrors[prefix]}{url[len(prefix) :]}" if prefix else url


def registry_url(registry: str, settings: Settings) -> str:
    """A registry's API, over HTTP where docker is told so."""
    insecure = settings.docker_daemon_settings.get("insecure-registries", ())
    plain = registry in [str(entry).removeprefix("http://") for entry in insecure]
    # docker.io, docker's own name for it, is not a host of the API: https://docs.docker.com/reference/api/registry/latest/
    host = "registry-1.docker.io" if registry == "docker.io" else registry
    return f"{'http' if plain else 'https'}://{host}/v2/"


def names(urls: Sequence[str]) -> list[str]:
    """The host names of URLs, which have to be resolved; addresses do not."""
    found = (urlsplit(url).hostname or "" for url in urls)
    return sorted({name for name in found if name and not re.fullmatch(r"[0-9.]+|.*:.*", name)})


def gated_weights(profile: Profile) -> list[Weights]:
    """What cannot be downloaded without a token."""
    if isinstance(profile, PlanProfile):
        return [encoder.weights for encoder in profile.encoders.values() if encoder.weights.gated]
    return [profile.weights] if profile.gated else []


def of_network(subject: Subject) -> Checks:
    health = subject.health
    os_major = (health.os_release.get("VERSION_ID") or "9").split(".")[0]
    urls = sources(subject.settings, subject.profile, os_major)
    asked = names(list(urls.values()))
    if not asked:
        yield Check("name resolution", "ok", "every source is named by its address")
    elif not all(name in health.names for name in asked):
        yield Check("name resolution", "not checked", "no name was asked for on the host")
    elif unknown := [name for name in asked if not health.names[name]]:
        through = bool(health.proxies)
        then = "see /etc/resolv.conf on the host, and the VCN's resolver"
        found = f"no address for {', '.join(unknown)}"
        if through:
            then = f"a proxy may do without: {', '.join(health.proxies)}"
        yield Check("name resolution", "warning" if through else "failed", found, "an address for each", then)
    else:
        yield Check("name resolution", "ok", f"{len(asked)} names have addresses")
    wanted = _wanted_sources(subject)
    for name, url in urls.items():
        yield _source(subject, name, url, name in wanted)
    yield _token(subject)


def _source(subject: Subject, name: str, url: str, wanted: bool) -> Check:
    answer = subject.health.sources.get(url)
    shown = one_line(url)
    if answer is None:
        return Check(
            name, "not checked", f"{shown} was not asked for on the host: no curl, or no answer in time"
        )
    repository = url.endswith("repomd.xml")
    bad = answer.status[:1] == "5" or answer.status == "407" or (repository and answer.status[:1] == "4")
    if answer.exit_code == 0 and not bad:
        return Check(name, "ok", shown)
    said = f"HTTP {answer.status}" if bad else answer.error or f"curl's exit code {answer.exit_code}"
    if not wanted:
        return Check(
            name, "warning", f"{shown}: {said}", "an answer", "not needed now: what it gives is on the host"
        )
    if subject.health.proxies and not bad:
        why = f"{shown}: {said}; a proxy is configured in {', '.join(subject.health.proxies)}, which curl was not told of"
        return Check(name, "not checked", why)
    then = "open the way there, or use a mirror: docs/how-to/mirrors.md"
    # dnf asks for the very same file, with the very same certificates; other programs have some of their own
    lasting = repository and (
        answer.status in ("401", "403", "404", "410") or answer.exit_code == NOT_TRUSTED
    )
    if lasting and not subject.health.proxies:
        then = "it will not pass by itself: correct the repository's address, its certificate or the mirror"
        return Check(name, "failed", f"{shown}: {said}", "an answer", then, lasting=True)
    return Check(name, "failed", f"{shown}: {said}", "an answer", then)


def _wanted_sources(subject: Subject) -> set[str]:
    """The sources that something is missing from; all of them where that is not known."""
    release, observed = subject.release, subject.observed
    if release is None or observed is None:
        return set(CHECKS)
    wanted = set()
    versions = runtime_packages(subject.settings, observed.os_major)
    toolkit = subject.settings.nvidia_container_toolkit_packages
    for name, version in versions.items():
        if not any(
            version is None or same_version(version, found) for found in observed.packages.get(name, ())
        ):
            wanted.add("source toolkit" if name in toolkit else "source docker")

    def complete(kind: str, key: str) -> bool:
        stored = observed.artifacts.get((kind, key))
        return stored is not None and not stored.problem

    lacking = [image.name for image in release.images if image.tag not in observed.images]
    if "serving" in lacking:
        wanted |= {"source registry", "source Python index"}
    if any(name != "serving" for name in lacking):
        wanted |= {"source registry", "source docker hub", "source Python index"}
    if release.source and not complete("source", release.source.key):
        wanted.add("source git")
    for step in release.recipe.downloads:
        spared = step.unless and complete(step.unless.kind, step.unless.key)
        if not spared and not complete(step.artifact.kind, step.artifact.key):
            wanted.add("source hub")
    return wanted


def _token(subject: Subject) -> Check:
    name = "hub token"
    gated = gated_weights(subject.profile)
    if not gated:
        return Check(name, "ok", "not needed: the model is not gated")
    if "source hub" not in _wanted_sources(subject):
        return Check(name, "ok", "not needed: the weights are on the host")
    if subject.hub is None:
        return Check(name, "not checked", f"{gated[0].repository} is gated, and the hub was not asked")
    expected = "" if subject.hub.verdict == "ok" else f"a token with access to {gated[0].repository}"
    return Check(name, subject.hub.verdict, subject.hub.found, expected, subject.hub.then)
