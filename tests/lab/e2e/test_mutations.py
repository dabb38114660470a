"""Whatever breaks on a host, verification sees it, and the next deploy names what it is and repairs it.

Mutations that do not hide each other share a round: a round costs a deploy, and mostly a restart of the server.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from operations.plan.artifacts import DIRECTORIES
from tests.lab.e2e.one_host import DATA_ROOT, OneHost, difference_rows


@dataclass(frozen=True)
class Mutation:
    """One way a host breaks.

    + script: does it; `$release`, `$engine`, `$weights`, `$source` and `$tag` name what serves
    + seen_by: the test of tests/verify that must fail
    + stage, what: the row of the deploy's table that must be there; `what` where others share the stage
    + made_visible: for what a deploy does not read, and checksums or requests alone show: what it needs to notice
    """

    script: str
    seen_by: str
    stage: str
    what: str = ""
    made_visible: str = ""

    def row_in(self, table: list[str]) -> bool:
        return any(row.startswith(f"{self.stage}  {self.what}") for row in table)


# Packages

REPOSITORY_EDITED = Mutation(
    # packages of a mirror in between would be installed unsigned
    "sed -i s/^gpgcheck=1/gpgcheck=0/ /etc/yum.repos.d/docker-ce.repo",
    "test_package_repositories_are_as_rendered",
    "packages",
    "/etc/yum.repos.d/docker-ce.repo",
)
REPOSITORY_REMOVED = Mutation(
    "rm /etc/yum.repos.d/nvidia-container-toolkit.repo",
    "test_package_repositories_are_as_rendered",
    "packages",
    "/etc/yum.repos.d/nvidia-container-toolkit.repo",
)
PACKAGE_REMOVED = Mutation(
    "rpm -e --nodeps git-lfs", "test_packages_are_at_their_versions", "packages", "git-lfs"
)
DOCKER_UPGRADED = Mutation(
    # as `dnf upgrade` by hand does
    "dnf -q -y --disableplugin=versionlock install docker-ce-3:20.10.25-1.el9",
    "test_packages_are_at_their_versions",
    "packages",
    "docker-ce",
)
TOOLKIT_UPGRADED = Mutation(
    "dnf -q -y --disableplugin=versionlock install nvidia-container-toolkit-1.19.1-1",
    "test_packages_are_at_their_versions",
    "packages",
    "nvidia-container-toolkit",
)
PODMAN_INSTALLED = Mutation(
    # dnf alone would refuse: podman needs the runc that containerd.io replaces
    "rpm -i --nodeps $(dnf -q repoquery --location podman)",
    "test_conflicting_packages_are_absent",
    "packages",
    "podman",
)
LOCK_DELETED = Mutation(
    "dnf -q versionlock delete containerd.io",
    "test_pinned_versions_are_locked",
    "packages",
    "/etc/dnf/plugins/versionlock.list",
)
KEY_EMPTIED = Mutation(
    ": >/etc/pki/rpm-gpg/RPM-GPG-KEY-docker-ce",
    "test_package_keys_are_the_pinned_ones_and_trusted",
    "packages",
    "/etc/pki/rpm-gpg/RPM-GPG-KEY-docker-ce",
)

# Container runtime

DOCKER_DISABLED = Mutation(
    "systemctl disable --quiet docker", "test_docker_runs_and_is_enabled", "container runtime"
)
DOCKER_STOPPED = Mutation(
    # with its socket, which would start it again
    "systemctl stop docker.socket docker.service",
    "test_docker_runs_and_is_enabled",
    "container runtime",
    "docker.service",
)
RUNTIME_REMOVED = Mutation(
    "sed -i s/nvidia-container-runtime/another-runtime/ /etc/docker/daemon.json",
    "test_daemon_json_means_what_it_should",
    "container runtime",
)
REGISTRIES_CHANGED = Mutation(
    'sed -i \'/insecure-registries/{n;s/".*"/"http:\\/\\/registry.example"/}\' /etc/docker/daemon.json',
    "test_daemon_json_means_what_it_should",
    "container runtime",
    "insecure-registries",
)
RUNTIME_FORGOTTEN = Mutation(
    # daemon.json is right and the engine that runs has read another: the probe does not ask the engine
    "cp -p /etc/docker/daemon.json /run/daemon.json; "
    'echo \'{"runtimes": {"other": {"path": "runc"}}}\' >/etc/docker/daemon.json; '
    "systemctl reload docker; until ! docker info | grep -q nvidia; do sleep 0.2; done; "
    "mv /run/daemon.json /etc/docker/daemon.json",
    "test_docker_knows_the_nvidia_runtime",
    "container runtime",
    made_visible="systemctl disable --quiet docker",
)

# Artifacts

IMAGE_REMOVED = Mutation(
    "docker rmi --force $tag",
    "test_each_image_is_here_and_its_tag_at_the_one_that_was_made",
    "serving image",
)
TAG_REPOINTED = Mutation(
    # what serves goes on with the right one: it is run by its id
    "printf 'FROM %s\\nLABEL other=1\\n' $tag | docker build --quiet --tag $tag -",
    "test_each_image_is_here_and_its_tag_at_the_one_that_was_made",
    "serving image",
)
RECORD_REMOVED = Mutation(
    "rm images/${tag#*:}",
    "test_each_image_is_here_and_its_tag_at_the_one_that_was_made",
    "serving image",
)
SOURCE_EDITED = Mutation(
    # the probe measures no checkout: its files are thousands, and a release that is laid out reads them no more
    "echo >>$source/tree/all_models/inflight_batcher_llm/ensemble/config.pbtxt",
    "test_source_is_at_its_commit_and_unchanged",
    "source",
    made_visible="rm $source/manifest.json",
)
WEIGHTS_TRUNCATED = Mutation(
    "truncate --size -1 $weights/model.safetensors", "test_every_file_has_its_checksum[weights", "weights"
)
TOKENIZER_REMOVED = Mutation(
    "rm $weights/tokenizer.json", "test_every_file_has_its_checksum[weights", "weights"
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
ENGINE_MANIFEST_REMOVED = Mutation(
    "rm $engine/manifest.json", "test_manifest_records_the_planned_inputs[engine", "engine"
)
WEIGHTS_OF_ANOTHER_REVISION = Mutation(
    # copied in under this one's key: the probe compares the key, and not what it stands for
    'sed -i \'s/"revision": "[0-9a-f]*"/"revision": "main"/\' $weights/manifest.json',
    "test_manifest_records_the_planned_inputs[weights",
    "weights",
    made_visible="rm $weights/manifest.json",
)

# Release

CURRENT_REMOVED = Mutation("rm current", "test_current_is_the_desired_release", "release", "current")
CURRENT_IS_A_COPY = Mutation(
    "cp -a $release releases/copy; ln -sfn releases/copy current",
    "test_current_is_the_desired_release",
    "release",
    "current",
)
VERDICT_REMOVED = Mutation(
    # what a run leaves that was killed while it asked the golden requests
    "rm verdicts/$(basename $release)",
    "test_release_was_proven",
    "release",
    "verdict",
)
RELEASE_REMOVED = Mutation(
    "rm -r $release", "test_every_file_is_as_the_manifest_records_it", "model repository", "release "
)
CONFIG_EDITED = Mutation(
    "sed -i 's/max_batch_size: 8/max_batch_size: 4/' $release/model_repository/ensemble/config.pbtxt",
    "test_every_config_is_its_template_filled_with_the_plan",
    "model repository",
    "model_repository/ensemble/config.pbtxt",
)
PLACEHOLDER_LEFT = Mutation(
    "sed -i 's/max_batch_size: 8/max_batch_size: ${triton_max_batch_size}/' "
    "$release/model_repository/postprocessing/config.pbtxt",
    "test_every_config_parses_and_has_no_bare_placeholder",
    "model repository",
    "model_repository/postprocessing/config.pbtxt",
)
VERSION_DIRECTORY_REMOVED = Mutation(
    # Triton takes a model without one for broken, at its next start
    "rm -r $release/model_repository/ensemble/1",
    "test_every_file_is_as_the_manifest_records_it",
    "model repository",
    "model_repository/ensemble/1/",
)
FILE_ADDED = Mutation(
    "touch $release/extra", "test_every_file_is_as_the_manifest_records_it", "model repository", "extra"
)
SERVE_EDITED = Mutation(
    "sed -i s/=127.0.0.1:/=0.0.0.0:/ $release/serve",
    "test_scripts_and_model_files_are_as_planned",
    "model repository",
    "serve",
)
RELEASE_JSON_EDITED = Mutation(
    'sed -i \'s/"model": ".*"/"model": "another"/\' $release/release.json',
    "test_release_json_tells_what_the_release_is",
    "model repository",
    "release.json",
)

# Network

RULE_INSERTED = Mutation(
    # the file says what it should, and the kernel another thing
    "nft insert rule inet tritonhost_triton from_server accept",
    "test_guard_s_rules_are_in_the_kernel",
    "network",
    "nftables table tritonhost_triton",
)
GUARD_DISABLED = Mutation(
    "systemctl disable --quiet triton-guard",
    "test_guard_is_as_rendered_and_at_work",
    "network",
    "triton-guard.service",
)
ANOTHER_NETWORK = Mutation(
    # by which the server reaches everything
    "docker network connect bridge triton",
    "test_guard_knows_the_server_by_its_only_network",
    "service",
    "networks",
)

# Service

# Asked to stop, Triton waits half a minute for a worker that is gone.
AT_ONCE = "docker kill triton || :; systemctl stop triton"
# A `serve` that was edited refuses to run, unless that part of it is edited too.
UNCHECKED = "sed -i 's/^changed=.*/changed=/' $release/serve; "
UNIT_EDITED = Mutation(
    "sed -i s/^RestartSec=.*/RestartSec=1/ /etc/systemd/system/triton.service",
    "test_unit_is_as_rendered_and_known_to_systemd",
    "service",
    "/etc/systemd/system/triton.service",
)
UNIT_REMOVED = Mutation(
    "rm /etc/systemd/system/triton.service",
    "test_unit_is_as_rendered_and_known_to_systemd",
    "service",
    "/etc/systemd/system/triton.service",
)
SERVICE_STOPPED = Mutation("systemctl stop triton", "test_service_runs_and_is_enabled", "service")
SERVICE_DISABLED = Mutation(
    "systemctl disable --quiet triton", "test_service_runs_and_is_enabled", "service", "triton.service"
)
OTHER_RELEASE_RUNS = Mutation(
    # while `current` points to the right one
    "cp -a $release releases/other; ln -sfn releases/other current; systemctl restart triton; "
    "ln -sfn releases/$(basename $release) current; rm -rf releases/other",
    "test_container_runs_the_release",
    "service",
    "running release",
)
OTHER_IMAGE_RUNS = Mutation(
    # while the record is the right one's again
    "record=images/${tag#*:}; cp -p $record /run/record; "
    "printf 'FROM %s\\nLABEL other=2\\n' $tag | docker build --quiet - >$record; systemctl restart triton; "
    "cp -p /run/record $record; rm /run/record",
    "test_container_runs_the_image_of_the_release",
    "service",
    "running image",
)
ENGINE_REPLACED = Mutation(
    # by a copy with the same bytes and times: the server goes on with the directory that is gone
    "cp -a $engine engines/copy; rm -r $engine; mv engines/copy $engine",
    "test_container_serves_the_directories_that_are_there_now",
    "service",
    "served directories",
)
SERVER_CUT_OFF = Mutation(
    # it runs, its unit is active, and nobody reaches it
    "docker network disconnect triton-network triton",
    "test_models_are_ready",
    "service",
    "ensemble ready",
)
FOREIGN_ADDRESS = Mutation(
    # Started by a `serve` that was put right afterwards: the container's label names the directory it came from, and
    # the probe compares no more than that.
    "cp -p $release/serve /run/serve; sed -i s/=127.0.0.1:/=0.0.0.0:/ $release/serve; "
    f"{UNCHECKED}systemctl restart triton; cp -p /run/serve $release/serve; rm /run/serve",
    "test_ports_are_bound_to_the_bind_address_only",
    "service",
    "container",
    made_visible=AT_ONCE,
)
FOREIGN_ARGUMENTS = Mutation(
    # as above; in front of --metrics-port stand the server's own arguments, and not docker's
    "cp -p $release/serve /run/serve; sed -i 's/--metrics-port/--log-info=true &/' $release/serve; "
    f"{UNCHECKED}systemctl restart triton; cp -p /run/serve $release/serve; rm /run/serve",
    "test_container_runs_the_planned_command",
    "service",
    "container",
    made_visible=AT_ONCE,
)
ROOT_SERVES = Mutation(
    # as above: the server is root in its container
    "cp -p $release/serve /run/serve; sed -i s/60600:60600/0:0/ $release/serve; "
    f"{UNCHECKED}systemctl restart triton; cp -p /run/serve $release/serve; rm /run/serve",
    "test_every_process_of_the_server_is_nobody_in_particular",
    "service",
    "container",
    made_visible=AT_ONCE,
)
WORKER_KILLED = Mutation(
    # Triton does not start it again, answers every request with an error, and calls all of its models ready.
    "kill -KILL $(pgrep -f 'stub .*/[p]reprocessing/')",
    "test_golden_answers",
    "service",
    "container",
    made_visible=AT_ONCE,
)

ROUNDS = {
    # nothing here restarts the server, which would repair `current` by the way
    "current removed, unit edited, docker and service disabled, toolkit at another version, repository removed": (
        CURRENT_REMOVED,
        UNIT_EDITED,
        DOCKER_DISABLED,
        SERVICE_DISABLED,
        TOOLKIT_UPGRADED,
        REPOSITORY_REMOVED,
    ),
    # nor here, where the golden requests are asked of the server that runs
    "unit removed, repository edited, podman installed, verdict removed": (
        UNIT_REMOVED,
        REPOSITORY_EDITED,
        PODMAN_INSTALLED,
        VERDICT_REMOVED,
    ),
    "another release runs, tokenizer removed, image removed": (
        OTHER_RELEASE_RUNS,
        TOKENIZER_REMOVED,
        IMAGE_REMOVED,
    ),
    "service stopped, package removed, version lock deleted, weights truncated, current a copy": (
        SERVICE_STOPPED,
        PACKAGE_REMOVED,
        LOCK_DELETED,
        WEIGHTS_TRUNCATED,
        CURRENT_IS_A_COPY,
    ),
    "engine truncated, file added to the release, nvidia runtime removed, tag pointed elsewhere": (
        TAG_REPOINTED,
        ENGINE_TRUNCATED,
        FILE_ADDED,
        RUNTIME_REMOVED,
    ),
    "other arguments run, a byte of the engine flipped, serve and release.json edited, placeholder left": (
        FOREIGN_ARGUMENTS,
        BYTE_FLIPPED,
        SERVE_EDITED,
        RELEASE_JSON_EDITED,
        PLACEHOLDER_LEFT,
    ),
    "docker at another version, root serves, manifest of the engine and record removed, config.pbtxt edited": (
        DOCKER_UPGRADED,
        # the last that can be started: the others are refused
        ROOT_SERVES,
        RECORD_REMOVED,
        ENGINE_MANIFEST_REMOVED,
        CONFIG_EDITED,
    ),
    "docker stopped, registries changed, release removed": (
        DOCKER_STOPPED,
        REGISTRIES_CHANGED,
        RELEASE_REMOVED,
    ),
    "another image runs, server cut off, engine replaced, version directory removed": (
        OTHER_IMAGE_RUNS,
        SERVER_CUT_OFF,
        ENGINE_REPLACED,
        VERSION_DIRECTORY_REMOVED,
    ),
    "rule inserted into the guard, guard disabled, server on another network": (
        RULE_INSERTED,
        GUARD_DISABLED,
        ANOTHER_NETWORK,
    ),
    "what the probe does not read": (
        FOREIGN_ADDRESS,
        WORKER_KILLED,
        KEY_EMPTIED,
        RUNTIME_FORGOTTEN,
        SOURCE_EDITED,
        WEIGHTS_OF_ANOTHER_REVISION,
    ),
}


@pytest.mark.parametrize("mutations", ROUNDS.values(), ids=ROUNDS.keys())
def test_seen_and_repaired(site: OneHost, mutations: tuple[Mutation, ...], names: str) -> None:
    tests = " or ".join(mutation.seen_by.partition("[")[0] for mutation in mutations)
    for mutation in mutations:
        site.root(names + mutation.script)
    seen = site.verify(tests)
    for mutation in mutations:
        assert f"::{mutation.seen_by}" in _failed(seen.output), f"verification is blind: {seen.output}"
    _make_visible(site, mutations, names)
    done = site.converge()
    table = _table(done.output)
    for mutation in mutations:
        assert mutation.row_in(table), f"no row of {mutation.stage} {mutation.what}: {done.output}"
    site.verified(tests)


def test_no_mutation_of_a_round_hides_another() -> None:
    """Two that the same test sees, or the same row shows, would pass where only one of them is seen."""
    for name, mutations in ROUNDS.items():
        assert len({mutation.seen_by for mutation in mutations}) == len(mutations), name


def test_after_all_of_them_the_host_is_whole(site: OneHost) -> None:
    site.verified()
    assert "converged: release" in site.converge().output
    assert site.litter() == []


def _make_visible(site: OneHost, mutations: tuple[Mutation, ...], names: str) -> None:
    hidden = [mutation for mutation in mutations if mutation.made_visible]
    if not hidden:
        return
    table = _table(site.deploy("--dry").output)
    for mutation in hidden:
        assert not mutation.row_in(table), f"a deploy sees this by now, drop `made_visible`: {mutation}"
    for mutation in hidden:
        site.root(names + mutation.made_visible)


def _table(output: str) -> list[str]:
    """The rows of a deploy's table, two spaces between cells."""
    return [re.sub(r" {2,}", "  ", row) for row in difference_rows(output)]


def _failed(output: str) -> str:
    return "\n".join(line for line in output.splitlines() if line.startswith("FAILED "))


@pytest.fixture(scope="module")
def names(site: OneHost) -> str:
    """The shell variables that a mutation may name."""
    site.converge()
    current = site.current()
    made = {
        kind: f"{DATA_ROOT}/{DIRECTORIES[kind]}/{current['artifacts'][kind]['key']}"
        for kind in ("source", "weights", "engine")
    }
    variables = {
        "release": f"{DATA_ROOT}/releases/{current['release']}",
        **made,
        "tag": current["image"]["tag"],
    }
    return f"set -e; cd {DATA_ROOT}; " + "".join(f"{name}={value}; " for name, value in variables.items())
