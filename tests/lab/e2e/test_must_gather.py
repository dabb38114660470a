"""An archive for a report of a fault: what is in it, and that no secret is."""

from __future__ import annotations

import stat
import sys
import tarfile
from pathlib import Path

from tests.lab.e2e.one_host import INVENTORY, Done, OneHost

TOKEN = "hf_PlantedPlantedPlantedPlanted1234"
PASSWORD = "plantedpassword"


def gather(site: OneHost, folder: Path, *options: str) -> Done:
    command = [sys.executable, "-m", "operations.must_gather", "h1", "--inventory", INVENTORY]
    return site.run(*command, "--output", str(folder), *options)


def content(folder: Path) -> dict[str, str]:
    """The files of the one archive, without its own name."""
    [archive] = folder.glob("must-gather-h1-*.tar.gz")
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    with tarfile.open(archive) as tar:
        files = {member.name.partition("/")[2]: tar.extractfile(member) for member in tar.getmembers()}
        return {name: file.read().decode() for name, file in files.items() if file}


def test_archive_has_what_a_report_needs_and_no_secret(converged: OneHost, tmp_path: Path) -> None:
    converged.root(
        f"systemd-run --quiet --wait --unit=tritonhost-planted echo 'HF_TOKEN={TOKEN} https://ann:{PASSWORD}@mirror.example/x'"
    )
    done = gather(converged, tmp_path)
    assert done.code == 0, done.output
    files = content(tmp_path)
    release = converged.running_release()
    for name, word in {
        "host/release.txt": release,
        "host/journal-triton.service.txt": release,
        "host/journal-work.txt": "https://(removed)@mirror.example/x",
        "host/containers.txt": "tritonhost-key=(removed)",
        "host/gpus.txt": "NVIDIA",
        "host/model-repository.txt": "config.pbtxt",
        "host/network.txt": "table inet tritonhost_triton",
        "preflight.txt": "operating system",
        "inventory.json": "docker_packages",
    }.items():
        assert word in files[name], f"{name}: {files[name][:400]}"
    everything = "\n".join(files.values())
    key = converged.root("docker inspect triton | grep -o 'tritonhost-key=[0-9a-f]*' | head -1").partition(
        "="
    )[2]
    assert len(key) == 64
    assert [secret for secret in (TOKEN, PASSWORD, key) if secret in everything] == []
    assert "1 removed" in done.output or "2 removed" in done.output


def test_host_that_is_not_reached_leaves_an_archive(converged: OneHost, tmp_path: Path) -> None:
    done = gather(converged, tmp_path, "--data", "ssh_port=1")
    assert done.code == 5, done.output
    assert "not reached" in done.output and "Traceback" not in done.output
    assert content(tmp_path).keys() >= {"problem.txt", "inventory.json", "versions.txt"}
