"""What differs in the lab: the sources, and what a machine without a GPU needs.

`tests/lab/lab up` writes the facts of its mirror (addresses, keys, commits, digests) to lab.json. Without a running
lab this group has no data; inventories/lab.py says what to do then.
"""

import json
import os
from datetime import UTC, datetime, timedelta

from operations.plan.catalog.support_matrix import RELEASES, TRITON
from tests.lab.settings import from_environment

_imported = frozenset(dir())
__all__ = []

_lab_json = from_environment().record
_next_year = (datetime.now(UTC).date() + timedelta(days=365)).isoformat()

if _lab_json.exists():
    _lab = json.loads(_lab_json.read_text(encoding="utf-8"))
    _http, _registry = _lab["mirror"]["http"], _lab["mirror"]["registry"]

    ssh_user = _lab["ssh_user"]
    ssh_key = _lab["ssh_key"]
    ssh_known_hosts_file = _lab["known_hosts"]

    model = os.environ.get("LAB_MODEL", "smollm2-135m")
    # several services on each host, as JSON: {"a": {"gpu_ids": [0]}, "b": {"gpu_ids": [1], "http_port": 8010, ...}}
    if os.environ.get("LAB_SERVICES"):
        services = json.loads(os.environ["LAB_SERVICES"])

    # the gateway and the door, as JSON: {"certificate": ..., "private_key": ..., "api_keys": ...}; the image is the lab's
    if os.environ.get("LAB_GATEWAY"):
        gateway = {"image": "library/nginx:1.22.1", **json.loads(os.environ["LAB_GATEWAY"])}
    if os.environ.get("LAB_DOOR"):
        door = {"image": "library/python:3.11.2-slim-bookworm", **json.loads(os.environ["LAB_DOOR"])}

    docker_repository_url = f"{_http}/dnf/docker-ce/el{{os_major}}/"
    docker_gpg_key_url = f"{_http}/dnf/docker-ce/gpg"
    docker_gpg_fingerprint = _lab["gpg_fingerprints"]["docker-ce"]
    docker_packages = {
        "docker-ce": "3:20.10.24-1.el{os_major}",
        "docker-ce-cli": "1:20.10.24-1.el{os_major}",
        "containerd.io": "1.6.20-1.el{os_major}",
    }
    # With the scheme: the BuildKit inside docker 20.10 parses the entry as a URL and otherwise uses TLS.
    docker_daemon_settings = {"insecure-registries": [f"http://{_registry}"]}

    nvidia_container_toolkit_repository_url = f"{_http}/dnf/nvidia-container-toolkit/"
    nvidia_container_toolkit_gpg_key_url = f"{_http}/dnf/nvidia-container-toolkit/gpgkey"
    nvidia_container_toolkit_gpg_fingerprint = _lab["gpg_fingerprints"]["nvidia-container-toolkit"]
    nvidia_container_toolkit_packages = {
        "nvidia-container-toolkit": "1.17.8-1",
        "nvidia-container-toolkit-base": "1.17.8-1",
        "libnvidia-container-tools": "1.17.8-1",
        "libnvidia-container1": "1.17.8-1",
    }

    # The lab has old versions that stand for newer ones; no client from outside reaches them.
    _lab_versions = [
        *(("triton", _name) for _name in TRITON),
        *(("tensorrt-llm", _version) for _version in sorted({row.tensorrt_llm for row in RELEASES.values()})),
        *(("docker-ce", "20.10.24"), ("docker-ce", "20.10.25")),
        *(("containerd.io", "1.6.20"), ("containerd.io", "1.6.21")),
        ("nvidia-container-toolkit", "1.17.8"),
        ("nginx", "1.22.1"),
        # of the stand-in for nvidia-smi, which prints captured output of a real one
        ("driver", "580.159.04"),
    ]
    waivers = [
        {"component": _component, "version": _version, "reason": "a lab's stand-in", "until": _next_year}
        for _component, _version in _lab_versions
    ]

    hub_endpoint = _lab["mirror"]["hub"]
    git_mirrors = {"https://github.com/": f"{_http}/git/"}
    backend_commits = _lab["git"].get("triton-inference-server/tensorrtllm_backend", {})
    image_registry = _registry
    docker_hub_registry = _registry
    python_index_url = f"{_http}/pypi/simple/"
    image_digests = _lab["images"]

    golden_directory = str(_lab_json.parent / "golden")
    measurements_directory = str(_lab_json.parent / "measurements")

    # the forecast assumes the real images, which are a hundred times as large as the lab's stand-ins
    preflight_waived = ["disk space"]

    # tritonserver looks for a GPU for its metrics and its pinned memory, and a lab host has none.
    tritonserver_arguments = ["--allow-gpu-metrics=false", "--pinned-memory-pool-byte-size=0"]
    start_timeout_s = 180
    soak_s = 2
    stop_timeout_s = 40

    __all__ = [_name for _name in dir() if not _name.startswith("_") and _name not in _imported]
