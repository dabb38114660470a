"""The nvidia-container-toolkit repository: the stand-ins for NVIDIA's programs, split like the real packages."""

from pathlib import Path

from tests.lab.rpm.spec import File, Package

STAND_INS = Path(__file__).parents[1] / "standins" / "bin"
VERSIONS = ("1.17.8", "1.19.1")

# In a program's text, this is replaced with the package's version.
VERSION_MARK = b"@VERSION@"


def _programs(version: str, *names: str) -> dict[str, File]:
    return {
        f"/usr/bin/{name}": File(
            (STAND_INS / name).read_bytes().replace(VERSION_MARK, version.encode()), 0o755
        )
        for name in names
        if (STAND_INS / name).exists()
    }


def _package(name: str, version: str, files: dict[str, File], *requires: str) -> Package:
    return Package(
        name=name,
        version=version,
        release="1",
        summary=f"Lab stand-in for {name}",
        description=f"Lab stand-in for {name} {version}: the programs say themselves what they stand in for.",
        files=files,
        requires=requires,
    )


def packages() -> list[Package]:
    """Everything in `nvidia-container-toolkit`."""
    built = []
    for version in VERSIONS:
        mark = {"/etc/nvidia-container-runtime/lab-version": File(f"{version}\n")}
        built += [
            _package("libnvidia-container1", version, {}),
            _package("libnvidia-container-tools", version, {}, f"libnvidia-container1 >= {version}-1"),
            _package(
                "nvidia-container-toolkit-base",
                version,
                {**_programs(version, "nvidia-ctk", "nvidia-container-runtime"), **mark},
            ),
            _package(
                "nvidia-container-toolkit",
                version,
                _programs(version, "nvidia-container-runtime-hook"),
                f"nvidia-container-toolkit-base = {version}-1",
                f"libnvidia-container-tools >= {version}-1",
            ),
        ]
    return built
