"""The three signed dnf repositories that the lab mirror serves from <cache>/dnf."""

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.lab.rpm import debs, docker, nvidia, oracle
from tests.lab.rpm.signing import SigningKey
from tests.lab.rpm.spec import Package, build
from tests.lab.shell import digest, run, step

HERE = Path(__file__).parent
KEY_FILE = ".made-from"


def _publish(
    target: Path, packages: Callable[[], Sequence[Package]], key: SigningKey, made_from: str, work: Path
) -> None:
    """Make `target` a repository of signed packages with signed metadata, unless it already is."""
    marker = target / KEY_FILE
    if marker.exists() and marker.read_text() == made_from:
        return
    with step(f"repository {target.parent.name}/{target.name}"):
        key.create()
        fresh = work / "repository" / target.parent.name / target.name
        fresh.mkdir(parents=True)
        builds = work / "rpmbuild" / target.parent.name / target.name
        with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
            built = [
                Path(shutil.move(rpm, fresh / rpm.name))
                for rpm in pool.map(lambda package: build(package, builds), packages())
            ]
        key.sign_packages(built)
        run("createrepo_c", "--quiet", fresh)
        key.sign_file(fresh / "repodata" / "repomd.xml")
        for name in ("gpg", "gpgkey"):
            (fresh / name).write_text(key.public())
        (fresh / KEY_FILE).write_text(made_from)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.parent.name != "dnf":
            (target.parent / "gpg").write_text(key.public())
        shutil.rmtree(target, ignore_errors=True)
        os.replace(fresh, target)
        shutil.rmtree(builds)


def base(cache: Path, os_major: int) -> Path:
    """Folder of the base repository."""
    return cache / "dnf" / f"ol{os_major}"


def build_all(cache: Path, os_major: int, work: Path) -> dict[str, str]:
    """Make all repositories for one major version under <cache>/dnf; returns the fingerprints of their keys."""
    debian = debs.unpacked(cache, work)
    keys = {
        vendor: SigningKey(cache, vendor) for vendor in ("docker-ce", "nvidia-container-toolkit", "oracle")
    }
    made_from = digest([HERE, debian / "versions"])
    try:
        for key in keys.values():
            key.create()
        keyed = {vendor: digest([made_from, key.fingerprint()]) for vendor, key in keys.items()}
        _publish(
            base(cache, os_major),
            lambda: oracle.packages(debian, os_major),
            keys["oracle"],
            keyed["oracle"],
            work,
        )
        _publish(
            cache / "dnf" / "docker-ce" / f"el{os_major}",
            lambda: docker.packages(debian, os_major),
            keys["docker-ce"],
            keyed["docker-ce"],
            work,
        )
        stand_ins = [nvidia.STAND_INS] if nvidia.STAND_INS.is_dir() else []
        _publish(
            cache / "dnf" / "nvidia-container-toolkit",
            nvidia.packages,
            keys["nvidia-container-toolkit"],
            digest([keyed["nvidia-container-toolkit"], *stand_ins]),
            work,
        )
        return {vendor: key.fingerprint() for vendor, key in keys.items()}
    finally:
        for key in keys.values():
            key.release_agent()
