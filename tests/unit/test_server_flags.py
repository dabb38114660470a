import re
from typing import Any

import pytest

from operations.plan.catalog.support_matrix import RELEASES
from operations.plan.errors import PlanError
from operations.plan.exposure import server_flags
from operations.plan.release import PIDS_PER_GPU
from tests.unit.builders import gpu, profile, release

CLOSED = "model-repository,shared-memory,trace,logging:tritonhost-key=$key"


def exposure(triton: str = "2.50.0", **changed: Any) -> list[str]:
    asked: dict[str, Any] = {
        "admin_apis": False,
        "max_request_mib": 64,
        "stop_timeout_s": 60,
        "explicit": False,
    }
    return server_flags.exposure(triton=triton, **{**asked, **changed})


def test_admin_apis_are_closed_by_default() -> None:
    assert exposure() == [
        "--model-control-mode=none",
        f"--http-restricted-api={CLOSED}",
        f"--grpc-restricted-protocol={CLOSED}",
        "--exit-timeout-secs=45",
    ]


@pytest.mark.parametrize(
    ("release", "known"),
    [
        ("24.04", []),
        ("24.09", []),
        ("25.05", []),
        ("25.06", ["--http-max-input-size"]),
        ("26.03", ["--http-max-input-size"]),
        ("26.04", ["--allow-client-shm", "--http-max-input-size"]),
        ("26.07", ["--allow-client-shm", "--http-max-input-size"]),
    ],
)
def test_flag_is_passed_only_to_servers_that_know_it(release: str, known: list[str]) -> None:
    said = {option.split("=")[0] for option in exposure(RELEASES[release].triton)}
    assert sorted(said & {"--http-max-input-size", "--allow-client-shm"}) == known


def test_admin_apis_setting_opens_all_of_them() -> None:
    options = exposure(RELEASES["26.07"].triton, admin_apis=True)
    assert not [option for option in options if "restricted" in option]
    assert "--allow-client-shm=true" in options
    # loading by name is another matter: server.load_models
    assert "--model-control-mode=none" in options


def test_explicit_models_set_the_control_mode_once() -> None:
    assert not [option for option in exposure(explicit=True) if "model-control" in option]
    serve = release(tables={"server": {"load_models": ["ensemble"]}}).files["serve"]
    assert re.findall(r"--model-control-mode=\w+", serve) == ["--model-control-mode=explicit"]


def test_request_limit_is_in_bytes_and_needs_a_recent_triton() -> None:
    assert "--http-max-input-size=16777216" in exposure(RELEASES["25.10"].triton, max_request_mib=16)
    with pytest.raises(PlanError, match=r"server.max_request_mib: found 16, .*Triton 2\.50\.0.*25\.06"):
        exposure(max_request_mib=16)


@pytest.mark.parametrize(("stop", "exits"), [(5, 3), (40, 30), (60, 45), (600, 450)])
def test_requests_end_before_docker_kills_the_server(stop: int, exits: int) -> None:
    assert exposure(stop_timeout_s=stop)[-1] == f"--exit-timeout-secs={exits}"


@pytest.mark.requirement("M46")
def test_own_restricted_api_key_is_refused() -> None:
    """M46: such a key would be in the inventory, in the release's files and in the list of processes."""
    for name in ("http-restricted-api", "grpc-restricted-protocol"):
        for value in ("trace:key=short", f"trace:admin={'a' * 64}"):
            with pytest.raises(ValueError, match="a key of your own is not supported"):
                profile(server={"arguments": [f"--{name}={value}"]})


def words(serve: str) -> list[str]:
    return serve.partition("exec docker run")[2].replace("\\\n", " ").split()


def test_serving_container_has_minimal_rights() -> None:
    said = words(release().files["serve"])
    for option, value in {
        "--user": "60600:60600",
        "--cap-drop": "ALL",
        "--security-opt": "no-new-privileges",
        "--pids-limit": str(PIDS_PER_GPU),
    }.items():
        assert said[said.index(option) + 1] == value
    assert "--read-only" in said
    # what the server can write to, and with it every cache below its home
    assert said[said.index("--tmpfs") + 1].startswith("/tmp:rw,exec,nosuid,nodev,size=")
    assert "HOME=/tmp" in said
    mounts = [said[n + 1] for n, word in enumerate(said) if word == "--volume"]
    assert mounts and all(mount.endswith(":ro") for mount in mounts)
    text = " ".join(said)
    for other in ("docker.sock", "--privileged", "--pid", "--network host", "--network=host", "TOKEN"):
        assert f"{other} " not in text.replace("--pids-limit", "")


def test_process_limit_scales_with_the_gpus() -> None:
    wanted = release(tables={"checkpoint": {"tensor_parallel": 2}}, gpus=[gpu(0), gpu(1)])
    said = words(wanted.files["serve"])
    assert said[said.index("--pids-limit") + 1] == str(2 * PIDS_PER_GPU)
    chosen = words(release({"pids_limit": 300, "server_user": "2000:3000"}).files["serve"])
    assert chosen[chosen.index("--pids-limit") + 1] == "300"
    assert chosen[chosen.index("--user") + 1] == "2000:3000"


def test_worker_rank_gets_no_port_options() -> None:
    wanted = release(tables={"checkpoint": {"tensor_parallel": 2}}, gpus=[gpu(0), gpu(1)])
    assert wanted.files["serve"].count("--http-restricted-api=") == 1


def test_artifact_commands_have_no_capabilities() -> None:
    for made in release().artifacts:
        for command in made.commands:
            if command[:2] == ("docker", "run"):
                assert "--cap-drop ALL --security-opt no-new-privileges" in " ".join(command)
