from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from operations.plan.difference import difference
from operations.plan.difference_rows import Difference
from operations.plan.machine.version_locks import LOCK_LIST
from operations.plan.observed.observed import Observed, RootFileSystem, StoredArtifact
from operations.plan.planning import plan_release
from operations.plan.release import Release
from operations.remote import host_files
from tests.unit.builders import DIGEST, FILES, IMAGE_ID, UNIT, converged, gpu, release, settings

WANTED = release({"docker_daemon_settings": {"insecure-registries": ["http://r:5000"]}})
HOST = converged(WANTED)
MADE_ENGINE, MADE_CHECKPOINT = WANTED.artifact("engine"), WANTED.artifact("checkpoint")
ENGINE = ("engine", MADE_ENGINE.key)
READY = "http://127.0.0.1:8000/v2/models/ensemble/ready"

Change = Callable[[Observed], Observed]


def rows(observed: Observed) -> list[Difference]:
    return difference(WANTED, observed, FILES)


def within(field: str, **entries: Any) -> Change:
    """Entries of a mapping replaced; None takes one away."""

    def change(observed: Observed) -> Observed:
        merged = {**getattr(observed, field), **entries}
        kept: Any = {k: v for k, v in merged.items() if v is not None}
        return replace(observed, **{field: kept})

    return change


def entry(field: str, key: object, value: object) -> Change:
    """One entry, under a key that is no identifier."""

    def change(observed: Observed) -> Observed:
        merged = {**getattr(observed, field), key: value}
        kept: Any = {k: v for k, v in merged.items() if v is not None}
        return replace(observed, **{field: kept})

    return change


def to(**fields: Any) -> Change:
    return lambda observed: replace(observed, **fields)


def container(**fields: Any) -> Change:
    def change(observed: Observed) -> Observed:
        assert observed.container is not None
        return replace(observed, container=replace(observed.container, **fields))

    return change


def labels(**entries: str) -> dict[str, str]:
    assert HOST.container is not None
    return {**HOST.container.labels, **{f"tritonhost.{name}": value for name, value in entries.items()}}


def stored(artifact: Any, problem: str) -> Change:
    key = (artifact.kind, artifact.key)
    return entry("artifacts", key, StoredArtifact(artifact.kind, artifact.key, artifact.inputs, problem))


NO_RUNTIME = '{"insecure-registries": ["http://r:5000"]}'
NO_SETTING = '{"runtimes": {"nvidia": {"path": "/usr/bin/nvidia-container-runtime"}}}'


def test_a_converged_host_has_no_difference() -> None:
    assert rows(HOST) == []


@pytest.mark.parametrize(
    "change",
    [
        to(root=RootFileSystem("", "", 0, 0)),
        to(root=RootFileSystem("/dev/sda3", "xfs", 96, 100)),
        to(detached_units=("tritonhost-engine-0.service",)),
        to(previous="0000000000000000"),
        to(gpus=()),
        entry("packages", "vim", ("0:9-1",)),
        to(version_locks=("# Added lock", "kernel-uek-5.15.0-1.el9uek.*", *HOST.version_locks)),
        entry("packages", "docker-ce", ("3:27.0.0-1.el9", "3:28.5.2-1.el9")),
        entry("images", "tritonhost/serving:other", "sha256:0"),
        entry("artifacts", ("engine", "0" * 16), StoredArtifact("engine", "0" * 16, {}, "gone")),
        entry("artifacts", ("checkpoint", MADE_CHECKPOINT.key), None),
        stored(MADE_CHECKPOINT, "rank0.safetensors is missing"),
        within("inodes", **{WANTED.path: None}),
        container(id="0" * 64, started_at="2026-01-01T00:00:00Z"),
    ],
    ids=lambda change: getattr(change, "__qualname__", ""),
)
def test_irrelevant_change_is_not_a_difference(change: Change) -> None:
    assert rows(change(HOST)) == []


