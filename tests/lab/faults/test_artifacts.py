"""Damaged artifacts, killed builds, and a docker engine that is stopped, restarted or frozen."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.lab.e2e.one_host import DATA_ROOT, Done, OneHost, difference_rows
from tests.lab.faults.conftest import ONCE_AFTER_ALL, Table
from tests.lab.faults.interrupt import slow_builds
from tests.lab.faults.test_sources import container, exists, last_words, meanwhile, still_serving, until

# A running container's network mode, and the network interfaces of its processes
NETWORK_OF = (
    "set -- $(docker inspect --format '{{{{.HostConfig.NetworkMode}}}} {{{{.State.Pid}}}}' {}); "
    "echo $1 $(sed 1,2d /proc/$2/net/dev | cut -d: -f1)"
)
# The file in which the stand-in's trtllm-build reads how long a build takes
# The probe of a host that does not answer is given up after LOOK_SECONDS of operations/convergence.py, 50; the rest is
# for the connection, and for a machine that is busy with other labs.
HUNG_SECONDS = 80
# Damage to the engine's directory, step by step: a script, and what a dry run reports after it
SHORTER = r"rank0\.engine has \d+ bytes instead of \d+"
DAMAGES = {
    "truncated to 99, 50, 10 and 0 %, found each time": [
        (f"truncate --size=$((SIZE * {percent} / 100)) $FILE", SHORTER) for percent in (99, 50, 10, 0)
    ],
    "one byte flipped": [
        (
            "byte=$(od -An -tu1 -j 1000000 -N 1 $FILE); "
            'printf "\\\\$(printf %03o $((byte ^ 255)))" | dd of=$FILE bs=1 seek=1000000 conv=notrunc status=none',
            r"rank0\.engine was changed after it was made",
        )
    ],
    # also what an earlier abandoned build left; other engines of the host are compared with the wanted one
    "manifest removed, a partial directory left": [
        (
            "rm $DIRECTORY/manifest.json; mkdir -p $PARTIAL; echo half >$PARTIAL/rank0.engine; echo x >$PARTIAL/left",
            r"(absent|other inputs: .*)",
        )
    ],
}


@pytest.mark.requirement("R29")
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_engine_is_rebuilt_once_and_never_served(
    converged: OneHost, table: Table, damage: str
) -> None:
    engine, release = converged.artifact("engine"), converged.running_release()
    path, unit = f"{DATA_ROOT}/engines/{engine}", f"tritonhost-engine-{engine}"
    file = f"{path}/rank0.engine"
    before, size = _sha256(converged, file), converged.root(f"stat --format=%s {file}")
    names = f"DIRECTORY={path}; FILE={file}; PARTIAL={DATA_ROOT}/engines/.{engine}.partial; SIZE={size}"
    with still_serving(converged):
        for script, expected in DAMAGES[damage]:
            converged.root(f"{names}; {script}")
            assert "manifest" in script or _sha256(converged, file) != before
            looked = converged.deploy("--dry")
            assert looked.code == 0, looked.output
            found = [row for row in difference_rows(looked.output) if engine in row]
            assert len(found) == 1, looked.output
            assert re.search(rf"\s{expected}\s", found[0]), looked.output

    since = converged.now()
    done = converged.deploy("--data", "soak_s=0")
    assert done.code == 0, done.output
    assert converged.starts(f"{unit}.service", since) == 1
    # the server was restarted from the sealed directory, and the engine in it is the earlier one
    assert _sha256(converged, file) == before
    inodes = converged.container()["Config"]["Labels"]["tritonhost.mounts"].split()
    assert converged.root(f"stat --format=%i {path}") in inodes
    assert converged.running_release() == release
    assert converged.litter() == []
    again = converged.converge()
    assert f"converged: release {release}" in again.output
    table.add(f"engine: {damage}", 1, 1, artifacts_lost=1)


@pytest.mark.requirement("R31")
def test_failed_build_leaves_the_server_running(converged: OneHost, table: Table) -> None:
    engine, checkpoint = converged.artifact("engine"), converged.artifact("checkpoint")
    unit = f"tritonhost-engine-{engine}"
    ends = {
        "killed, exit code 137": f"docker kill {unit}",
        # the build reads it only after the lab's delay
        "exit code 1": f"rm {DATA_ROOT}/checkpoints/{checkpoint}/rank0.safetensors",
    }
    converged.root(f"rm -rf {DATA_ROOT}/engines/{engine}")
    ended: dict[str, Done] = {}
    isolated: list[str] = []
    with still_serving(converged), slow_builds(converged, 10):
        for what, script in ends.items():
            since = converged.now()
            with meanwhile(converged.deploy) as deploying:
                _until_it_builds(converged, unit, since)
                # in one command with the fault: the build could end before a second command
                isolated.append(converged.root(f"{NETWORK_OF.format(unit)}; {script}").splitlines()[0])
                ended[what] = deploying()
            assert not exists(converged, f"{DATA_ROOT}/engines/{engine}")
            # at most one partial directory, which the next build removes
            assert len(converged.root(f"ls -d {DATA_ROOT}/engines/.*.partial").split()) == 1
            assert converged.root(f"docker ps --all --quiet --filter name={unit}") == ""
    assert isolated == ["none lo"] * len(ends), "a build has no network but its own loopback"
    killed, failed = ended.values()
    assert killed.code == failed.code == 1
    assert "tritonhost: failed with exit code 137" in killed.output
    assert (
        f"engine {engine}: exit-code, exit code 137; expected {DATA_ROOT}/engines/{engine}; " in killed.output
    )
    assert "[stand-in] still building" in killed.output, "its last lines"
    assert "rank0.safetensors: No such file or directory" in last_words(failed, ours=False)
    assert f"engine {engine}: exit-code, exit code 1; " in failed.output

    release = converged.running_release()
    done = converged.deploy("--data", "soak_s=0")
    assert done.code == 0, done.output
    assert converged.running_release() == release
    assert converged.litter() == []
    for what, run in ended.items():
        table.add(f"build {what}: reported after {run.seconds:.1f} s", 1, ONCE_AFTER_ALL)


@pytest.mark.requirement("R32")
@pytest.mark.smoke
def test_dead_docker_is_started_again(converged: OneHost, table: Table) -> None:
    release = converged.running_release()
    converged.root("systemctl stop docker.socket docker.service")
    done = converged.deploy("--data", "soak_s=0")
    assert done.code == 0, done.output
    assert "docker.service" in " ".join(difference_rows(done.output))
    assert converged.running_release() == release
    assert f"converged: release {release}" in converged.converge().output
    table.add(f"docker dead, repaired in {done.seconds:.1f} s", 1, 1)


@pytest.mark.requirement("R32")
def test_docker_restart_during_a_build_fails_the_run(converged: OneHost, table: Table) -> None:
    release, engine = converged.running_release(), converged.artifact("engine")
    unit = f"tritonhost-engine-{engine}"
    converged.root(f"rm -rf {DATA_ROOT}/engines/{engine}")
    since = converged.now()
    with slow_builds(converged, 6), meanwhile(converged.deploy) as deploying:
        _until_it_builds(converged, unit, since)
        converged.root("systemctl restart docker.service")
        done = deploying()
    assert done.code == 1, done.output
    assert re.search(rf"engine {engine}: exit-code, exit code \d+; expected ", done.output), done.output
    assert not exists(converged, f"{DATA_ROOT}/engines/{engine}")
    again = converged.deploy("--data", "soak_s=0")
    assert again.code == 0, again.output
    assert converged.running_release() == release
    assert converged.litter() == []
    table.add(f"docker restarted during a build: reported after {done.seconds:.1f} s", 1, 1)


@pytest.mark.requirement("R32")
def test_frozen_docker_is_reported_and_nothing_is_changed(converged: OneHost, table: Table) -> None:
    release, before = converged.running_release(), container(converged)
    converged.root("pkill --signal STOP --exact dockerd")
    try:
        done = converged.deploy()
    finally:
        converged.root("pkill --signal CONT --exact dockerd")
    assert done.code == 1, done.output
    assert done.seconds < HUNG_SECONDS
    assert "look: found no answer that could be read, expected the host's state" in done.output, done.output
    assert "Traceback" not in done.output
    with still_serving(converged):
        assert container(converged) == before
        assert f"converged: release {release}" in converged.converge().output
    table.add(f"docker stands still: reported after {done.seconds:.1f} s", 1, 1)


def _until_it_builds(site: OneHost, unit: str, since: str) -> None:
    """Wait until the build logs that it still builds: it sleeps for the rest of the lab's delay."""
    until(
        lambda: any("still building" in line for line in site.journal(since, f"--unit={unit}.service")),
    )


def _sha256(site: OneHost, path: str) -> str:
    return site.root(f"sha256sum <{shlex.quote(path)}").split()[0]
