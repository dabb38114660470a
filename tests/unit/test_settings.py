from typing import Any

import pytest

from operations.plan.errors import PlanError
from operations.plan.inventory.settings import from_host_data
from tests.unit.builders import DATA

TOKEN = "hf_CANARYcanary0123456789"


def complaint(**changed: Any) -> str:
    with pytest.raises(PlanError) as caught:
        from_host_data({**DATA, **changed}, "gpu-1")
    return str(caught.value)


def test_defaults_are_safe() -> None:
    settings = from_host_data(DATA, "gpu-1")
    assert settings.data_root == "/var/lib/tritonhost"
    assert settings.bind_address == "127.0.0.1"
    assert not settings.expose
    assert settings.gpu_ids == "all"
    assert settings.hub_endpoint == "https://huggingface.co"


def test_pyinfra_keys_are_ignored() -> None:
    data = {**DATA, "_sudo": True, "ssh_user": "opc", "ssh_port": 2222, "ssh_known_hosts_file": "/x"}
    assert from_host_data(data, "gpu-1") == from_host_data(DATA, "gpu-1")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("modle", "x", "did you mean model?"),
        ("data_rot", "/var/lib/x", "did you mean data_root?"),
        ("ssh_usr", "opc", "did you mean ssh_user?"),
        *[
            ("ssh_port", port, "a whole number from 1 to 65535")
            for port in ("abc", "22", True, 22.5, 99999, 0, -1, None)
        ],
        *[("http_port", port, "http_port") for port in (80, 70000, True, "8000", 8000.5)],
        ("model", "", "model"),
        ("bind_address", "10.0.0.999", "an IPv4 address"),
        ("bind_address", "localhost", "an IPv4 address"),
        ("bind_address", "0.0.0.0", "expose=True"),
        ("data_root", "/var", "two levels"),
        ("data_root", "/var/", "two levels"),
        ("data_root", "/var/lib/../../etc", "two levels"),
        ("data_root", "var/lib/tritonhost", "data_root"),
        ("data_root", "/var/lib/with space", "data_root"),
        ("service_name", "Triton", "service_name"),
        ("service_name", "triton; reboot", "service_name"),
        ("gpu_ids", [], "gpu_ids"),
        ("gpu_ids", [0, 0], "each named once"),
        ("gpu_ids", [-1], "gpu_ids"),
        ("gpu_ids", [True], "gpu_ids"),
        ("gpu_ids", ["all", 0], "gpu_ids"),
        ("gpu_ids", "none", "gpu_ids"),
        ("docker_gpg_fingerprint", "060A61C5", "docker_gpg_fingerprint"),
        ("docker_packages", {"docker-ce": "latest"}, "docker_packages.docker-ce"),
        ("docker_packages", {"docker-ce": None}, "docker_packages.docker-ce"),
        ("image_digests", {"a": f"sha256:{'0' * 63}"}, "image_digests.a"),
        ("image_digests", {"a": "latest"}, "image_digests.a"),
        ("backend_commits", {"v0.13.0": "main"}, "backend_commits.v0.13.0"),
        ("image_registry", "http://nvcr.io", "image_registry"),
        ("hub_endpoint", "ftp://mirror.invalid", "hub_endpoint"),
        ("hub_endpoint", "https://user:pass@mirror.invalid", "hub_endpoint"),
        ("tritonserver_arguments", ["--log-verbose 1"], "--name=value"),
        ("tritonserver_arguments", ["; reboot"], "--name=value"),
        ("start_timeout_s", 5, "start_timeout_s"),
        ("start_timeout_s", True, "start_timeout_s"),
        ("keep_releases", 1, "keep_releases"),
        *[("server_user", user, "uid:gid") for user in ("root", "0:0", "1000", "-1:0", "1000:1000 ", 1000)],
        *[("pids_limit", limit, "pids_limit") for limit in (0, -1, 255, True, "4096")],
    ],
)
def test_invalid_setting_is_refused_with_host_and_key(key: str, value: Any, expected: str) -> None:
    text = complaint(**{key: value})
    assert text.startswith("gpu-1")
    assert key in text
    assert expected in text
    assert "\n" not in text


