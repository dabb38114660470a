"""Packages at exact versions, from repositories whose keys are known."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

from pyinfra import host
from pyinfra.api.command import FunctionCommand, QuoteString, StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.operation import operation

from operations import etc_files, host_files
from operations.detached import run_and_follow
from operations.facts.packages import InstalledVersions, RemoteText, TrustedKeys
from operations.plan.openpgp import fingerprints
from operations.plan.packages import (
    CONFLICTING_PACKAGES,
    DOCKER_KEY,
    TOOLKIT_KEY,
    install,
    only_repositories,
    runtime_packages,
    same_version,
    tool_packages,
)
from operations.plan.release import Release
from operations.refusal import refuse
from operations.scripts import host_script

DNF_TIMEOUT = 1800  # seconds for one dnf command: a slow mirror is slow, a stuck one is reported


@deploy("Packages")
def install_tools(release: Release) -> None:
    """The repositories and their keys, git and git-lfs: nothing that a running service would notice."""
    settings = release.settings
    for_release = host_files.rendered(release)
    trusted_key(
        name="Trust Docker's package key",
        url=settings.docker_gpg_key_url,
        fingerprint=settings.docker_gpg_fingerprint,
        path=DOCKER_KEY,
    )
    trusted_key(
        name="Trust NVIDIA's package key",
        url=settings.nvidia_container_toolkit_gpg_key_url,
        fingerprint=settings.nvidia_container_toolkit_gpg_fingerprint,
        path=TOOLKIT_KEY,
    )
    for title, path in (
        ("Docker's repository", host_files.DOCKER_REPOSITORY),
        ("NVIDIA container toolkit's repository", host_files.TOOLKIT_REPOSITORY),
    ):
        etc_files.written(name=title, path=path, text=for_release[path])
    if settings.system_repositories:
        path = host_files.SYSTEM_REPOSITORIES
        etc_files.written(name="The distribution's repositories", path=path, text=for_release[path])
    pinned(
        name="Install tools at their versions",
        versions=tool_packages(settings, release.os_major),
        options=only_repositories(settings),
    )


@deploy("Packages")
def install_runtime(release: Release) -> None:
    """docker-ce and NVIDIA's container toolkit, and none of what conflicts with them; docker may be restarted by it."""
    # Before docker-ce: containerd.io conflicts with the distribution's runc.
    absent(name="Remove runc, podman and buildah", packages=CONFLICTING_PACKAGES)
    pinned(
        name="Install docker and the toolkit at their versions",
        versions=runtime_packages(release.settings, release.os_major),
        options=only_repositories(release.settings),
    )


@operation()
def pinned(
    versions: Mapping[str, str | None], options: Sequence[str] = ()
) -> Generator[FunctionCommand, None, None]:
    """
    Packages are installed at exactly these versions, upgraded or downgraded as needed.

    + versions: package name -> `[epoch:]version-release`; None accepts any version
    + options: further ones of dnf's

    `dnf.packages` of pyinfra 3.10 ignores the version once any is installed
    (https://github.com/pyinfra-dev/pyinfra/issues/1910) and asks the repositories once per package. This stays
    after the fix for downgrades, for its one query, and because dnf is not to be ended in the middle by a lost connection.
    """
    installed = host.get_fact(InstalledVersions, names=sorted(versions))
    drifted = [
        name
        for name, version in sorted(versions.items())
        if not any(version is None or same_version(version, found) for found in installed.get(name, ()))
    ]
    if not drifted:
        host.noop("packages are at their versions")
        return
    yield FunctionCommand(run_and_follow, (install(versions, drifted, options),), {})


@operation()
def absent(packages: Sequence[str]) -> Generator[StringCommand, None, None]:
    """
    None of these packages is installed.

    + packages: exact names

    Removed by their full names as rpm knows them: `dnf remove runc` would also take a package that merely provides
    runc, which newer containerd.io packages do. Refused while a podman container runs, which would be killed.
    """
    installed = host.get_fact(InstalledVersions, names=list(packages))
    if not installed:
        host.noop("none of them is installed")
        return
    yield StringCommand(
        host_script("remove_packages.sh", {"NAMES": "\n".join(sorted(installed))}), _timeout=DNF_TIMEOUT
    )


@operation()
def trusted_key(
    url: str, fingerprint: str, path: str
) -> Generator[StringCommand | FunctionCommand, None, None]:
    """
    The vendor's package key is at `path` and trusted by rpm, and it is the key with this fingerprint.

    + url: where the host finds the key; its fingerprint is computed on the controller before it is trusted
    + fingerprint: 40 hexadecimal digits
    + path: where repository files refer to it
    """
    trusted = host.get_fact(TrustedKeys, path=path)
    if fingerprint in fingerprints(trusted.text) and fingerprint[-8:].lower() in trusted.short_ids:
        host.noop("the key is trusted")
        return
    text = host.get_fact(RemoteText, url=url)
    found = fingerprints(text)
    if found != [fingerprint]:  # rpm --import would trust every key of the file
        shown = ", ".join(found) or "no OpenPGP key"
        yield refuse(
            f"package key {url}: found {shown}, expected {fingerprint} alone; check *_gpg_fingerprint"
        )
        return
    place = QuoteString(path)
    yield StringCommand("install", "-D", "-m", "0644", "/dev/stdin", place, _stdin=text)
    yield StringCommand("rpm", "--import", place)