@pytest.mark.parametrize(
    ("change", "row"),
    [
        (
            to(root=RootFileSystem("/dev/sda3", "xfs", 50 * 2**30, 100 * 2**30)),
            ("storage", "root file system", "50.0 GiB", "file system grown, on a disk of 100.0 GiB"),
        ),
        # packages
        (
            entry("file_digests", "/etc/yum.repos.d/docker-ce.repo", None),
            ("packages", "/etc/yum.repos.d/docker-ce.repo", "absent", "sha256 111111111111"),
        ),
        (
            entry("file_digests", "/etc/yum.repos.d/docker-ce.repo", "9" * 64),
            ("packages", "/etc/yum.repos.d/docker-ce.repo", "sha256 999999999999", "sha256 111111111111"),
        ),
        *[
            (
                entry("packages", name, ("0:1.0-1.el9",)),
                ("packages", name, "0:1.0-1.el9", "absent: it conflicts with containerd.io"),
            )
            for name in ("podman", "buildah", "runc")
        ],
        (
            entry("packages", "docker-ce", None),
            ("packages", "docker-ce", "not installed", "3:28.5.2-1.el9"),
        ),
        (
            entry("packages", "docker-ce", ("3:27.0.0-1.el9",)),
            ("packages", "docker-ce", "3:27.0.0-1.el9", "3:28.5.2-1.el9"),
        ),
        (entry("packages", "git-lfs", None), ("packages", "git-lfs", "not installed", "installed")),
        (
            to(version_locks=tuple(line for line in HOST.version_locks if line != "!runc")),
            ("packages", LOCK_LIST, "lacks !runc", "locks of what the inventory pins"),
        ),
        (
            to(version_locks=("docker-ce-3:27.0.0-1.el9.*", *HOST.version_locks)),
            ("packages", LOCK_LIST, "holds docker-ce-3:27.0.0-1.el9.*", "locks of what the inventory pins"),
        ),
        # container runtime
        (
            to(daemon_json=NO_RUNTIME),
            ("container runtime", "nvidia runtime in daemon.json", "absent", "nvidia-container-runtime"),
        ),
        (
            to(daemon_json=NO_SETTING),
            ("container runtime", "insecure-registries in daemon.json", "absent", "['http://r:5000']"),
        ),
        (
            entry("units", "docker.service", {**UNIT, "UnitFileState": "disabled"}),
            ("container runtime", "docker.service", "disabled", "enabled"),
        ),
        (
            entry("units", "docker.service", {**UNIT, "ActiveState": "failed"}),
            ("container runtime", "docker.service", "failed", "active"),
        ),
        # artifacts
        (
            entry("artifacts", ("source", WANTED.artifact("source").key), None),
            ("source", WANTED.artifact("source").key, "absent", "complete"),
        ),
        (
            to(images={}),
            ("serving image", WANTED.image.title, "absent", WANTED.image.tag),
        ),
        (
            # a tag that was pointed to another image, while the right one serves
            entry("images", WANTED.image.tag, "sha256:other"),
            ("serving image", WANTED.image.title, f"{WANTED.image.tag} is sha256:other", IMAGE_ID),
        ),
        (
            to(image_records={}),
            ("serving image", WANTED.image.title, "its id is not recorded", IMAGE_ID),
        ),
        (
            entry("artifacts", ("weights", WANTED.artifact("weights").key), None),
            ("weights", WANTED.artifact("weights").key, "absent", "complete"),
        ),
        (
            stored(WANTED.artifact("weights"), "model.safetensors has 5 bytes instead of 6"),
            (
                "weights",
                WANTED.artifact("weights").key,
                "model.safetensors has 5 bytes instead of 6",
                "complete",
            ),
        ),
        (
            stored(MADE_ENGINE, "rank0.engine was changed after it was made"),
            ("engine", MADE_ENGINE.key, "rank0.engine was changed after it was made", "complete"),
        ),
        (entry("artifacts", ENGINE, None), ("engine", MADE_ENGINE.key, "absent", "complete")),
        # release
        (
            entry("artifacts", ("release", WANTED.id), None),
            ("model repository", f"release {WANTED.id}", "absent", "complete"),
        ),
        (
            entry("release_digests", "serve", "9" * 64),
            ("model repository", "serve", "sha256 999999999999", "sha256 333333333333"),
        ),
        (
            entry("release_digests", "serve", None),
            ("model repository", "serve", "absent", "sha256 333333333333"),
        ),
        (
            entry("release_digests", "model_repository/extra", "9" * 64),
            ("model repository", "model_repository/extra", "sha256 999999999999", "absent"),
        ),
        (to(current=""), ("release", "current", "absent", WANTED.id)),
        (to(current="0123456789abcdef"), ("release", "current", "0123456789abcdef", WANTED.id)),
        # service
        (
            entry("file_digests", "/etc/systemd/system/triton.service", "9" * 64),
            ("service", "/etc/systemd/system/triton.service", "sha256 999999999999", "sha256 222222222222"),
        ),
        (
            entry("units", "triton.service", {**UNIT, "NeedDaemonReload": "yes"}),
            ("service", "triton.service", "changed on disk", "reloaded by systemd"),
        ),
        (
            entry("units", "triton.service", {**UNIT, "UnitFileState": "disabled"}),
            ("service", "triton.service", "disabled", "enabled"),
        ),
        (
            entry("units", "triton.service", {**UNIT, "ActiveState": "activating"}),
            ("service", "triton.service", "activating", "active"),
        ),
        (to(container=None), ("service", "container", "absent", f"running release {WANTED.id}")),
        (container(running=False), ("service", "container", "not running", f"running release {WANTED.id}")),
        (
            container(labels=labels(release="0123456789abcdef")),
            ("service", "running release", "0123456789abcdef", WANTED.id),
        ),
        (container(labels={}), ("service", "running release", "a container that is not ours", WANTED.id)),
        (
            container(image_id="sha256:other"),
            ("service", "running image", "sha256:other", IMAGE_ID),
        ),
        (
            entry("inodes", MADE_ENGINE.path, "999"),
            (
                "service",
                "served directories",
                "replaced since the server started",
                "those the server has open",
            ),
        ),
        (entry("ready", READY, "400"), ("service", "ensemble ready", "400", "200")),
        (entry("ready", READY, "000"), ("service", "ensemble ready", "no answer", "200")),
        (entry("ready", READY, None), ("service", "ensemble ready", "no answer", "200")),
    ],
)
def test_one_change_is_one_row(change: Change, row: tuple[str, str, str, str]) -> None:
    assert rows(change(HOST)) == [Difference(*row)]


