"""Which packages a host holds, at which versions, and from which repositories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from operations.plan.artifacts import HostCommand
from operations.plan.errors import PlanError
from operations.plan.keys import Inputs
from operations.plan.settings import Settings

# containerd.io conflicts with and obsoletes runc, and podman and buildah require runc: Oracle Linux ships all three.
# https://docs.docker.com/engine/install/rhel/#uninstall-old-versions
CONFLICTING_PACKAGES = ("podman", "buildah", "runc")
# where the vendors' keys are put, which their repository files name
DOCKER_KEY = "/etc/pki/rpm-gpg/RPM-GPG-KEY-docker-ce"
TOOLKIT_KEY = "/etc/pki/rpm-gpg/RPM-GPG-KEY-nvidia-container-toolkit"
PACKAGE_KEYS = (DOCKER_KEY, TOOLKIT_KEY)
# nft, which firewalld brings; semanage, for SELinux: whatever version the distribution has
NETWORK_PACKAGES: dict[str, str | None] = {"nftables": None, "policycoreutils-python-utils": None}
# What a run does not want of every host, and tells people to install where it finds none of it: the programs that grow_root.sh
# grows the root file system with, and what the preflight looks for. A host without a network has to find them in its bundle.
BY_HAND = ("cloud-utils-growpart", "e2fsprogs", "firewalld", "lvm2", "xfsprogs")
# containerd.io requires it, and on Oracle Linux 8 it is a package of a module: that it can be had is known before podman
# is removed. https://github.com/geerlingguy/ansible-role-docker/blob/master/tasks/setup-RedHat.yml
SELINUX_POLICY = "container-selinux"
# dnf's plugin that reads version_locks.LOCK_LIST; in BaseOS of Oracle Linux 8 and 9
LOCK_PLUGIN = "python3-dnf-plugin-versionlock"
# Grows the root file system's partition; in AppStream of Oracle Linux 8 and 9, and on Oracle's own images.
GROWPART = "cloud-utils-growpart"
# What our dnf never installs, upgrades or replaces: a kernel for which no driver is built, or a driver that does not match
# its kernel, its fabric manager or the image it came with, leaves a host without GPUs after the next boot. The names are
# those of Oracle's kernels (kernel, kernel-uek), NVIDIA's driver packages (https://docs.nvidia.com/datacenter/tesla/
# driver-installation-guide/), and the network stack of Oracle's GPU images. By name rather than `nvidia-*`, `kmod-*` and
# `kernel*`: those are also the container toolkit, a library of systemd (kmod-libs), and what compilers need (kernel-headers).
UNTOUCHED = (
    "kernel",
    "kernel-core",
    "kernel-modules*",
    "kernel-devel*",
    "kernel-uek*",
    "kmod-nvidia*",
    "kmod-open-nvidia*",
    "akmod-nvidia*",
    "dkms-nvidia*",
    "nvidia-driver*",
    "nvidia-kmod*",
    "nvidia-open*",
    "nvidia-fabric*",
    "nvidia-imex*",
    "nvidia-modprobe*",
    "nvidia-persistenced*",
    "libnvidia-cfg*",
    "libnvidia-fbc*",
    "libnvidia-gpucomp*",
    "libnvidia-ml*",
    "libnvidia-nscq*",
    "libnvsdm*",
    "cuda-drivers*",
    "kmod-mlnx*",
    "mlnx-ofa_kernel*",
    "doca-*",
)
# --refresh: dnf believes for two days what a repository held when it last looked, and a version that was published since
#   then would not be found.
# exit_on_lock: dnf waits for its locks without limit; run_unlocked.sh waits for it, with one.
# install_weak_deps: a recommended package would come at whatever version the repositories hold today.
# best, strict: a host's own dnf.conf must not make dnf take another version, or leave a package out, in silence.
# No --allowerasing: what has to go is removed by name.
INSTALL = (
    *("dnf", "install", "--refresh", "--assumeyes"),
    *("--setopt=exit_on_lock=True", "--setopt=install_weak_deps=False"),
    *("--setopt=best=True", "--setopt=strict=True"),
    *(f"--exclude={name}" for name in UNTOUCHED),
)
SUPPORTED_OS_MAJORS = ("8", "9")


def keys(settings: Settings) -> tuple[tuple[str, str], ...]:
    """Where each vendor's package key is put, and its fingerprint."""
    return (
        (DOCKER_KEY, settings.docker_gpg_fingerprint),
        (TOOLKIT_KEY, settings.nvidia_container_toolkit_gpg_fingerprint),
    )


def toolkit_url(settings: Settings, os_major: str) -> str:
    """The container toolkit's repository, of the channel that is asked for."""
    url = settings.nvidia_container_toolkit_repository_url
    return for_os(url, os_major).replace("{channel}", settings.nvidia_container_toolkit_channel)


def wanted_packages(settings: Settings, os_major: str) -> dict[str, str | None]:
    """Package name -> [epoch:]version-release; None for whatever version the repositories hold."""
    return {**runtime_packages(settings, os_major), **tool_packages(settings, os_major)}


def runtime_packages(settings: Settings, os_major: str) -> dict[str, str | None]:
    """Those whose installation restarts docker, or changes what running containers rest on."""
    return _for_os({**settings.docker_packages, **settings.nvidia_container_toolkit_packages}, os_major)


def tool_packages(settings: Settings, os_major: str) -> dict[str, str | None]:
    """The others: no service notices them."""
    front = settings.haproxy_packages if settings.front != "none" else {}
    disks: dict[str, str | None] = {"mdadm": None, "xfsprogs": None} if settings.local_disks != "none" else {}
    of_dnf = {LOCK_PLUGIN: None} if settings.version_lock else {}
    own = {SELINUX_POLICY: None, **NETWORK_PACKAGES, **of_dnf}
    return _for_os({**own, **settings.git_packages, **front, **disks, **settings.extra_packages}, os_major)


