"""Names of packages that a host must not get beside ours, or that no deploy touches."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

# containerd.io conflicts with and obsoletes runc, which Oracle Linux ships. On Oracle Linux 8 podman and buildah require it.
# On 9 their runtime is crun by default, and runc is deprecated (release notes of 9.5, "Containers"); there podman is removed
# because podman-docker requires it and provides `docker`, which docker-ce conflicts with, and because a host with one
# container engine has one firewall and one set of unit files to inspect.
# https://docs.docker.com/engine/install/rhel/#uninstall-old-versions
CONFLICTING_PACKAGES = ("podman", "buildah", "runc")
# What `extra_packages` may not name. dnf would only report that their members conflict, or take one for another. Container
# engines beside docker-ce, under every name by which they were published for RHEL and its derivatives; `containerd` is the
# distribution's, `containerd.io` Docker's own. nvidia-docker2 and the runtime packages before the container toolkit write
# daemon.json themselves. https://docs.docker.com/engine/install/rhel/#uninstall-old-versions,
# https://github.com/NVIDIA/libnvidia-container/issues/216
OTHER_ENGINES = (
    *("containerd", "containerd-*", "docker", "docker.io", "docker-io", "docker-engine*", "docker-ee*"),
    *("docker-client*", "docker-common*", "docker-latest*", "docker-logrotate*", "docker-selinux*"),
    *("docker-runc*", "docker-cli", "moby", "moby-*"),
)
NOT_BESIDE_DOCKER = (
    *("podman", "podman-*", "buildah", "buildah-*", "runc", "runc-*"),
    *OTHER_ENGINES,
    *("nvidia-docker*", "nvidia-container-runtime*"),
)
# Other settings have their versions: tools are installed while the server serves, but these restart docker.
OF_DOCKER = ("docker-ce*", "docker-*-plugin", "containerd.io*")
OF_TOOLKIT = ("nvidia-container-toolkit*", "libnvidia-container*")
# The serving image contains its CUDA. On a host these packages bring a driver, or libraries that replace the driver's own.
CUDA = ("cuda", "cuda-*")
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
    "kernel-debug*",
    "kernel-rt*",
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
    "nvlsm*",
    "xorg-x11-drv-nvidia*",
    "cuda-drivers*",
    "kmod-mlnx*",
    "mlnx-ofa_kernel*",
    "doca-*",
)


def refused_extra(name: str) -> str:
    """What `extra_packages` should have instead of this package; empty if the package is allowed."""

    def is_one_of(patterns: Sequence[str]) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    for patterns, key in ((OF_DOCKER, "docker_packages"), (OF_TOOLKIT, "nvidia_container_toolkit_packages")):
        if is_one_of(patterns):
            return f"packages without a setting of their own, and so not {name}: pin it in {key}"
    if is_one_of(NOT_BESIDE_DOCKER):
        return f"packages that can be installed beside docker-ce, and so not {name}"
    if is_one_of(CUDA) or is_one_of(UNTOUCHED):
        return f"packages that a deploy may touch, and so not {name}: install it by hand"
    return ""
