"""The docker-ce repository: Debian's engine under the names, epochs and conflicts of Docker's own packages."""

from pathlib import Path

from tests.lab.rpm.spec import File, Package, service

FILES = Path(__file__).parent / "files"
UNITS = "/usr/lib/systemd/system"

# The second version of each wraps the programs of the first, so that there is an upgrade.
ENGINE_VERSIONS = ("20.10.24", "20.10.25")
CONTAINERD_VERSIONS = ("1.6.20", "1.6.21")


def _wraps(name: str, version: str, wrapped: str) -> str:
    same = "" if version == wrapped else f" The programs inside are those of {wrapped}, under a later number."
    return f"Lab stand-in for {name} {version}: Debian's build of the same program.{same}"


def _containerd(debian: Path, os_major: int, version: str) -> Package:
    programs = ("containerd", "containerd-shim", "containerd-shim-runc-v1", "containerd-shim-runc-v2", "ctr")
    unit = (debian / "lib/systemd/system/containerd.service").read_text()
    package = Package(
        name="containerd.io",
        version=version,
        release=f"1.el{os_major}",
        summary="An industry-standard container runtime",
        description=_wraps("containerd.io", version, CONTAINERD_VERSIONS[0]),
        files={
            **{f"/usr/bin/{name}": File(debian / "usr/bin" / name, 0o755) for name in programs},
            "/usr/bin/runc": File(FILES / "runc-within-limits", 0o755),
            "/usr/libexec/lab/runc": File(debian / "usr/sbin/runc", 0o755),
            # The kernel of a lab machine does not load modules, and a failing ExecStartPre would be noise in the journal.
            f"{UNITS}/containerd.service": File(
                "".join(line for line in unit.splitlines(True) if not line.startswith("ExecStartPre="))
            ),
        },
        requires=("container-selinux",),
        provides=("containerd",),
        conflicts=("containerd", "runc"),
        obsoletes=("containerd", "runc"),
    )
    return service(package, "containerd.service")


def _engine(debian: Path, os_major: int, version: str) -> list[Package]:
    release = f"1.el{os_major}"
    command_line = Package(
        name="docker-ce-cli",
        epoch=1,
        version=version,
        release=release,
        summary="The open-source application container engine: the command line",
        description=_wraps("docker-ce-cli", version, ENGINE_VERSIONS[0]),
        files={"/usr/bin/docker": File(debian / "usr/bin/docker", 0o755)},
    )
    engine = Package(
        name="docker-ce",
        epoch=3,
        version=version,
        release=release,
        summary="The open-source application container engine",
        description=_wraps("docker-ce", version, ENGINE_VERSIONS[0]),
        files={
            "/usr/bin/dockerd": File(FILES / "dockerd", 0o755),
            "/usr/libexec/lab/dockerd": File(debian / "usr/sbin/dockerd", 0o755),
            "/usr/bin/docker-proxy": File(debian / "usr/sbin/docker-proxy", 0o755),
            "/usr/bin/docker-init": File(debian / "usr/bin/tini-static", 0o755),
            f"{UNITS}/docker.service": File(FILES / "docker.service"),
            f"{UNITS}/docker.socket": File(FILES / "docker.socket"),
        },
        requires=("docker-ce-cli", "containerd.io >= 1.6.4", "container-selinux", "iptables", "systemd"),
        pre="getent group docker >/dev/null || groupadd --system docker",
    )
    return [command_line, service(engine, "docker.service", "docker.socket")]


def _empty_plugin(name: str, version: str, os_major: int) -> Package:
    return Package(
        name=name,
        version=version,
        release=f"1.el{os_major}",
        summary=f"Docker's {name}",
        description=f"Lab stand-in for {name}: an empty package; nothing here calls the plugin.",
    )


def packages(debian: Path, os_major: int) -> list[Package]:
    """Everything in `docker-ce/el<os_major>`."""
    built = [_containerd(debian, os_major, version) for version in CONTAINERD_VERSIONS]
    for version in ENGINE_VERSIONS:
        built += _engine(debian, os_major, version)
    return [
        *built,
        _empty_plugin("docker-buildx-plugin", "0.10.5", os_major),
        _empty_plugin("docker-compose-plugin", "2.18.1", os_major),
    ]
