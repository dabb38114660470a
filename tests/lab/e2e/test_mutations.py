"""Verification detects each broken part of a host, and the next deploy names it and repairs it.

Mutations that do not hide each other share a round: a round takes a deploy, and usually a restart of the server.
MUTATIONS selects: `all` (the default), a third of the rounds (`1/3`, `2/3`, `3/3`), or single mutations by their names
(`MUTATIONS=KEY_EMPTIED,CURRENT_REMOVED`).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pytest

from operations.plan.artifacts.artifact import DIRECTORIES
from operations.plan.exposure import firewall
from tests.lab import disk, skips
from tests.lab.e2e.one_host import DATA_ROOT, OneHost, difference_rows
from tests.lab.host import Host
from tests.lab.settings import REPOSITORY


def nothing(site: OneHost) -> None:
    """Change nothing on this machine."""


@dataclass(frozen=True)
class Mutation:
    """One way to break a host.

    + script: the change; `$release`, `$engine`, `$weights`, `$source` and `$tag` name the parts of the running release
    + seen_by: the test of tests/verify that must fail
    + stage, what: the row that the deploy's table must have; `what` only if other mutations share the stage
    + made_visible: a script for changes that only checksums or requests show: after it, a deploy notices the change
    + served: a sed expression instead of `script`: the server is started by a `serve` that was edited so, and the file is
      restored afterwards. The container's label names the directory it came from, and the probe compares only that
    + taken_back: a script that reverts the change, if the deploy does not repair it
    + said: the message of a dry run that refuses the change
    + machine: a change on this machine, for example to the host's disk
    """

    script: str
    seen_by: str
    stage: str = ""
    what: str = ""
    made_visible: str = ""
    served: str = ""
    taken_back: str = ""
    said: str = ""
    machine: Callable[[OneHost], None] = nothing

    def shows(self, row: str) -> bool:
        return row.startswith(f"{self.stage}  {self.what}")

    def row_in(self, table: list[str]) -> bool:
        return any(self.shows(row) for row in table)


# Packages

REPOSITORY_EDITED = Mutation(
    # unsigned packages of a mirror would be installed
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
    # like `dnf upgrade`, run by hand
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
    "systemctl disable --quiet docker",
    "test_docker_runs_and_is_enabled",
    "container runtime",
    "docker.service  disabled",
)
DOCKER_STOPPED = Mutation(
    # and its socket, which would start it again
    "systemctl stop docker.socket docker.service",
    "test_docker_runs_and_is_enabled",
    "container runtime",
    "docker.service",
)
RUNTIME_REMOVED = Mutation(
    "sed -i s/nvidia-container-runtime/another-runtime/ /etc/docker/daemon.json",
    "test_daemon_json_has_the_wanted_settings",
    "container runtime",
    "nvidia runtime in daemon.json",
)
REGISTRIES_CHANGED = Mutation(
    'sed -i \'/insecure-registries/{n;s/".*"/"http:\\/\\/registry.example"/}\' /etc/docker/daemon.json',
    "test_daemon_json_has_the_wanted_settings",
    "container runtime",
    "insecure-registries",
)
RUNTIME_FORGOTTEN = Mutation(
    # daemon.json is right, but the running docker engine has read another one: the probe does not ask the engine
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
    "test_each_image_is_present_under_its_tag",
    "serving image",
)
TAG_REPOINTED = Mutation(
    # the running container keeps the right image: it was started by the image's id
    "printf 'FROM %s\\nLABEL other=1\\n' $tag | docker build --quiet --tag $tag -",
    "test_each_image_is_present_under_its_tag",
    "serving image",
)
RECORD_REMOVED = Mutation(
    "rm images/${tag#*:}",
    "test_each_image_is_present_under_its_tag",
    "serving image",
)
SOURCE_EDITED = Mutation(
    # the probe does not check the checkout: it has thousands of files, and an existing release does not read them
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
    # size and time do not change
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
    # other weights copied to this key's directory: the probe compares the key, not the inputs behind it
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
    # like a run that was killed during the golden requests
    "rm verdicts/$(basename $release)",
    "test_release_was_proven",
    "release",
    "verdict",
)
RELEASE_REMOVED = Mutation(
    "rm -r $release", "test_every_file_matches_the_manifest", "model repository", "release "
)
CONFIG_EDITED = Mutation(
    "sed -i 's/max_batch_size: 8/max_batch_size: 4/' $release/model_repository/ensemble/config.pbtxt",
    "test_every_config_is_the_filled_template",
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
    # without this directory Triton does not load the model at its next start
    "rm -r $release/model_repository/ensemble/1",
    "test_every_file_matches_the_manifest",
    "model repository",
    "model_repository/ensemble/1/",
)
FILE_ADDED = Mutation(
    "touch $release/extra", "test_every_file_matches_the_manifest", "model repository", "extra"
)
SERVE_EDITED = Mutation(
    "sed -i s/=127.0.0.1:/=0.0.0.0:/ $release/serve",
    "test_scripts_and_model_files_are_as_planned",
    "model repository",
    "serve",
)
RELEASE_JSON_EDITED = Mutation(
    'sed -i \'s/"model": ".*"/"model": "another"/\' $release/release.json',
    "test_release_json_describes_the_release",
    "model repository",
    "release.json",
)

# Network

RULE_INSERTED = Mutation(
    # the file is right, and the kernel's rules differ from it
    "nft insert rule inet tritonhost_triton from_server accept",
    "test_guard_s_rules_are_in_the_kernel",
    "network",
    "nftables table tritonhost_triton",
)
GUARD_DISABLED = Mutation(
    "systemctl disable --quiet triton-guard",
    "test_guard_is_as_rendered_and_active",
    "network",
    "triton-guard.service",
)
ANOTHER_NETWORK = Mutation(
    # a network without rules
    "docker network connect bridge triton",
    "test_guard_matches_the_server_s_only_network",
    "service",
    "networks",
)

# Service

# On `systemctl stop`, Triton waits half a minute for a worker that no longer exists.
AT_ONCE = "docker kill triton || :; systemctl stop triton"
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
SERVICE_STOPPED = Mutation(
    "systemctl stop triton", "test_service_runs_and_is_enabled", "service", "triton.service"
)
SERVICE_DISABLED = Mutation(
    "systemctl disable --quiet triton", "test_service_runs_and_is_enabled", "service", "triton.service"
)
OTHER_RELEASE_RUNS = Mutation(
    # and `current` points to the right one afterwards
    "cp -a $release releases/other; ln -sfn releases/other current; systemctl restart triton; "
    "ln -sfn releases/$(basename $release) current; rm -rf releases/other",
    "test_container_runs_the_release",
    "service",
    "running release",
)
OTHER_IMAGE_RUNS = Mutation(
    # and the record is right afterwards
    "record=images/${tag#*:}; cp -p $record /run/record; "
    "printf 'FROM %s\\nLABEL other=2\\n' $tag | docker build --quiet - >$record; systemctl restart triton; "
    "cp -p /run/record $record; rm /run/record",
    "test_container_runs_the_image_of_the_release",
    "service",
    "running image",
)
ENGINE_REPLACED = Mutation(
    # replaced by a copy with the same bytes and times: the server keeps the removed directory open
    "cp -a $engine engines/copy; rm -r $engine; mv engines/copy $engine",
    "test_container_mounts_the_current_directories",
    "service",
    "served directories",
)
SERVER_CUT_OFF = Mutation(
    # it runs and its unit is active, but no client reaches it
    "docker network disconnect triton-network triton",
    "test_models_are_ready",
    "service",
    "ensemble ready",
)


def served(expression: str, seen_by: str) -> Mutation:
    """A server that was started by an edited `serve`."""
    return Mutation("", seen_by, "service", "container", made_visible=AT_ONCE, served=expression)


FOREIGN_ADDRESS = served("s/=127.0.0.1:/=0.0.0.0:/", "test_ports_are_bound_to_the_bind_address_only")
# the arguments before --metrics-port are the server's, not docker's
FOREIGN_ARGUMENTS = served("s/--metrics-port/--log-info=true &/", "test_container_runs_the_planned_command")
ROOT_SERVES = served("s/60600:60600/0:0/", "test_every_server_process_is_unprivileged")
TOKEN_LEFT = served("s/HF_HUB_OFFLINE=1/& --env HF_TOKEN=left/", "test_server_has_no_token")
PROCESSES_OF_THE_HOST = served(
    "s/--init/--pid host &/", "test_container_is_isolated_from_the_host_and_docker"
)
ROOT_WRITABLE = served("/--read-only/d", "test_server_can_write_only_to_its_scratch_space")
EVERY_ADDRESS = served(
    "s/--publish=[0-9.]*:8002/--publish=18002:8002 &/", "test_no_port_is_published_on_ipv6"
)
HTTP_OPENED = served("/--http-restricted-api/d", "test_admin_apis_are_closed_over_http")
GRPC_OPENED = served("/--grpc-restricted-protocol/d", "test_admin_apis_are_closed_over_grpc")
METRICS_OFF = served("s/--metrics-port/--allow-metrics=false &/", "test_metrics_answer")
WORKER_KILLED = Mutation(
    # Triton does not restart it, answers every request with an error, and reports all its models as ready.
    "kill -KILL $(pgrep -f 'stub .*/[p]reprocessing/')",
    "test_golden_answers",
    "service",
    "container",
    made_visible=AT_ONCE,
)

# Ownership of the files that root runs and the server reads

SERVE_GIVEN_AWAY = Mutation(
    "chown 1000:1000 $release/serve; chmod 666 $release/serve",
    "test_others_cannot_write_served_files[releases]",
    "ownership",
    f"{DATA_ROOT}/releases/",
)
WEIGHTS_CLOSED = Mutation(
    "chmod 600 $weights/config.json",
    "test_server_user_can_read_served_files[weights]",
    "ownership",
    f"{DATA_ROOT}/weights/",
)
UNIT_GIVEN_AWAY = Mutation(
    "chown 1000 /etc/systemd/system/triton.service",
    "test_others_cannot_write_files_that_root_reads",
    "ownership",
    "/etc/systemd/system/triton.service",
)
DATA_ROOT_OPENED = Mutation(
    f"chmod 777 {DATA_ROOT}", "test_others_cannot_write_parent_directories", "ownership", f"{DATA_ROOT}  "
)

# Provenance: one file, so one mutation of it in a round

PROVENANCE = "model repository", "provenance.json"
ARTIFACT_FORGED = Mutation(
    'sed -i \'0,/"sha256": "[0-9a-f]*"/s//"sha256": "0"/\' $release/provenance.json',
    "test_provenance_lists_the_artifacts_with_their_hashes",
    *PROVENANCE,
)
IMAGE_FORGED = Mutation(
    'sed -i \'s/"id": "sha256:[0-9a-f]*"/"id": "sha256:0"/\' $release/provenance.json',
    "test_provenance_names_the_running_image",
    *PROVENANCE,
)
PACKAGE_FORGED = Mutation(
    # a hash of the right length, of another package
    'sed -i \'s/"header_sha256": "[0-9a-f]\\{8\\}/"header_sha256": "00000000/\' $release/provenance.json',
    "test_provenance_lists_every_package_with_its_hash",
    *PROVENANCE,
)

# Storage and firewall

DISK_BYTES = 4 << 30


def grow_disk(site: OneHost) -> None:
    """Grow the host's disk, as if the boot volume had been resized in the cloud's console."""
    image = Host(site.settings, site.number).image
    os.truncate(image, image.stat().st_size + DISK_BYTES)
    for device in disk.loops_of(image):
        subprocess.run(["losetup", "--set-capacity", device], check=True)


DISK_GROWN = Mutation(
    ":", "test_root_file_system_covers_its_disk", "storage", "root file system", machine=grow_disk
)
# with this tool's priority, by which a deploy recognises its own rules
RICH_RULE = (
    f'--zone=public --add-rich-rule=\'rule {firewall.mark("triton")} family="ipv4" '
    'source address="192.0.2.0/24" port port="8000" protocol="tcp" accept\''
)
FIREWALL_OPENED = Mutation(
    f"firewall-cmd --quiet {RICH_RULE}",
    "test_firewalld_has_exactly_the_declared_rules",
    "network",
    "firewalld",
    # if the plan has no rule, the fact reads firewalld's files instead of asking firewalld, which takes a second
    made_visible=f"firewall-cmd --quiet --permanent {RICH_RULE}",
)

# Reverted by the test: a deploy refuses these, or does not manage them

READ_ONLY = Mutation(
    f"mount --bind {DATA_ROOT} {DATA_ROOT}; mount -o remount,bind,ro {DATA_ROOT}",
    "test_data_root_is_usable",
    # from another directory, because a shell inside keeps the mount point busy
    taken_back=f"cd /; umount {DATA_ROOT}",
    said=f"data_root {DATA_ROOT}: ",
)
PORT_OF_ANOTHER = Mutation(
    # a foreign program on the server's port, at the host's own address, and the firewall opened for it
    "systemd-run --quiet --collect --unit=lab-other python3 -m http.server --bind $(hostname -I | cut -d' ' -f1) 8000; "
    "firewall-cmd --quiet --zone=public --add-port=8000/tcp; n=0; until ss -Hltn 'sport = :8000' | grep -v -q 127.0.0.1; do "
    "n=$((n + 1)); [ $n -lt 100 ]; sleep 0.1; done",
    "test_network_does_not_reach_a_loopback_bind",
    taken_back="systemctl stop lab-other; firewall-cmd --quiet --zone=public --remove-port=8000/tcp",
)


def program(name: str, script: str, seen_by: str) -> Mutation:
    """A program that hides the host's own one, which the preflight calls."""
    place = f"/usr/local/bin/{name}"
    return Mutation(
        f"printf '#!/bin/sh\\n%s\\n' '{script}' >{place}; chmod 755 {place}",
        seen_by,
        taken_back=f"rm {place}",
    )


