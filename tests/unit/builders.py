"""What the tests are made of: valid inventory data, a profile, GPUs, a release, and the host that is that release.

Each builder takes what a test changes, so that a test shows nothing but what it is about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from operations.plan.capacity.gpu import Gpu
from operations.plan.difference_rows import ExpectedFile
from operations.plan.inventory.settings import Settings
from operations.plan.machine import daemon_json
from operations.plan.machine.packages import PACKAGE_KEYS, wanted_packages
from operations.plan.machine.version_locks import all_locks, with_locks
from operations.plan.observed.observed import (
    Container,
    GuardRules,
    Observed,
    Outcome,
    ReleaseVerdict,
    RootFileSystem,
    StoredArtifact,
)
from operations.plan.planning import plan_release
from operations.plan.profile.profiles import EngineProfile
from operations.plan.release import Release

COMMIT = "a" * 40
DIGEST = f"sha256:{'b' * 64}"

# One host's inventory data; no default of group_data is used, so that an upgrade of the release breaks no test.
DATA: dict[str, Any] = {
    "model": "smollm2-135m",
    "docker_repository_url": "https://mirror.invalid/docker/{os_major}/",
    "docker_gpg_key_url": "https://mirror.invalid/docker/gpg",
    "docker_gpg_fingerprint": "7D6E63EF6048D2DA3AFBF5DD464999CDFB16660F",
    "docker_packages": {"docker-ce": "3:28.5.2-1.el{os_major}", "containerd.io": "1.7.29-1.el{os_major}"},
    "nvidia_container_toolkit_repository_url": "https://mirror.invalid/toolkit/",
    "nvidia_container_toolkit_gpg_key_url": "https://mirror.invalid/toolkit/gpgkey",
    "nvidia_container_toolkit_gpg_fingerprint": "09AFCA86E19FADC5A8E436C94A83CF5957FC3A35",
    "nvidia_container_toolkit_packages": {"nvidia-container-toolkit": "1.19.1-1"},
    "backend_commits": {"v0.13.0": COMMIT, "v0.14.0": COMMIT, "v0.17.0": COMMIT, "v1.0.0": COMMIT},
    # the tests' models are of releases below the floors
    "waivers": [
        {"component": name, "version": version, "reason": "a test of what is old", "until": "9999-12-31"}
        for name, version in (
            *(("triton", "24.09"), ("tensorrt-llm", "0.13.0"), ("driver", "580.95.05")),
            *(("docker-ce", "28.5.2"), ("containerd.io", "1.7.29")),
        )
    ],
    "image_digests": {
        "nvidia/tritonserver:24.09-trtllm-python-py3": DIGEST,
        # what builds of 24.09 stand on: the Dockerfile's, and the lab's own profile's
        "nvidia/tritonserver:24.07-py3": DIGEST,
        "nvidia/tritonserver:24.09-py3": DIGEST,
    },
}

PROFILE: dict[str, Any] = {
    "kind": "engine",
    "summary": "a small model",
    "weights": {"repository": "owner/name", "revision": "c" * 40},
    "image": {"release": "24.09", "source": "pull"},
    "checkpoint": {"family": "llama", "dtype": "float16"},
    "engine": {"gemm_plugin": "float16", "max_batch_size": 8},
    "golden": [{"prompt": "What?", "max_tokens": 8, "expect": "That."}],
}


# What int4_awq and its like are calibrated with
CALIBRATION = {
    "name": "cnn_dailymail",
    "repository": "owner/dataset",
    "revision": "d" * 40,
    "include": ["3.0.0/*.parquet"],
}


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Tables merged key by key."""
    result = dict(base)
    for key, value in over.items():
        nested = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if nested else value
    return result


def settings(**changed: Any) -> Settings:
    """Valid settings with these keys changed."""
    return Settings.model_validate({**DATA, **changed})


def profile(**tables: Any) -> EngineProfile:
    """A valid profile with these tables merged over it."""
    return EngineProfile.model_validate(merged(PROFILE, tables))