SITE = {"system_repositories": {"baseos": "https://mirror.invalid/baseos/"}, "front": "haproxy"}
SEARCH = {
    "model": "clip-search",
    "image_digests": dict.fromkeys(("nvidia/tritonserver:24.09-py3", "pgvector/pgvector:0.8.6-pg16"), DIGEST),
}


@pytest.mark.parametrize(
    "wanted", [release(SITE), plan_release(settings(**SEARCH), [gpu()])], ids=["front", "database"]
)
def test_difference_compares_every_rendered_file(wanted: Release) -> None:
    files = host_files.expected(wanted)
    assert {file.path for file in files} <= set(host_files.watched(wanted.settings))
    host = converged(wanted)
    there = {**host.file_digests, **{file.path: file.digest for file in files}}
    before = difference(wanted, replace(host, file_digests=there), files)
    for file in files:
        lost = {path: digest for path, digest in there.items() if path != file.path}
        [row] = [
            row for row in difference(wanted, replace(host, file_digests=lost), files) if row not in before
        ]
        assert (row.stage, row.what, row.found) == (file.stage, file.path, "absent")


def test_units_are_among_the_files_of_their_service() -> None:
    paths = host_files.paths(WANTED.settings)
    assert set(paths) - set(paths.units) == {
        "/etc/triton-dcgm-exporter.sh",
        "/etc/triton-door.sh",
        "/etc/triton-front.cfg",
        "/etc/triton-guard.nft",
        "/etc/triton-node-exporter.sh",
    }
    assert paths.units == [
        "/etc/systemd/system/triton.service",
        "/etc/systemd/system/triton-database.service",
        "/etc/systemd/system/triton-front.service",
        "/etc/systemd/system/triton-next.service",
        "/etc/systemd/system/triton-guard.service",
        "/etc/systemd/system/triton-gateway.service",
        "/etc/systemd/system/triton-door.service",
        "/etc/systemd/system/triton-metrics.service",
        "/etc/systemd/system/triton-metrics.timer",
        "/etc/systemd/system/triton-node-exporter.service",
        "/etc/systemd/system/triton-dcgm-exporter.service",
    ]


def test_malformed_daemon_json_is_one_row_with_the_position() -> None:
    [row] = rows(replace(HOST, daemon_json='{"a": 1,}'))
    assert (row.stage, row.what, row.wanted) == ("container runtime", "/etc/docker/daemon.json", "valid JSON")
    assert "at line 1" in row.found


def test_missing_engine_needs_its_checkpoint_again() -> None:
    bare = replace(HOST, artifacts={("release", WANTED.id): StoredArtifact("release", WANTED.id, {})})
    assert [row.stage for row in rows(bare)] == ["source", "weights", "checkpoint", "engine"]


def test_a_damaged_engine_needs_its_checkpoint_again() -> None:
    damaged = stored(MADE_ENGINE, "rank0.engine is missing")(HOST)
    without = entry("artifacts", ("checkpoint", MADE_CHECKPOINT.key), None)(damaged)
    assert [row.stage for row in rows(without)] == ["checkpoint", "engine"]


def test_rebuild_names_inputs_changed_since_the_nearest_engine() -> None:
    near = StoredArtifact("engine", "a", {**MADE_ENGINE.inputs, "gpu": "NVIDIA H200"})
    far = StoredArtifact("engine", "b", {"gpu": "NVIDIA H200"})
    others = {("engine", "b"): far, ("engine", "a"): near}
    kept = {key: value for key, value in HOST.artifacts.items() if key != ENGINE}
    [row] = rows(replace(HOST, artifacts={**kept, **others}))
    assert row.found == "other inputs: gpu: NVIDIA H200 -> NVIDIA A10"


def test_bare_host_differs_in_every_stage_in_order() -> None:
    bare = Observed(root=RootFileSystem("/dev/sda3", "xfs", 36, 100), os_release=HOST.os_release)
    stages = list(dict.fromkeys(row.stage for row in rows(bare)))
    assert stages == [
        "storage",
        "packages",
        "container runtime",
        "source",
        "serving image",
        "weights",
        "checkpoint",
        "engine",
        "model repository",
        "release",
        "network",
        "service",
    ]


def test_root_file_system_is_ignored_when_growth_is_off() -> None:
    left = release({"grow_root_file_system": False})
    small = replace(converged(left), root=RootFileSystem("/dev/sda3", "xfs", 36, 100))
    assert difference(left, small, FILES) == []


def test_release_without_a_verdict_is_a_difference() -> None:
    [row] = difference(WANTED, replace(HOST, verdicts={}), FILES)
    assert (row.stage, row.what, row.wanted) == ("release", "verdict", "its golden answers")