SLOW = program(
    "findmnt", 'sleep 4; exec /usr/bin/findmnt "$@"', "test_preflight_takes_under_ten_seconds_per_host"
)
CLOCK_SILENT = program("date", "exit 1", "test_host_check_has_an_answer[clock]")
SELINUX_SILENT = program("getenforce", "exit 1", "test_host_check_has_an_answer[SELinux]")
CLOUD_INIT_SILENT = program("cloud-init", "exit 1", "test_host_check_has_an_answer[cloud-init]")
FIREWALLD_SILENT = program(
    "systemctl",
    'case "$*" in *fabricmanager*) exit 1 ;; esac; exec /usr/bin/systemctl "$@"',
    "test_host_check_has_an_answer[firewalld]",
)

ROUNDS = {
    # no mutation of this round restarts the server, which would also repair `current`
    "current removed, unit edited, docker and service disabled, toolkit at another version, repository removed": (
        CURRENT_REMOVED,
        UNIT_EDITED,
        DOCKER_DISABLED,
        SERVICE_DISABLED,
        TOOLKIT_UPGRADED,
        REPOSITORY_REMOVED,
    ),
    # the same here: the golden requests go to the running server
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
    "a byte of the engine flipped, serve, release.json and provenance edited, placeholder left": (
        BYTE_FLIPPED,
        SERVE_EDITED,
        RELEASE_JSON_EDITED,
        PLACEHOLDER_LEFT,
        ARTIFACT_FORGED,
    ),
    "docker at another version, manifest of the engine and record removed, config.pbtxt and provenance edited": (
        DOCKER_UPGRADED,
        RECORD_REMOVED,
        ENGINE_MANIFEST_REMOVED,
        CONFIG_EDITED,
        IMAGE_FORGED,
    ),
    # not together with a unit that has another owner: then nothing marks the data root as this tool's, and it is refused
    "docker stopped, registries changed, release removed, the data root opened": (
        DOCKER_STOPPED,
        REGISTRIES_CHANGED,
        RELEASE_REMOVED,
        DATA_ROOT_OPENED,
    ),
    "another image runs, server cut off, engine replaced, version directory removed": (
        OTHER_IMAGE_RUNS,
        SERVER_CUT_OFF,
        ENGINE_REPLACED,
        VERSION_DIRECTORY_REMOVED,
    ),
    "rule inserted into the guard, guard disabled, server on another network, firewall, disk, provenance": (
        RULE_INSERTED,
        GUARD_DISABLED,
        ANOTHER_NETWORK,
        FIREWALL_OPENED,
        DISK_GROWN,
        PACKAGE_FORGED,
    ),
    "what the probe does not read: a server with other rights and addresses": (
        FOREIGN_ADDRESS,
        FOREIGN_ARGUMENTS,
        ROOT_SERVES,
        TOKEN_LEFT,
        PROCESSES_OF_THE_HOST,
        ROOT_WRITABLE,
        EVERY_ADDRESS,
    ),
    "what the probe does not read: a server that is open": (
        HTTP_OPENED,
        GRPC_OPENED,
        METRICS_OFF,
    ),
    "what a person takes back": (
        READ_ONLY,
        PORT_OF_ANOTHER,
        SLOW,
        CLOCK_SILENT,
        SELINUX_SILENT,
        CLOUD_INIT_SILENT,
        FIREWALLD_SILENT,
    ),
    "what the probe does not read": (
        WORKER_KILLED,
        KEY_EMPTIED,
        RUNTIME_FORGOTTEN,
        SOURCE_EDITED,
        WEIGHTS_OF_ANOTHER_REVISION,
    ),
    "serve and the unit given away, a file of the weights closed": (
        SERVE_GIVEN_AWAY,
        UNIT_GIVEN_AWAY,
        WEIGHTS_CLOSED,
    ),
}


