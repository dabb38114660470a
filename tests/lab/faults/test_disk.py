"""A full root file system at each stage that writes to it: clients are served, and a repair needs only free space."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from tests.lab.e2e.one_host import DATA_ROOT, Done, OneHost
from tests.lab.faults.conftest import ONCE_AFTER_ALL, Table
from tests.lab.faults.test_sources import (
    count,
    exists,
    faults,
    last_words,
    meanwhile,
    mirror_log,
    sealed_and_clean,
    still_serving,
    until,
)

# Another image than the running one, by its release on NGC
OTHER_IMAGE = {"image": {"release": "25.10"}}
# Programs' messages: the C library's, and those of curl inside dnf
NO_SPACE = ("No space left on device", "no space left on device", "Failed writing received data to disk")


def full_mount(done: Done) -> str:
    """The file system that the run reports as full: programs only report that there is no space, not where."""
    found = re.findall(
        r"disk: found \d+ MiB free on (\S+), expected more; free some, and run again", done.output
    )
    assert found, done.output
    return str(found[-1])


@pytest.mark.requirement("R27")
def test_full_disk_stops_artifact_work_but_not_the_server(converged: OneHost, table: Table) -> None:
    keys = {kind: converged.artifact(kind) for kind in ("engine", "checkpoint", "weights")}
    paths = {kind: f"{DATA_ROOT}/{kind.rstrip('s')}s/{key}" for kind, key in keys.items()}
    refused: dict[str, float] = {}
    with still_serving(converged):
        # each is made before those that are already removed, so each run ends one stage earlier
        for kind, path in paths.items():
            converged.root(f"rm -rf {path}")
            with _free(converged, 1):
                done = _deploy_all_the_same(converged)
            said = last_words(done, ours=kind == "weights")
            if kind == "weights":
                assert said.startswith("weights: openai-community/gpt2-medium: needs 4.9 MiB, ")
                assert "the file system of the data root has " in said
                assert f"({_device(converged)})" in said
            else:
                assert any(words in said for words in NO_SPACE), said
                assert full_mount(done) == "/"
            assert not exists(converged, path)
            refused[f"{kind}, 1 MiB free"] = done.seconds

        # there was space at the start of the download, and it was used up while it ran
        slow = {"path_regex": r"/model\.safetensors$", "method": "GET", "bytes_per_second": 2_000_000}
        unit, since = f"tritonhost-weights-{keys['weights']}.service", converged.now()
        with faults(converged, slow), meanwhile(converged.deploy) as deploying:
            until(lambda: count(converged.journal(since, f"--unit={unit}"), "model.safetensors") > 0)
            with _free(converged, 1):
                done = deploying()
        said = last_words(done)
        assert said.startswith(
            "weights: openai-community/gpt2-medium: model.safetensors: needs 4.9 MiB more, "
        )
        assert said.endswith(f" free ({_device(converged)}); what was fetched is kept; run again to resume")
        assert not exists(converged, paths["weights"])
        refused["weights, in the middle of a file"] = done.seconds

    asked = mirror_log(converged)
    converged.converge()
    assert count(asked(), "/config.json") == 0, "what had been fetched was not fetched again"
    assert count(asked(), "/model.safetensors", "GET") == 1
    sealed_and_clean(converged, keys["weights"])
    assert {kind: converged.artifact(kind) for kind in keys} == keys
    for what, seconds in refused.items():
        table.add(f"disk full: {what}, refused after {seconds:.1f} s", 1, ONCE_AFTER_ALL)


@pytest.mark.requirement("R06")
@pytest.mark.smoke
def test_full_disk_is_refused_by_the_inode_check(converged: OneHost, table: Table) -> None:
    engine = converged.artifact("engine")
    with still_serving(converged):
        converged.root(f"rm -rf {DATA_ROOT}/engines/{engine}")
        with _free(converged, 1):
            done = converged.deploy()
        assert done.code == 1, done.output
        assert re.search(r"failed +inodes +/: \d+ free +200000 or more", done.output), done.output
        assert "nothing was changed" in done.output
        assert not exists(converged, f"{DATA_ROOT}/engines/.{engine}.partial")
    converged.converge()
    assert converged.artifact("engine") == engine
    table.add(f"disk full: seen by the preflight after {done.seconds:.1f} s", 1, 1)


@pytest.mark.requirement("R06")
def test_full_disk_is_refused_by_the_disk_space_check(converged: OneHost, table: Table) -> None:
    """The forecast uses the real model's sizes; this is why the lab's inventory waives the check."""
    engine = converged.artifact("engine")
    with still_serving(converged):
        converged.root(f"rm -rf {DATA_ROOT}/engines/{engine}")
        with _free(converged, 300):
            done = converged.deploy("--data", "preflight_waived=[]")
        assert done.code == 1, done.output
        found = re.search(
            r"failed +disk space +([\d.]+) MiB free on / +about ([\d.]+) MiB on / \(engine ([\d.]+) MiB\)",
            done.output,
        )
        assert found, done.output
        free, wanted, of_engine = map(float, found.groups())
        assert 250 < free <= 300 < wanted == of_engine
        assert "a larger boot volume, or data_root on a larger file system" in done.output
        assert "nothing was changed" in done.output
        assert not exists(converged, f"{DATA_ROOT}/engines/.{engine}.partial")
    converged.converge()
    table.add(f"disk full: its space refused by the preflight after {done.seconds:.1f} s", 1, 1)


@pytest.mark.requirement("R27")
def test_full_disk_while_writing_a_release_is_reported(converged: OneHost, table: Table) -> None:
    release = converged.running_release()
    with still_serving(converged):
        converged.root(f"rm -rf {DATA_ROOT}/releases/{release}")
        with _free(converged, 1), _rest(converged):
            done = _deploy_all_the_same(converged)
        assert done.code == 1, done.output
        assert any(words in done.output for words in NO_SPACE), done.output
        assert full_mount(done) == "/"
        assert "Traceback" not in done.output
        assert not exists(converged, f"{DATA_ROOT}/releases/{release}")
    converged.converge()
    assert converged.running_release() == release
    assert converged.litter() == []
    table.add(f"disk full: release laid out, refused after {done.seconds:.1f} s", 1, 1)


@pytest.mark.requirement("R27")
def test_full_disk_while_installing_a_package_is_reported(converged: OneHost, table: Table) -> None:
    with still_serving(converged):
        converged.root("rpm --erase --nodeps git-lfs; dnf --quiet clean packages")
        with _free(converged, 1):
            done = _deploy_all_the_same(converged)
        said = last_words(done, ours=False)
        assert any(words in said for words in NO_SPACE), said
        assert full_mount(done) == "/"
        converged.converge()
    assert converged.root("rpm -q git-lfs").startswith("git-lfs-")
    assert converged.root("dnf --quiet check") == ""
    assert converged.litter() == []
    table.add(f"disk full: dnf, refused after {done.seconds:.1f} s", 1, 1)


@pytest.mark.requirement("R27")
def test_full_disk_while_pulling_an_image_is_reported(converged: OneHost, table: Table) -> None:
    before = converged.running_release()
    images = converged.root("docker image ls --quiet --no-trunc | sort -u")
    with still_serving(converged):
        # it shares most of its layers with the present one
        with _free(converged, 1), _rest(converged):
            done = _deploy_all_the_same(converged, OTHER_IMAGE)
        said = last_words(done, ours=False)
        assert any(words in said for words in NO_SPACE), said
        assert full_mount(done) == "/"
        assert converged.root("docker image ls --quiet --no-trunc | sort -u") == images
    converged.converge(OTHER_IMAGE)
    assert converged.running_release() != before
    assert converged.litter() == []
    converged.converge()
    assert converged.running_release() == before
    table.add(f"disk full: image pulled, refused after {done.seconds:.1f} s", 1, 1)


def _deploy_all_the_same(site: OneHost, overrides: Mapping[str, Any] | None = None) -> Done:
    """Waive the preflight's checks, which would refuse the full disk before any work: the later stages are tested here."""
    waived = json.dumps(["disk space", "inodes", "temporary directories"])
    return site.deploy("--data", f"preflight_waived={waived}", overrides=overrides)


@contextmanager
def _free(site: OneHost, megabytes: int) -> Iterator[None]:
    """Fill the host's root file system up to so many megabytes while the block runs, and free them afterwards."""
    site.lab("fill", str(site.number), str(megabytes))
    try:
        yield
    finally:
        site.lab("fill", str(site.number), "none")


@contextmanager
def _rest(site: OneHost) -> Iterator[None]:
    """Fill the last megabyte as well, for stages that need less."""
    site.root("cat /dev/zero >/.lab-rest 2>/dev/null || :")
    try:
        yield
    finally:
        site.root("rm -f /.lab-rest")


def _device(site: OneHost) -> str:
    return site.root("findmnt --noheadings --output SOURCE /")
