"""Which packages a host holds, at which versions, and from which repositories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from operations.plan.artifacts import HostCommand
from operations.plan.errors import PlanError
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
SUPPORTED_OS_MAJORS = ("8", "9")


def wanted_packages(settings: Settings, os_major: str) -> dict[str, str | None]:
    """Package name -> [epoch:]version-release; None for whatever version the repositories hold."""
    return {**runtime_packages(settings, os_major), **tool_packages(settings, os_major)}


def runtime_packages(settings: Settings, os_major: str) -> dict[str, str | None]:
    """Those whose installation restarts docker, or changes what running containers rest on."""
    return _for_os({**settings.docker_packages, **settings.nvidia_container_toolkit_packages}, os_major)


def tool_packages(settings: Settings, os_major: str) -> dict[str, str | None]:
    """The others: no service notices them."""
    front = settings.haproxy_packages if settings.front != "none" else {}
    return _for_os({**settings.git_packages, **front, **NETWORK_PACKAGES}, os_major)


def _for_os(packages: Mapping[str, str | None], os_major: str) -> dict[str, str | None]:
    return {name: for_os(version, os_major) if version else None for name, version in packages.items()}


def install(versions: Mapping[str, str | None], drifted: Sequence[str]) -> HostCommand:
    """
    dnf's installation of the packages that are not at their version, as detached work.

    + versions: every package of the set with its version, which the work is named after
    + drifted: of those, the names that need it

    An exact version is installed whichever one is there: https://dnf.readthedocs.io/en/latest/command_ref.html. With
    --refresh, because dnf believes for two days what a repository held when it last looked, and a version that was
    published since then would not be found.
    """
    specs = [f"{name}-{versions[name]}" if versions[name] else name for name in drifted]
    return HostCommand(
        title="packages",
        commands=(("dnf", "install", "--refresh", "--assumeyes", *specs),),
        result=f"{', '.join(specs)} to be installed from the repositories of /etc/yum.repos.d",
        identity={"versions": dict(versions)},
    )


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
