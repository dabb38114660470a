"""Which packages a host must have, at which versions, and from which repositories."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace

from operations.plan.artifacts.artifact import HostCommand
from operations.plan.artifacts.keys import Inputs
from operations.plan.catalog.package_names import CONFLICTING_PACKAGES, UNTOUCHED
from operations.plan.errors import PlanError
from operations.plan.inventory.settings import Settings

# Parts of podman and buildah that require them, and are removed with them. Any other package that requires one is refused by name.
GO_ALONG = (
    *(
        "podman-docker",
        "podman-catatonit",
        "podman-gvproxy",
        "podman-plugins",
        "podman-remote",
        "podman-tests",
    ),
    "buildah-tests",
)
# the paths of the vendors' keys, which their repository files name
DOCKER_KEY = "/etc/pki/rpm-gpg/RPM-GPG-KEY-docker-ce"
TOOLKIT_KEY = "/etc/pki/rpm-gpg/RPM-GPG-KEY-nvidia-container-toolkit"
PACKAGE_KEYS = (DOCKER_KEY, TOOLKIT_KEY)
# the vendors' repositories, as dnf names them
DOCKER_ID, TOOLKIT_ID = VENDORS = ("docker-ce-stable", "nvidia-container-toolkit")
# what a host remembers of the time before this tool: host_record.py
RECORD = "/etc/tritonhost"
# nft, which firewalld brings; semanage, for SELinux: at the distribution's version
NETWORK_PACKAGES: dict[str, str | None] = {"nftables": None, "policycoreutils-python-utils": None}
# Packages that a run does not need on every host, and asks the operator to install if they are missing: those with which
# grow_root.sh grows the root file system, and those that the preflight checks. A host without a network needs them in its bundle.
BY_HAND = ("cloud-utils-growpart", "e2fsprogs", "firewalld", "lvm2", "xfsprogs")
# containerd.io requires it, and on Oracle Linux 8 it is a package of a module: its availability is checked before podman is
# removed. https://github.com/geerlingguy/ansible-role-docker/blob/master/tasks/setup-RedHat.yml
SELINUX_POLICY = "container-selinux"
# dnf's plugin that reads version_locks.LOCK_LIST; in BaseOS of Oracle Linux 8 and 9
LOCK_PLUGIN = "python3-dnf-plugin-versionlock"
# Grows the root file system's partition; in AppStream of Oracle Linux 8 and 9, and on Oracle's own images.
GROWPART = "cloud-utils-growpart"
# --refresh: dnf keeps a repository's metadata for two days, and would not find a version that was published since then.
# exit_on_lock: dnf waits for its locks without a limit; run_unlocked.sh waits instead, with a limit.
# install_weak_deps: a recommended package would be installed at today's version of the repositories.
# best, strict: a host's own dnf.conf must not make dnf silently take another version or skip a package.
# No --allowerasing: conflicting packages are removed by name.
INSTALL = (
    *("dnf", "install", "--refresh", "--assumeyes"),
    *("--setopt=exit_on_lock=True", "--setopt=install_weak_deps=False"),
    *("--setopt=best=True", "--setopt=strict=True"),
    *(f"--exclude={name}" for name in UNTOUCHED),
)
# A trial: the same, but dnf answers no to its own question. The new version locks are not written yet, and conflicting packages
# are still installed.
WHETHER = (
    *(word for word in INSTALL if word != "--assumeyes"),
    *("--assumeno", "--allowerasing", "--disableplugin=versionlock"),
)
SUPPORTED_OS_MAJORS = ("8", "9")


def keys(settings: Settings) -> tuple[tuple[str, str], ...]:
    """Each vendor's package key: its path and its fingerprint."""
    return (
        (DOCKER_KEY, settings.docker_gpg_fingerprint),
        (TOOLKIT_KEY, settings.nvidia_container_toolkit_gpg_fingerprint),
    )


def toolkit_url(settings: Settings, os_major: str) -> str:
    """The container toolkit's repository, for the wanted channel."""
    url = settings.nvidia_container_toolkit_repository_url
    return for_os(url, os_major).replace("{channel}", settings.nvidia_container_toolkit_channel)


def wanted_packages(settings: Settings, os_major: str) -> dict[str, str | None]:
    """Package name -> [epoch:]version-release; None for any version of the repositories."""
    return {**runtime_packages(settings, os_major), **tool_packages(settings, os_major)}


def runtime_packages(settings: Settings, os_major: str) -> dict[str, str | None]:
    """The packages whose installation restarts docker, or changes what running containers depend on."""
    return _for_os({**settings.docker_packages, **settings.nvidia_container_toolkit_packages}, os_major)


