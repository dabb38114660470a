"""Which packages a host holds, at which versions, and from which repositories."""

from __future__ import annotations

from operations.plan.errors import PlanError
from operations.plan.settings import Settings

# containerd.io conflicts with and obsoletes runc, and podman and buildah require runc: Oracle Linux ships all three.
# https://docs.docker.com/engine/install/rhel/#uninstall-old-versions
CONFLICTING_PACKAGES = ("podman", "buildah", "runc")
SUPPORTED_OS_MAJORS = ("8", "9")


def wanted_packages(settings: Settings, os_major: str) -> dict[str, str | None]:
    """Package name -> [epoch:]version-release; None for whatever version the repositories hold."""
    packages: dict[str, str | None] = {
        **settings.docker_packages,
        **settings.nvidia_container_toolkit_packages,
        **settings.git_packages,
    }
    return {name: for_os(version, os_major) if version else None for name, version in packages.items()}


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