def growth_packages(settings: Settings, os_major: str) -> dict[str, str | None]:
    """What a run needs of a host whose partition has to grow, and of no other: before there is room for the tools."""
    if not settings.grow_root_file_system:
        return {}
    return {GROWPART: tool_packages(settings, os_major).get(GROWPART)}


def _for_os(packages: Mapping[str, str | None], os_major: str) -> dict[str, str | None]:
    return {name: for_os(version, os_major) if version else None for name, version in packages.items()}


def only_repositories(settings: Settings) -> tuple[str, ...]:
    """dnf's options that leave no repository but the vendors' and the inventory's own; none where it names none."""
    if not settings.system_repositories:
        return ()
    ours = (
        "docker-ce-stable",
        "nvidia-container-toolkit",
        *map(system_repository_id, settings.system_repositories),
    )
    return ("--disablerepo=*", *(f"--enablerepo={name}" for name in ours))


def only_system_repositories(settings: Settings) -> tuple[str, ...]:
    """dnf's options for what the distribution itself has: the vendors' repositories may not be set up yet."""
    if not settings.system_repositories:
        return ()
    return (
        "--disablerepo=*",
        *(f"--enablerepo={system_repository_id(name)}" for name in settings.system_repositories),
    )


def system_repository_id(name: str) -> str:
    """What dnf calls a repository of `system_repositories`."""
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

    + versions: every package of the set with its version, which the work is named after
    + drifted: of those, the names that need it
    + lock_wait_s: how long it may wait for other package managers, in seconds
    + lock_list: the lines of dnf's version locks, where they are to become others
    + options: further ones of dnf's

    An exact version is installed whichever one is there: https://dnf.readthedocs.io/en/latest/command_ref.html.
    """
    specs = [f"{name}-{versions[name]}" if versions[name] else name for name in drifted]
    hint = f"; {GIT_LFS_HINT}" if "git-lfs" in drifted else ""
    result = f"{', '.join(specs)} to be installed from the repositories of /etc/yum.repos.d{hint}"
    work = _packages_work({"versions": dict(versions)}, (*INSTALL, *options, *specs), result, lock_wait_s)
    if lock_list is None:
        return work
    under = ("sh", _beside(work, "under_locks.sh"), _beside(work, "versionlock.list"))
    text = "".join(f"{line}\n" for line in lock_list)
    files = {**work.files, "under_locks.sh": "@files/host/under_locks.sh", "versionlock.list": text}
    return replace(work, commands=((*under, *work.commands[0]),), files=files)


# RHEL 8 and 9 have it in AppStream, and so should Oracle Linux; a site's mirror may be without.
GIT_LFS_HINT = (
    "git-lfs is in ol8_appstream and ol9_appstream, and in EPEL: where dnf does not find it, enable one of them with "
    "dnf config-manager --enable ol9_appstream, or dnf install oracle-epel-release-el9"
)


def trust(path: str, fingerprint: str, lock_wait_s: int = 0) -> HostCommand:
    """rpm's import of a key file, as detached work: it waits for the lock of rpm's database like any other change."""
    identity = {"key": path, "fingerprint": fingerprint}
    return _packages_work(identity, ("rpm", "--import", path), f"{path} trusted by rpm", lock_wait_s)


def removal(names: Sequence[str] = (), lock_wait_s: int = 0) -> HostCommand:
    """dnf's removal of these of the conflicting packages, as detached work."""
    identity = {"absent": list(CONFLICTING_PACKAGES)}
    work = _packages_work(identity, (), f"{', '.join(names)} removed", lock_wait_s)
    run = _beside(work, "run_unlocked.sh")
    command = ("sh", _beside(work, "remove_packages.sh"), run, str(lock_wait_s), *names)
    files = {**work.files, "remove_packages.sh": "@files/host/remove_packages.sh"}
    return replace(work, commands=(command,), files=files)


def _packages_work(identity: Inputs, command: Sequence[str], result: str, lock_wait_s: int) -> HostCommand:
    """A command of the package manager, once nobody else holds its locks."""
    script = {"run_unlocked.sh": "@files/host/run_unlocked.sh"}
    work = HostCommand(title="packages", commands=(), result=result, identity=identity, files=script)
    run = ("sh", _beside(work, "run_unlocked.sh"), str(lock_wait_s))
    return replace(work, commands=((*run, *command),))


def _beside(work: HostCommand, name: str) -> str:
    """Where a file of the work is while it runs."""
    return f"/run/tritonhost/{work.unit}/{name}"


def for_os(text: str, os_major: str) -> str:
    """`{os_major}` filled in: a literal major version, because $releasever may be a minor one on Oracle Linux."""
    return text.replace("{os_major}", os_major)


def same_version(wanted: str, installed: str) -> bool:
    """Whether an installed epoch:version-release is the wanted one; an epoch that was not asked for may be any."""
    return installed == wanted or (":" not in wanted and installed.partition(":")[2] == wanted)


def check_os(os_release: dict[str, str], architecture: str) -> str:
    """
    The host's Oracle Linux major version.

    Raises PlanError for another distribution, version or processor.
    """
    name, version = os_release.get("ID", ""), os_release.get("VERSION_ID", "")
    major = version.split(".")[0]
    if name != "ol" or major not in SUPPORTED_OS_MAJORS:
        raise PlanError("operating system", f"{name} {version}".strip(), "Oracle Linux 8 or 9")
    if architecture != "x86_64":
        raise PlanError("processor", architecture, "x86_64", "the serving images are made for it alone")
    return major
