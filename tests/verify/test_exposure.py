"""What a client of the server can do to it, and what the server can do to the host: next to nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from operations.plan import Release
from operations.plan.release import PIDS_PER_GPU
from operations.plan.serving.compile_cache import PLACE as CACHE
from tests.verify.connection import Connection

pytestmark = pytest.mark.usefixtures("journal")

NOBODY = "tritonhost-no-such-model"
# What changes the server for everybody, asked so that an open one changes nothing: HTTP method, path, body
ADMIN_REQUESTS = (
    ("POST", "v2/repository/index", "{}"),
    ("POST", f"v2/repository/models/{NOBODY}/load", "{}"),
    ("POST", f"v2/repository/models/{NOBODY}/unload", "{}"),
    ("GET", "v2/logging", ""),
    ("POST", "v2/logging", "{}"),
    ("GET", "v2/trace/setting", ""),
    ("POST", "v2/trace/setting", "{}"),
    ("GET", "v2/systemsharedmemory/status", ""),
    ("POST", f"v2/systemsharedmemory/region/{NOBODY}/register", "{}"),
    ("POST", f"v2/systemsharedmemory/region/{NOBODY}/unregister", "{}"),
    ("GET", "v2/cudasharedmemory/status", ""),
    ("POST", f"v2/cudasharedmemory/region/{NOBODY}/register", "{}"),
)
ADMIN_CALLS: dict[str, Callable[[Any], object]] = {
    "repository index": lambda client: client.get_model_repository_index(),
    "load": lambda client: client.load_model(NOBODY),
    "unload": lambda client: client.unload_model(NOBODY),
    "log settings": lambda client: client.get_log_settings(),
    "trace settings": lambda client: client.get_trace_settings(),
    "shared memory": lambda client: client.get_system_shared_memory_status(),
    "register shared memory": lambda client: client.register_system_shared_memory(NOBODY, "/no-such-key", 1),
    "CUDA memory": lambda client: client.get_cuda_shared_memory_status(),
}
# Where a container without a writable root may write: its scratch space, and what the kernel or docker mount of their own
WRITABLE = ("/tmp", "/dev", "/proc", "/sys")


@pytest.fixture
def processes(host: Any, release: Release) -> dict[int, dict[str, str]]:
    """The host's number of each process of the container -> its lines of /proc/…/status."""
    listed = host.check_output(f"docker top {release.settings.service_name} -eo pid").splitlines()[1:]
    found = {}
    for pid in map(int, listed):
        text = host.run(f"cat /proc/{pid}/status").stdout
        lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        if lines:  # one that ended meanwhile has none
            found[pid] = {key: value.strip() for key, value in lines.items()}
    assert found, "the container has no process"
    return found


@pytest.mark.requirement("R51")
def test_every_server_process_is_unprivileged(processes: dict[int, dict[str, str]], release: Release) -> None:
    user, group = release.settings.server_user.split(":")
    for status in processes.values():
        name = status["Name"]
        assert set(status["Uid"].split()) == {user}, name
        assert set(status["Gid"].split()) == {group}, name
        for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[capabilities], 16) == 0, f"{name}: {capabilities}"
        assert status["NoNewPrivs"] == "1", name
        assert status["Seccomp"] == "2", name


@pytest.mark.requirement("R51")
def test_server_can_write_only_to_its_scratch_space(
    host: Any, container: dict[str, Any], release: Release
) -> None:
    pid = container["State"]["Pid"]
    mounts = [line.split() for line in host.check_output(f"cat /proc/{pid}/mountinfo").splitlines()]
    writable = {fields[4] for fields in mounts if "rw" in fields[5].split(",")}
    assert "/tmp" in writable
    own = (*WRITABLE, *([CACHE] if release.cache else []))
    assert not [place for place in writable if not f"{place}/".startswith(tuple(f"{w}/" for w in own))]
    # as root, whom no mode of a file would stop
    targets = [
        "/",
        "/opt",
        "/release",
        *(mount["Destination"] for mount in container["Mounts"] if mount["Destination"] != CACHE),
    ]
    for target in targets:
        tried = host.run(f"nsenter --target {pid} --mount --root touch {target}/.tritonhost-probe")
        assert tried.rc != 0, target
        assert "Read-only file system" in tried.stderr, target


@pytest.mark.requirement("R51")
def test_container_is_isolated_from_the_host_and_docker(container: dict[str, Any]) -> None:
    settings = container["HostConfig"]
    assert not settings["Privileged"]
    assert settings["CapDrop"] == ["ALL"]
    assert not settings["CapAdd"]
    assert settings["SecurityOpt"] and "no-new-privileges" in settings["SecurityOpt"][0]
    for namespace in ("NetworkMode", "PidMode", "IpcMode", "UTSMode", "UsernsMode"):
        assert settings[namespace] != "host", namespace
    assert not [mount for mount in container["Mounts"] if "docker.sock" in mount["Source"]]


@pytest.mark.pids_cgroup
def test_container_has_a_process_limit(host: Any, container: dict[str, Any], release: Release) -> None:
    if host.check_output("docker info --format '{{.PidsLimit}}'") != "true":
        pytest.skip("this host's kernel or container has no pids cgroup: docker cannot bound processes")
    wanted = release.settings.pids_limit or PIDS_PER_GPU * release.profile.gpus_needed
    assert container["HostConfig"]["PidsLimit"] == wanted


def test_server_has_no_token(container: dict[str, Any]) -> None:
    names = {line.split("=", 1)[0] for line in container["Config"]["Env"]}
    assert not [name for name in names if "TOKEN" in name or "SECRET" in name]
    assert {name for name in names if name.startswith(("HF_", "HUGGING"))} == {"HF_HUB_OFFLINE"}
    assert not [mount for mount in container["Mounts"] if "token" in mount["Destination"]]


@pytest.mark.requirement("R50")
def test_admin_apis_are_closed_over_http(host: Any, release: Release) -> None:
    if release.profile.server.admin_apis:
        pytest.skip("the profile opens the admin APIs")
    for method, path, body in ADMIN_REQUESTS:
        status = host.check_output(
            f"curl --silent --max-time 5 --request {method} {f'--data {json.dumps(body)}' if body else ''} "
            f"--output /dev/null --write-out '%{{http_code}}' http://{release.address}:{release.ports[0]}/{path} || :"
        )
        assert status == "403", f"{method} {path}"


@pytest.mark.requirement("R50")
def test_admin_apis_are_closed_over_grpc(connection: Connection, release: Release) -> None:
    if release.profile.server.admin_apis:
        pytest.skip("the profile opens the admin APIs")
    with connection.tunnel(release.address, release.ports[1]) as endpoint:
        client = triton.InferenceServerClient(endpoint)
        try:
            for name, call in ADMIN_CALLS.items():
                with pytest.raises(InferenceServerException, match="This protocol is restricted"):
                    pytest.fail(f"{name}: answered {call(client)}")
        finally:
            client.close()