def gpu(index: int = 0, **changed: Any) -> Gpu:
    """One GPU."""
    fields: dict[str, Any] = {
        "index": index,
        "name": "NVIDIA A10",
        "uuid": f"GPU-{index}",
        "compute_capability": "8.6",
        "memory_total_mib": 23028,
        "memory_free_mib": 22515,
        "driver": "580.95.05",
    }
    return Gpu(**{**fields, **changed})


def release(
    data: Mapping[str, Any] | None = None,
    tables: Mapping[str, Any] | None = None,
    gpus: Sequence[Gpu] | None = None,
) -> Release:
    """
    A planned release.

    + data: settings to change
    + tables: tables of the profile to change
    """
    return plan_release(
        settings(**(data or {})), gpus if gpus is not None else [gpu()], "9", profile(**(tables or {}))
    )


# some of the files the tool writes to /etc
FILES = (
    ExpectedFile("packages", "/etc/yum.repos.d/docker-ce.repo", "1" * 64),
    ExpectedFile("service", "/etc/systemd/system/triton.service", "2" * 64),
    ExpectedFile("network", "/etc/triton-guard.nft", "6" * 64),
)
FILE_DIGESTS = {file.path: file.digest for file in FILES}
KEY_DIGESTS = dict.fromkeys(PACKAGE_KEYS, "7" * 64)
RELEASE_DIGESTS = {"serve": "3" * 64, "model_repository/ensemble/config.pbtxt": "4" * 64}
IMAGE_ID = f"sha256:{'5' * 64}"
UNIT = {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled", "NeedDaemonReload": "no"}


def daemon_json_text(wanted: Release) -> str:
    """daemon.json as a configured host has it."""
    runtime = {"runtimes": {"nvidia": {"args": [], "path": daemon_json.NVIDIA_RUNTIME}}}
    return daemon_json.merged("", {**wanted.docker_settings, **runtime})


def converged(wanted: Release) -> Observed:
    """The host that is this release already."""
    versions = wanted_packages(wanted.settings, wanted.os_major).items()
    served = (wanted.path, *wanted.mounts)
    inodes = {path: str(number) for number, path in enumerate(served, start=101)}
    stored = {(a.kind, a.key): StoredArtifact(a.kind, a.key, a.inputs) for a in wanted.artifacts}
    return Observed(
        os_release={"ID": "ol", "VERSION_ID": "9.6"},
        architecture="x86_64",
        packages={name: (_installed(version),) for name, version in versions},
        file_digests={**FILE_DIGESTS, **KEY_DIGESTS},
        version_locks=tuple(with_locks((), all_locks(wanted.settings, wanted.os_major))),
        daemon_json=daemon_json_text(wanted),
        units={"docker.service": UNIT, "triton.service": UNIT, "triton-guard.service": UNIT},
        images={wanted.image.tag: IMAGE_ID},
        image_records={wanted.image.key: IMAGE_ID},
        container=Container(
            "f" * 64,
            True,
            "2026-11-21T04:00:00.123456789Z",
            IMAGE_ID,
            {"tritonhost.release": wanted.id, "tritonhost.mounts": " ".join(inodes.values())},
            networks=frozenset({"triton-network"}),
        ),
        guard=GuardRules(FILE_DIGESTS["/etc/triton-guard.nft"]),
        artifacts={**stored, ("release", wanted.id): StoredArtifact("release", wanted.id, {})},
        current=wanted.id,
        verdicts={wanted.id: verdict("proven 2026-11-21T04:00:10Z")},
        release_digests=RELEASE_DIGESTS,
        release_manifest=RELEASE_DIGESTS,
        inodes=inodes,
        root=RootFileSystem("/dev/sda3", "xfs", 95 * 2**30, 100 * 2**30),
        gpus=wanted.gpus,
        ready=dict.fromkeys(wanted.ready_urls.values(), "200"),
    )


def verdict(text: str) -> ReleaseVerdict:
    """As files/host/judge.sh writes it: proven, failed or withdrawn, when, why."""
    return ReleaseVerdict(Outcome(text.split(" ")[0]), text)


def _installed(version: str | None) -> str:
    if version is None:
        return "0:2.47.3-1.el9"
    return version if ":" in version else f"0:{version}"
