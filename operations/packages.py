"""Packages at exact versions, from repositories whose keys are known."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

from pyinfra import host
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.operation import operation

from operations import etc_files
from operations.facts.packages import InstalledLike, InstalledVersions, RemoteText, TrustedKeys, VersionLocks
from operations.plan.catalog.package_names import CONFLICTING_PACKAGES, OTHER_ENGINES
from operations.plan.errors import one_line
from operations.plan.machine.openpgp import armored, fingerprints
from operations.plan.machine.packages import (
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
from operations.plan.machine.version_locks import LOCK_LIST, all_locks, tool_locks, with_locks
from operations.plan.release import Release
from operations.remote import host_files, repository_files
from operations.remote.detached import run_and_follow
from operations.remote.refusal import refuse


@deploy("Packages")
def install_tools(release: Release) -> None:
    """The repositories and their keys, git and git-lfs: nothing that affects a running service."""
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
        ("Docker's repository", repository_files.DOCKER_REPOSITORY),
        ("NVIDIA container toolkit's repository", repository_files.TOOLKIT_REPOSITORY),
    ):
        etc_files.written(name=title, path=path, text=for_release[path].text)
    if settings.system_repositories:
        path = repository_files.SYSTEM_REPOSITORIES
        etc_files.written(name="The distribution's repositories", path=path, text=for_release[path].text)
    pinned(
        name="Install tools at their versions",
        versions=tool_packages(settings, os_major),
        locks=tool_locks(settings, os_major),
        # docker's locks stay: a `dnf update` must not upgrade docker on a host that still waits for its turn
        keep_locks=True,
        lock_wait_s=wait,
        options=only_repositories(settings),
    )


@deploy("Packages")
def install_runtime(release: Release) -> None:
    """docker-ce and NVIDIA's container toolkit, without the packages that conflict with them. May restart docker."""
    settings, os_major = release.settings, release.os_major
    wait = settings.package_lock_wait_s
    # Before docker-ce: containerd.io conflicts with the distribution's runc.
    absent(
        name="Remove runc, podman and buildah",
        packages=CONFLICTING_PACKAGES,
        lock_wait_s=wait,
        instead=runtime_packages(settings, os_major),
        options=only_repositories(settings),
        refused=OTHER_ENGINES,
    )
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
    + lock_wait_s: seconds to wait for other package managers
    + keep_locks: keep our locks for other packages
    + options: further dnf options

    `dnf.packages` of pyinfra 3.10 ignores the version once any is installed
    (https://github.com/pyinfra-dev/pyinfra/issues/1910) and queries the repositories once per package. Keep this
    operation after that fix: it downgrades, it makes one query, and a lost connection does not end dnf halfway.
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
def absent(
    packages: Sequence[str],
    lock_wait_s: int,
    instead: Mapping[str, str | None],
    options: Sequence[str] = (),
    refused: Sequence[str] = (),
) -> Generator[FunctionCommand, None, None]:
    """
    None of these packages is installed.

    + packages: exact names
    + lock_wait_s: seconds to wait for other package managers
    + instead: what is installed in their place, name -> version; if dnf could not install it, nothing is removed
    + options: further dnf options
    + refused: patterns of packages that are not removed here, but that dnf would later replace or fail on

    They are removed by their full rpm names: `dnf remove runc` would also remove a package that only provides runc, as
    newer containerd.io packages do. Refused while a podman container runs, because it would be killed.
    """
    if refused and (others := host.get_fact(InstalledLike, patterns=list(refused))):
        # dnf replaces what docker-ce or containerd.io obsoletes, without a question: its containers would end
        yield refuse(
            f"packages: found {', '.join(others)}, expected no container engine beside docker-ce, which takes the place "
            f"of another one and ends its containers; dnf remove {' '.join(others)} yourself if that may go, then run "
            "again; nothing was changed"
        )
        return
    installed = host.get_fact(InstalledVersions, names=list(packages))
    if not installed:
        host.noop("none of them is installed")
        return
    work = removal(sorted(installed), lock_wait_s, instead, options)
    yield FunctionCommand(run_and_follow, (work,), {})


@operation()
def trusted_key(
    url: str, fingerprint: str, path: str, lock_wait_s: int
) -> Generator[StringCommand | FunctionCommand, None, None]:
    """
    The vendor's package key is at `path`, rpm trusts it, and it is one key with this fingerprint.

    + url: where the host downloads the key; its fingerprint is computed on the controller before it is trusted
    + fingerprint: 40 hexadecimal digits
    + path: where repository files refer to it
    + lock_wait_s: seconds to wait for other package managers
    """
    trusted = host.get_fact(TrustedKeys, path=path)
    ours = (
        fingerprints(trusted.text) == [fingerprint] and armored(trusted.text).strip() == trusted.text.strip()
    )
    if ours and fingerprint[-8:].lower() in trusted.short_ids:
        host.noop("the key is trusted")
        return
    text = host.get_fact(RemoteText, url=url)
    found = fingerprints(text)
    if found != [fingerprint]:  # rpm --import would trust every key of the file
        if text.startswith("curl: ("):
            yield refuse(
                f"package key {url}: found {one_line(text)[:300]}, expected the key; correct the address, or allow this connection"
            )
            return
        page = text.lstrip()[:100].lower().startswith(("<!doctype html", "<html"))
        shown = (
            ", ".join(found)
            or f"no OpenPGP key{' but an HTML page, as of a login or a proxy' if page else ''}"
        )
        yield refuse(
            f"package key {url}: found {shown}, expected {fingerprint} alone; check *_gpg_fingerprint"
        )
        return
    yield etc_files.replacing(path, armored(text))
    yield FunctionCommand(run_and_follow, (trust(path, fingerprint, lock_wait_s),), {})