def tool_packages(settings: Settings, os_major: str) -> dict[str, str | None]:
    """The others, which do not affect services."""
    front = settings.haproxy_packages if settings.front != "none" else {}
    disks: dict[str, str | None] = {"mdadm": None, "xfsprogs": None} if settings.local_disks != "none" else {}
    of_dnf = {LOCK_PLUGIN: None} if settings.version_lock else {}
    own = {SELINUX_POLICY: None, **NETWORK_PACKAGES, **of_dnf}
    return _for_os({**own, **settings.git_packages, **front, **disks, **settings.extra_packages}, os_major)


def growth_packages(settings: Settings, os_major: str) -> dict[str, str | None]:
    """What a run needs only on a host whose partition has to grow, before there is room for the tools."""
    if not settings.grow_root_file_system:
        return {}
    return {GROWPART: tool_packages(settings, os_major).get(GROWPART)}


def _for_os(packages: Mapping[str, str | None], os_major: str) -> dict[str, str | None]:
    return {name: for_os(version, os_major) if version else None for name, version in packages.items()}


def only_repositories(settings: Settings, vendors: Sequence[str] = VENDORS) -> tuple[str, ...]:
    """
    dnf's options for only the vendors' and the inventory's own repositories; none if the inventory names none.

    + vendors: those that the host has: dnf refuses an unknown one
    """
    if not settings.system_repositories:
        return ()
    ours = (*vendors, *map(system_repository_id, settings.system_repositories))
    return ("--disablerepo=*", *(f"--enablerepo={name}" for name in ours))


def only_system_repositories(settings: Settings) -> tuple[str, ...]:
    """dnf's options for only the distribution's packages: the vendors' repositories may not be set up yet."""
    if not settings.system_repositories:
        return ()
    return (
        "--disablerepo=*",
        *(f"--enablerepo={system_repository_id(name)}" for name in settings.system_repositories),
    )


def system_repository_id(name: str) -> str:
    """dnf's name of a repository of `system_repositories`."""
    return f"tritonhost-{name}"


def install(
    versions: Mapping[str, str | None],
    drifted: Sequence[str],
    lock_wait_s: int = 0,
    lock_list: Sequence[str] | None = None,
    options: Sequence[str] = (),
) -> HostCommand:
    """
    dnf's installation of the packages that are not at their version, as detached work.

    + versions: every package of the set with its version; the work is named after them
    + drifted: the names of those that need it
    + lock_wait_s: how long it may wait for other package managers, in seconds
    + lock_list: the new lines of dnf's version locks; None leaves them
    + options: further dnf options

    dnf installs an exact version, whether it is newer or older than the installed one: https://dnf.readthedocs.io/en/latest/command_ref.html.
    """
    specs = _specs({name: versions[name] for name in drifted})
    result = f"{', '.join(specs)} to be installed from the repositories of /etc/yum.repos.d"
    proof = " && ".join(_installed(name, versions[name]) for name in drifted)
    work = _packages_work(
        {"versions": dict(versions)}, (*INSTALL, *options, *specs), result, proof, lock_wait_s
    )
    if lock_list is None:
        return work
    under = ("sh", _beside(work, "under_locks.sh"), _beside(work, "versionlock.list"))
    text = "".join(f"{line}\n" for line in lock_list)
    files = {**work.files, "under_locks.sh": "@files/host/under_locks.sh", "versionlock.list": text}
    return replace(work, commands=((*under, *work.commands[0]),), files=files)


def exact(title: str, versions: Mapping[str, str | None], lock_wait_s: int) -> HostCommand:
    """
    dnf's installation of packages at these versions, all of them or none, as detached work; a host's record is not told of it.

    + title: of the work
    + lock_wait_s: seconds to wait for other package managers
    """
    specs = _specs(versions)
    proof = " && ".join(_installed(name, version) for name, version in versions.items())
    work = HostCommand(
        title,
        (),
        f"{', '.join(specs)} to be installed from the repositories of /etc/yum.repos.d",
        {"versions": dict(versions)},
        proof,
        files={"run_unlocked.sh": "@files/host/run_unlocked.sh"},
    )
    # what a deploy otherwise leaves alone, and what a site has locked meanwhile
    install = (
        *(word for word in INSTALL if not word.startswith("--exclude=")),
        "--disableplugin=versionlock",
    )
    command = ("sh", _beside(work, "run_unlocked.sh"), str(lock_wait_s), *install, *specs)
    return replace(work, commands=(command,))