# a mutation's name -> the beginnings of the rows that follow from it
FOLLOWS: Mapping[str, tuple[str, ...]] = {
    "TOOLKIT_UPGRADED": ("packages  libnvidia-container",),
    "UNIT_REMOVED": ("service  triton.service  changed on disk",),
    "SERVER_CUT_OFF": ("service  networks  none", "service  tensorrt_llm_bls ready"),
    # without docker, images and containers cannot be listed
    "DOCKER_STOPPED": (
        "serving image  image",
        "service  triton.service  inactive",
        "service  container  absent",
    ),
    "SERVICE_STOPPED": ("service  container  absent",),
}
NAMES = {mutation: name for name, mutation in list(globals().items()) if isinstance(mutation, Mutation)}
THIRDS = ("1/3", "2/3", "3/3")


def chosen(selection: str) -> dict[str, tuple[Mutation, ...]]:
    """The rounds of a selection: all, a third, or one round for each named mutation."""
    if selection in ("", "all"):
        return ROUNDS
    if selection in THIRDS:
        return {
            name: mutations
            for number, (name, mutations) in enumerate(ROUNDS.items())
            if number % len(THIRDS) == THIRDS.index(selection)
        }
    known = {name: mutation for mutation, name in NAMES.items()}
    wanted = selection.split(",")
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(
            f"MUTATIONS: found {', '.join(unknown)}; expected all, {', '.join(THIRDS)} or {', '.join(known)}"
        )
    return {name: (known[name],) for name in wanted}


