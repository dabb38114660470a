"""Packages at exact versions, from repositories whose keys are known."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

from pyinfra import host
from pyinfra.api.command import FunctionCommand, QuoteString, StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.operation import operation

from operations import etc_files, host_files
from operations.detached import run_and_follow
from operations.facts.packages import InstalledVersions, RemoteText, TrustedKeys, VersionLocks
from operations.plan.openpgp import fingerprints
from operations.plan.packages import (
    CONFLICTING_PACKAGES,
    DOCKER_KEY,
    TOOLKIT_KEY,
    install,
    only_repositories,
    removal,
    runtime_packages,
    same_version,
    tool_packages,
    trust,
)
from operations.plan.release import Release
from operations.plan.version_locks import LOCK_LIST, all_locks, tool_locks, with_locks
from operations.refusal import refuse


@deploy("Packages")
def install_tools(release: Release) -> None:
    """The repositories and their keys, git and git-lfs: nothing that a running service would notice."""
    settings, os_major = release.settings, release.os_major
    for_release = host_files.rendered(release)
    wait = settings.package_lock_wait_s
    trusted_key(
        name="Trust Docker's package key",
        url=settings.docker_gpg_key_url,
        fingerprint=settings.docker_gpg_fingerprint,
        path=DOCKER_KEY,
        lock_wait_s=wait,
    )
    trusted_key(
        name="Trust NVIDIA's package key",
        url=settings.nvidia_container_toolkit_gpg_key_url,
        fingerprint=settings.nvidia_container_toolkit_gpg_fingerprint,
        path=TOOLKIT_KEY,
        lock_wait_s=wait,
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
        versions=tool_packages(settings, os_major),
        locks=tool_locks(settings, os_major),
        # docker's stay: a host that waits for its turn must not be upgraded by somebody's `dnf update`
        keep_locks=True,
        lock_wait_s=wait,
        options=only_repositories(settings),
    )


@deploy("Packages")
def install_runtime(release: Release) -> None:
    """docker-ce and NVIDIA's container toolkit, and none of what conflicts with them; docker may be restarted by it."""
    settings, os_major = release.settings, release.os_major
    wait = settings.package_lock_wait_s
    # Before docker-ce: containerd.io conflicts with the distribution's runc.
    absent(name="Remove runc, podman and buildah", packages=CONFLICTING_PACKAGES, lock_wait_s=wait)
    pinned(
        name="Install docker and the toolkit at their versions",
        versions=runtime_packages(settings, os_major),
        locks=all_locks(settings, os_major),
        lock_wait_s=wait,
        options=only_repositories(settings),
    )


@operation()
def pinned(
    versions: Mapping[str, str | None],
    locks: Mapping[str, str],
    lock_wait_s: int,
    keep_locks: bool = False,
    options: Sequence[str] = (),
) -> Generator[StringCommand | FunctionCommand, None, None]:
    """
    Packages are installed at exactly these versions, upgraded or downgraded as needed, and dnf keeps them there.

    + versions: package name -> `[epoch:]version-release`; None accepts any version
    + locks: package name -> its line of dnf's version locks, which become these once the packages are installed
    + lock_wait_s: how long it may wait for other package managers, in seconds
    + keep_locks: locks of ours for other packages stay
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
    found = host.get_fact(VersionLocks)
    wanted = with_locks(found, locks, keep_locks)
    if drifted:
        work = install(versions, drifted, lock_wait_s, None if wanted == found else wanted, options)
        yield FunctionCommand(run_and_follow, (work,), {})
    elif wanted != found:
        yield etc_files.replacing(LOCK_LIST, "".join(f"{line}\n" for line in wanted))
    else:
        host.noop("packages are at their versions")


@operation()
def absent(packages: Sequence[str], lock_wait_s: int) -> Generator[FunctionCommand, None, None]:
    """
    None of these packages is installed.

    + packages: exact names
    + lock_wait_s: how long it may wait for other package managers, in seconds

    Removed by their full names as rpm knows them: `dnf remove runc` would also take a package that merely provides
    runc, which newer containerd.io packages do. Refused while a podman container runs, which would be killed.
    """
    installed = host.get_fact(InstalledVersions, names=list(packages))
    if not installed:
        host.noop("none of them is installed")
        return
    yield FunctionCommand(run_and_follow, (removal(sorted(installed), lock_wait_s),), {})


@operation()
def trusted_key(
    url: str, fingerprint: str, path: str, lock_wait_s: int
) -> Generator[StringCommand | FunctionCommand, None, None]:
    """
    The vendor's package key is at `path` and trusted by rpm, and it is the key with this fingerprint.

    + url: where the host finds the key; its fingerprint is computed on the controller before it is trusted
    + fingerprint: 40 hexadecimal digits
    + path: where repository files refer to it
    + lock_wait_s: how long it may wait for other package managers, in seconds
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
    yield FunctionCommand(run_and_follow, (trust(path, fingerprint, lock_wait_s),), {})
