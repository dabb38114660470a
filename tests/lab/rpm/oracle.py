"""The base repository of an Oracle-Linux-shaped host."""

from pathlib import Path

from tests.lab.rpm import haproxy
from tests.lab.rpm.spec import File, Package
from tests.lab.settings import OS_RELEASES

FILES = Path(__file__).parent / "files"

# of the driver: what is installed and loaded at the next boot; the last one does not load
DRIVERS = (("580.159.04", ""), ("580.178.04", ""), ("580.178.05", " broken"))

# What a bare Oracle Linux host already has.
PREINSTALLED = (
    *("oraclelinux-release", "container-selinux", "dnf-plugins-core", "nftables"),
    "cloud-utils-growpart",
    *("runc", "podman", "buildah"),
)


def _upstream_version(debian: Path, name: str) -> str:
    """2.39.5 out of git_1%3a2.39.5-0+deb12u3_amd64.deb."""
    line = next(
        line for line in (debian / "versions").read_text().splitlines() if line.startswith(f"{name}_")
    )
    return line.split("_")[1].split("%3a")[-1].split("-")[0]


def _stand_in(
    name: str,
    version: str,
    os_major: int,
    *,
    epoch: int = 0,
    requires: tuple[str, ...] = (),
    provides: tuple[str, ...] = (),
    files: dict[str, File] | None = None,
) -> Package:
    return Package(
        name=name,
        epoch=epoch,
        version=version,
        release=f"1.el{os_major}",
        summary=f"Lab stand-in for {name}",
        description=f"Lab stand-in for {name}.",
        files=files or {},
        requires=requires,
        provides=provides,
    )


def packages(debian: Path, os_major: int) -> list[Package]:
    """Everything in `ol<os_major>`."""
    release = OS_RELEASES[os_major]
    podman = {8: (3, "4.9.4"), 9: (4, "5.2.2")}[os_major]
    runc = {8: (1, "1.1.12"), 9: (4, "1.2.4")}[os_major]
    git = _upstream_version(debian, "git")
    return [
        # The userland is Debian's, so no package of the RPM database would otherwise provide its files.
        _stand_in(
            "oraclelinux-release",
            release,
            os_major,
            provides=(
                f"system-release = {release}",
                f"system-release(releasever) = {os_major}",
                "/bin/sh",
                "/bin/bash",
                "bash",
                "systemd",
                "iptables",
                "python3",
                "dnf",
                "curl",
                "sudo",
                "xfsprogs",
                "oci-utils",
                "tar",
                "ca-certificates",
                "util-linux",
            ),
        ),
        *(
            _stand_in(
                "nvidia-driver",
                version,
                os_major,
                epoch=3,
                files={"/usr/lib/lab/nvidia-driver": File(f"{version}{word}\n")},
            )
            for version, word in DRIVERS
        ),
        _stand_in("container-selinux", "2.232.1", os_major, epoch=2),
        _stand_in("dnf-plugins-core", "4.3.0", os_major),
        # the program is the userland's; a host without SELinux does not need the other one
        _stand_in("nftables", {8: "1.0.4", 9: "1.0.9"}[os_major], os_major, epoch=1),
        _stand_in("policycoreutils-python-utils", {8: "2.9", 9: "3.6"}[os_major], os_major),
        _stand_in("cloud-utils-growpart", "0.33", os_major),
        _stand_in("python3-dnf-plugin-versionlock", "4.3.0", os_major),
        _stand_in(
            "runc",
            runc[1],
            os_major,
            epoch=runc[0],
            files={"/usr/bin/runc": File(FILES / "preinstalled-runc", 0o755)},
        ),
        _stand_in(
            "podman",
            podman[1],
            os_major,
            epoch=podman[0],
            requires=(f"runc >= {runc[0]}:1.0.0",),
            files={"/usr/bin/podman": File(FILES / "podman", 0o755)},
        ),
        _stand_in(
            "buildah",
            "1.37.6",
            os_major,
            epoch=2,
            requires=(f"runc >= {runc[0]}:1.0.0",),
            files={"/usr/bin/buildah": File(FILES / "buildah", 0o755)},
        ),
        Package(
            name="git-core",
            version=git,
            release=f"1.el{os_major}",
            summary="Core package of git with minimal functionality",
            description="Lab stand-in for git-core: Debian's git.",
            files={
                **{
                    f"/usr/bin/{name}": File(debian / "usr/bin" / name, 0o755)
                    for name in ("git", "git-shell")
                },
                **{
                    f"/usr/bin/{name}": File(f'#!/bin/sh\nexec git {name.removeprefix("git-")} "$@"\n', 0o755)
                    for name in ("git-receive-pack", "git-upload-archive", "git-upload-pack")
                },
                "/usr/lib/git-core": File(debian / "usr/lib/git-core"),
                "/usr/share/git-core": File(debian / "usr/share/git-core"),
            },
        ),
        _stand_in("git", git, os_major, requires=(f"git-core = {git}-1.el{os_major}",)),
        Package(
            name="git-lfs",
            version=_upstream_version(debian, "git-lfs"),
            release=f"1.el{os_major}",
            summary="Git extension for versioning large files",
            description="Lab stand-in for git-lfs: Debian's build of the same program.",
            files={"/usr/bin/git-lfs": File(debian / "usr/bin/git-lfs", 0o755)},
            requires=("git-core",),
            post="git lfs install --system --skip-repo >/dev/null 2>&1 || :",
            preun="if [ $1 -eq 0 ]; then git lfs uninstall --system --skip-repo >/dev/null 2>&1 || :; fi",
        ),
        haproxy.package(debian, os_major, _upstream_version(debian, "haproxy")),
    ]