CHOSEN = chosen(os.environ.get("MUTATIONS", ""))


@pytest.mark.requirement("R22", "R57")
@pytest.mark.smoke
@pytest.mark.parametrize("mutations", CHOSEN.values(), ids=CHOSEN.keys())
def test_mutation_is_seen_and_repaired(site: OneHost, mutations: tuple[Mutation, ...], names: str) -> None:
    tests = " or ".join(sorted({mutation.seen_by.partition("[")[0] for mutation in mutations}))
    try:
        _break(site, mutations, names)
        seen = site.verify(tests)
        for mutation in mutations:
            assert seen.names(mutation.seen_by), f"verification is blind for {NAMES[mutation]}: {seen.output}"
        _refused(site, mutations)
    finally:
        # no deploy would repair it before the next rounds
        for mutation in mutations:
            if mutation.taken_back:
                site.try_root(mutation.taken_back)
    _make_visible(site, mutations, names)
    done = site.converge()
    table = _table(done.output)
    # reverted mutations have no row
    repaired = [mutation for mutation in mutations if not mutation.taken_back]
    for mutation in repaired:
        assert mutation.row_in(table), f"no row of {NAMES[mutation]}: {done.output}"
    further = [row for row in table if not any(mutation.shows(row) for mutation in repaired)]
    assert [row for row in further if not _follows(row, repaired)] == [], done.output
    site.verified(tests)