@pytest.mark.parametrize("key", sorted(k for k in DATA if k.startswith(("docker_", "nvidia_", "model"))))
def test_a_missing_key_says_where_to_add_it(key: str) -> None:
    with pytest.raises(PlanError, match=f"gpu-1: {key}: found nothing, expected a value; add {key} to gpu-1"):
        from_host_data({k: v for k, v in DATA.items() if k != key}, "gpu-1")


@pytest.mark.parametrize(
    "changed",
    [
        {"hf_token": TOKEN},
        {"model": TOKEN},
        {"ssh_user": TOKEN},
        {"ssh_password": TOKEN},
        {"hub_endpoint": f"https://user:{TOKEN}@mirror.invalid"},
        {"profile_overrides": {"server": {"environment": {"HF_TOKEN": TOKEN}}}},
        {"tritonserver_arguments": [f"--token={TOKEN}"]},
    ],
)
def test_secret_in_an_inventory_is_refused_and_not_shown(changed: dict[str, Any]) -> None:
    text = complaint(**changed)
    assert "secret" in text
    assert "CANARY" not in text


def test_password_is_refused_and_not_shown() -> None:
    text = complaint(ssh_password="correct horse")
    assert "ssh_key" in text
    assert "horse" not in text


@pytest.mark.parametrize(
    ("given", "kept"), [("/var/lib/x/", "/var/lib/x"), ("/mnt/nvme/tritonhost", "/mnt/nvme/tritonhost")]
)
def test_data_root_is_kept_without_a_trailing_slash(given: str, kept: str) -> None:
    assert from_host_data({**DATA, "data_root": given}, "gpu-1").data_root == kept


@pytest.mark.parametrize("value", ["//tmp", "/./tmp", "/tmp//"])
def test_data_root_needs_two_real_levels(value: str) -> None:
    assert "two levels" in complaint(data_root=value)


def test_public_bind_address_needs_expose() -> None:
    data = {**DATA, "bind_address": "0.0.0.0", "expose": True, "allowed_sources": ["0.0.0.0/0"]}
    assert from_host_data(data, "gpu-1").bind_address == "0.0.0.0"


def test_a_shape_is_one_of_oci_s() -> None:
    assert from_host_data({**DATA, "shape": "BM.GPU4.8"}, "gpu-1").shape == "BM.GPU4.8"
    text = complaint(shape="BM.GPU4.9")
    assert text.startswith('gpu-1: shape: found "BM.GPU4.9", expected an OCI shape with NVIDIA GPUs')
    assert "did you mean BM.GPU4.8? known: BM.GPU.B300.8" in text


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            {"bind_address": "10.0.0.5"},
            'allowed_sources: found [], expected networks such as ["10.0.0.0/16"]',
        ),
        ({"bind_address": "0.0.0.0", "expose": True}, "who may reach bind_address 0.0.0.0"),
        ({"bind_address": "10.0.0.5", "allowed_sources": ["0.0.0.0/0"]}, "without expose=True"),
        ({"allowed_sources": ["10.0.0.5/8"]}, "an IPv4 network such as 10.0.0.0/16"),
        ({"allowed_sources": ["fd00::/8"]}, "an IPv4 network"),
        ({"allowed_sources": [167772160]}, "an IPv4 network"),
        ({"egress": ["169.254.169.254/32"]}, "networks outside 169.254.0.0/16"),
        ({"egress": ["10.0.0.0"] * 2 + ["anywhere"]}, "an IPv4 network"),
        ({"selinux": "permissive"}, "selinux"),
    ],
    ids=str,
)
def test_invalid_network_and_selinux_settings_are_refused(changed: dict[str, Any], expected: str) -> None:
    message = complaint(**changed)
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "name", ["docker", "sshd", "firewalld", "containerd", "nftables", "systemd-logind", "haproxy"]
)
def test_service_name_of_a_system_unit_is_refused(name: str) -> None:
    with pytest.raises(PlanError, match="no unit of the distribution's"):
        from_host_data({**DATA, "service_name": name}, "gpu-1")
