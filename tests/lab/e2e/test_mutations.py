"""Whatever breaks on a host, verification sees it, and the next deploy names the stage and repairs it.

Mutations that do not hide each other share a round: a round costs a deploy, and mostly a restart of the server.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.lab.e2e.one_host import OneHost, difference_rows


@dataclass(frozen=True)
class Mutation:
    """One way a host breaks.

    + script: does it; `$release`, `$engine` and `$tag` name what serves
    + seen_by: the test of tests/verify that must fail
    + stage: the deploy's table must name it
    + made_visible: for what only checksums see, which a deploy does not read: what it needs to notice
    """

    script: str
    seen_by: str
    stage: str
    made_visible: str = ""


SERVICE_STOPPED = Mutation("systemctl stop triton", "test_service_runs_and_is_enabled", "service")
SERVICE_DISABLED = Mutation("systemctl disable --quiet triton", "test_service_runs_and_is_enabled", "service")
UNIT_EDITED = Mutation(
    "sed -i s/^RestartSec=.*/RestartSec=1/ /etc/systemd/system/triton.service",
    "test_unit_is_as_rendered_and_known_to_systemd",
    "service",
)
CURRENT_REMOVED = Mutation("rm current", "test_current_is_the_desired_release", "release")
IMAGE_REMOVED = Mutation("docker rmi --force $tag", "test_image_is_here_under_its_tag", "serving image")
DOCKER_DISABLED = Mutation(
    "systemctl disable --quiet docker", "test_docker_runs_and_is_enabled", "container runtime"
)
CONFIG_EDITED = Mutation(
    "sed -i 's/max_batch_size: 8/max_batch_size: 4/' $release/model_repository/ensemble/config.pbtxt",
    "test_every_config_is_its_template_filled_with_the_plan",
    "model repository",
)
FILE_ADDED = Mutation(
    "touch $release/extra", "test_every_file_is_as_the_manifest_records_it", "model repository"
)
ENGINE_TRUNCATED = Mutation(
    "truncate --size -1 $engine/rank0.engine", "test_every_file_has_its_checksum[engine", "engine"
)
BYTE_FLIPPED = Mutation(
    # its size and its time stay
    "touch -r $engine/rank0.engine /run/time; byte=$(od -An -tu1 -j 5000000 -N 1 $engine/rank0.engine); "
    'printf "\\\\$(printf %o $((byte ^ 255)))" | '
    "dd of=$engine/rank0.engine bs=1 seek=5000000 conv=notrunc status=none; "
    "touch -r /run/time $engine/rank0.engine; rm /run/time",
    "test_every_file_has_its_checksum[engine",
    "engine",
    made_visible="touch $engine/rank0.engine",
)
PACKAGE_REMOVED = Mutation("rpm -e --nodeps git-lfs", "test_packages_are_at_their_versions", "packages")
RUNTIME_REMOVED = Mutation(
    "sed -i s/nvidia-container-runtime/another-runtime/ /etc/docker/daemon.json",
    "test_daemon_json_means_what_it_should",
    "container runtime",
)
OTHER_RELEASE_RUNS = Mutation(
    # while `current` points to the right one
    "cp -a $release releases/other; ln -sfn releases/other current; systemctl restart triton; "
    "ln -sfn releases/$(basename $release) current; rm -rf releases/other",
    "test_container_runs_the_release",
    "service",
)

ROUNDS = {
    "unit edited, docker disabled, service disabled": (UNIT_EDITED, DOCKER_DISABLED, SERVICE_DISABLED),
    "current removed": (CURRENT_REMOVED,),
    "image removed": (IMAGE_REMOVED,),
    "service stopped, package removed": (SERVICE_STOPPED, PACKAGE_REMOVED),
    "config.pbtxt edited, nvidia runtime removed": (CONFIG_EDITED, RUNTIME_REMOVED),
    "engine truncated, file added to the release": (ENGINE_TRUNCATED, FILE_ADDED),
    "a byte of the engine flipped": (BYTE_FLIPPED,),
    "another release runs than current": (OTHER_RELEASE_RUNS,),
}


@pytest.mark.parametrize("mutations", ROUNDS.values(), ids=ROUNDS.keys())
def test_seen_and_repaired(site: OneHost, mutations: tuple[Mutation, ...], names: str) -> None:
    tests = " or ".join(mutation.seen_by.partition("[")[0] for mutation in mutations)
    for mutation in mutations:
        site.root(names + mutation.script)
    seen = site.verify(tests)
    for mutation in mutations:
        assert f"::{mutation.seen_by}" in _failed(seen.output), f"verification is blind: {seen.output}"
    for mutation in mutations:
        if mutation.made_visible:
            site.root(names + mutation.made_visible)
    done = site.converge()
    stages = {row.split("  ")[0] for row in difference_rows(done.output)}
    assert stages >= {mutation.stage for mutation in mutations}, done.output
    site.verified(tests)


def test_after_all_of_them_the_host_is_whole(site: OneHost) -> None:
    site.verified()
    assert "converged: release" in site.converge().output
    assert site.litter() == []


def _failed(output: str) -> str:
    return "\n".join(line for line in output.splitlines() if line.startswith("FAILED "))


@pytest.fixture(scope="module")
def names(site: OneHost) -> str:
    """The shell variables that a mutation may name."""
    site.converge()
    current = site.current()
    return (
        "set -e; cd /var/lib/tritonhost; "
        f"release=/var/lib/tritonhost/releases/{current['release']}; "
        f"engine=/var/lib/tritonhost/engines/{current['artifacts']['engine']['key']}; "
        f"tag={current['image']['tag']}; "
    )