@pytest.mark.smoke
def test_mutations_of_a_round_are_seen_by_different_tests() -> None:
    """If the same test saw two mutations of a round, it would pass although it sees only one of them."""
    for name, mutations in ROUNDS.items():
        assert len({mutation.seen_by for mutation in mutations}) == len(mutations), name


@pytest.mark.smoke
def test_every_mutation_is_in_one_round_and_one_third() -> None:
    used = [mutation for mutations in ROUNDS.values() for mutation in mutations]
    assert sorted(NAMES[mutation] for mutation in used) == sorted(NAMES.values())
    thirds = [name for third in THIRDS for name in chosen(third)]
    assert sorted(thirds) == sorted(ROUNDS)
    assert chosen("KEY_EMPTIED") == {"KEY_EMPTIED": (KEY_EMPTIED,)}
    with pytest.raises(ValueError, match="found NO_SUCH"):
        chosen("NO_SUCH")


@pytest.mark.smoke
def test_every_test_that_runs_in_the_lab_has_a_mutation() -> None:
    """The gateway's and the database's mutations are in tests/lab/e2e/test_gateway.py and tests/lab/guides."""
    collect = ["pytest", "-q", "-p", "no:cacheprovider", "tests/verify", "--collect-only"]
    listed = subprocess.run(
        [sys.executable, "-m", *collect, "--inventory", "inventories/oci.py"],
        env={**os.environ, "OCI_HOSTS": "host"},  # collecting connects nowhere
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=True,
    ).stdout
    tests = set(re.findall(r"tests/verify/(test_\w+\.py::test_\w+)", listed))
    assert len(tests) > 60
    skipped = {skip.test.partition("[")[0] for skip in skips.SKIPS if not skip.feature.startswith("source")}
    broken = {mutation.seen_by.partition("[")[0] for mutation in NAMES}
    assert {test for test in tests - skipped if test.partition("::")[2] not in broken} == set()