def _specs(versions: Mapping[str, str | None]) -> list[str]:
    """Packages with their versions, as dnf's arguments."""
    return [f"{name}-{version}" if version else name for name, version in versions.items()]


def _installed(name: str, version: str | None) -> str:
    """A shell command that succeeds if a package is installed, at this version if one is given."""
    if not version:
        return shlex.join(["rpm", "-q", "--quiet", name])
    form = "%{EPOCHNUM}:%{VERSION}-%{RELEASE}" if ":" in version else "%{VERSION}-%{RELEASE}"
    asked = shlex.join(["rpm", "-q", "--qf", f"{form}\\n", name])
    return f"{asked} | grep -qxF {shlex.quote(version)}"


def trust(path: str, fingerprint: str, lock_wait_s: int = 0) -> HostCommand:
    """rpm's import of a key file, as detached work: like any other change, it waits for the lock of rpm's database."""
    identity = {"key": path, "fingerprint": fingerprint}
    # rpm's name of a key: its short id
    proof = f"rpm -q --quiet gpg-pubkey-{fingerprint[-8:].lower()}"
    return _packages_work(identity, ("rpm", "--import", path), f"{path} trusted by rpm", proof, lock_wait_s)


def removal(
    names: Sequence[str] = (),
    lock_wait_s: int = 0,
    instead: Mapping[str, str | None] | None = None,
    options: Sequence[str] = (),
) -> HostCommand:
    """
    dnf's removal of these conflicting packages, as detached work. It removes no other packages than GO_ALONG.

    + instead: what is installed in their place, name -> version: if dnf could not install it, nothing is removed
    + options: further options of the dnf that checks it
    """
    identity = {"absent": list(CONFLICTING_PACKAGES)}
    proof = " && ".join(f"! {_installed(name, None)}" for name in names)
    work = _packages_work(identity, (), f"{', '.join(names)} removed", proof, lock_wait_s)
    run = _beside(work, "run_unlocked.sh")
    asked = _beside(work, "instead")
    command = (
        *_recorded(work),
        *("sh", _beside(work, "remove_packages.sh"), run, str(lock_wait_s), ",".join(GO_ALONG), asked),
        *names,
    )
    words = (*WHETHER, *options, *_specs(instead)) if instead else ()
    files = {
        **work.files,
        "remove_packages.sh": "@files/host/remove_packages.sh",
        "instead": "".join(f"{word}\n" for word in words),
    }
    return replace(work, commands=(command,), files=files)


def _packages_work(
    identity: Inputs, command: Sequence[str], result: str, proof: str, lock_wait_s: int
) -> HostCommand:
    """A command of the package manager, which starts when no other process holds its locks."""
    scripts = {name: f"@files/host/{name}" for name in ("run_unlocked.sh", "record_packages.sh")}
    work = HostCommand("packages", (), result, identity, proof, files=scripts)
    run = ("sh", _beside(work, "run_unlocked.sh"), str(lock_wait_s))
    return replace(work, commands=((*_recorded(work), *run, *command),))


def _recorded(work: HostCommand) -> tuple[str, ...]:
    """What comes before a command that installs or removes: it notes what came and went."""
    return ("sh", _beside(work, "record_packages.sh"), RECORD)


def _beside(work: HostCommand, name: str) -> str:
    """The path of a file of the work while it runs."""
    return f"/run/tritonhost/{work.unit}/{name}"


def for_os(text: str, os_major: str) -> str:
    """`{os_major}` filled in: a literal major version, because $releasever may be a minor one on Oracle Linux."""
    return text.replace("{os_major}", os_major)


def same_version(wanted: str, installed: str) -> bool:
    """Whether an installed epoch:version-release is the wanted one; without a wanted epoch, any epoch fits."""
    return installed == wanted or (":" not in wanted and installed.partition(":")[2] == wanted)


def check_os(os_release: dict[str, str], architecture: str) -> str:
    """
    The host's Oracle Linux major version.

    Raises PlanError for another distribution, version or processor.
    """
    name, version = os_release.get("ID", ""), os_release.get("VERSION_ID", "")
    major = version.split(".")[0]
    if name != "ol" or major not in SUPPORTED_OS_MAJORS:
        found = f"{name} {version}".strip()
        raise PlanError(
            "operating system", found, "Oracle Linux 8 or 9", reference="operating-system-not-supported"
        )
    if architecture != "x86_64":
        then = "the serving images are made for it alone"
        raise PlanError("processor", architecture, "x86_64", then, reference="processor-not-supported")
    return major