@pytest.mark.smoke
def test_host_is_converged_after_all_mutations(site: OneHost) -> None:
    site.verified()
    assert "converged: release" in site.converge().output
    assert site.litter() == []


def _break(site: OneHost, mutations: Sequence[Mutation], names: str) -> None:
    expressions = " ".join(f"-e '{mutation.served}'" for mutation in mutations if mutation.served)
    if expressions:
        site.root(
            f"{names}cp -p $release/serve /run/serve; sed -i {expressions} -e 's/^changed=.*/changed=/' $release/serve; "
            "systemctl restart triton; cp -p /run/serve $release/serve; rm /run/serve"
        )
    for mutation in mutations:
        mutation.machine(site)
        if mutation.script:
            site.root(names + mutation.script)


def _refused(site: OneHost, mutations: Sequence[Mutation]) -> None:
    """A dry run reports what a deploy refuses."""
    left = [mutation for mutation in mutations if mutation.taken_back]
    if not left:
        return
    looked = site.deploy("--dry")
    said = [mutation.said for mutation in left if mutation.said]
    assert (looked.code == 0) is not bool(said), looked.output
    assert [words for words in said if words not in looked.output] == [], looked.output


def _make_visible(site: OneHost, mutations: Sequence[Mutation], names: str) -> None:
    hidden = [mutation for mutation in mutations if mutation.made_visible]
    if not hidden:
        return
    table = _table(site.deploy("--dry").output)
    for mutation in hidden:
        assert not mutation.row_in(table), f"a deploy sees this by now, drop `made_visible`: {mutation}"
    for script in dict.fromkeys(mutation.made_visible for mutation in hidden):
        site.root(names + script)


def _follows(row: str, repaired: Sequence[Mutation]) -> bool:
    """Whether a row that belongs to no mutation follows from one of them."""
    stopped = any(mutation.made_visible == AT_ONCE for mutation in repaired)
    # failed: the killed process makes the unit end with an error
    if stopped and row.startswith(("service  triton.service  inactive", "service  triton.service  failed")):
        return True
    return any(row.startswith(begin) for mutation in repaired for begin in FOLLOWS.get(NAMES[mutation], ()))


def _table(output: str) -> list[str]:
    """The rows of a deploy's table, with two spaces between cells."""
    return [re.sub(r" {2,}", "  ", row) for row in difference_rows(output)]


@pytest.fixture(scope="module")
def names(site: OneHost) -> str:
    """The shell variables that a mutation may use."""
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
