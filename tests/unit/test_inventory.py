from datetime import date
from pathlib import Path
from typing import Any

import pytest

from operations.intake.refusing import refusing
from operations.plan.deployable import check_deployable
from operations.plan.errors import PlanError
from operations.plan.inventory.hosts import (
    checked_hosts,
    hosts_from_text,
    read_group_data,
    settings_of,
    static_hosts,
    tables_from_toml,
)
from tests.unit.builders import DATA


def complaint(hosts: object) -> str:
    with pytest.raises(PlanError) as caught:
        checked_hosts(hosts, "here")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_names_and_pairs_are_accepted() -> None:
    assert checked_hosts(["gpu-1", ("gpu-2", {"ssh_hostname": "10.0.0.12"})], "here") == [
        ("gpu-1", {}),
        ("gpu-2", {"ssh_hostname": "10.0.0.12"}),
    ]


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ([], "here: found no hosts, expected at least one host"),
        ("10.0.0.1", "a list of hosts"),
        (None, "a list of hosts"),
        ({"gpu-1": {}}, "a list of hosts"),
        ([None], "host #1"),
        (["gpu-1", 5], "host #2"),
        ([("gpu-1", {}, "x")], "a name or (name, data)"),
        ([("gpu-1", "x")], "a name or (name, data)"),
        ([("", {})], "a host name"),
        (["gpu 1"], "a host name"),
        (["gpu-1\n"], "a host name"),
        (["gpu-1\0"], "a host name"),
        (["$(reboot)"], "a host name"),
        (["-oProxyCommand=reboot"], "a host name"),
        (["user@gpu-1"], "a host name"),
        (["::1"], "a host name"),
        (["a" * 254], "a host name"),
        ([("gpu-1", {"ssh_hostname": "-oProxyCommand=reboot"})], "host gpu-1 ssh_hostname"),
        ([("gpu-1", {"ssh_hostname": 5})], "host gpu-1 ssh_hostname: found 5"),
        (["10.0.0.999"], "a valid IPv4 address"),
        (["10.0.0"], "a valid IPv4 address"),
        ([("gpu-1", {"ssh_hostname": "10.0.0.999"})], "a valid IPv4 address"),
        (["gpu-1", "gpu-1"], "duplicate host gpu-1"),
        (["10.0.0.1", ("gpu-1", {"ssh_hostname": "10.0.0.1"})], "duplicate host"),
        ([("a", {"ssh_hostname": "10.0.0.1"}), ("b", {"ssh_hostname": "10.0.0.1"})], "duplicate host"),
    ],
)
def test_hosts_pyinfra_would_silently_accept_are_refused(hosts: object, expected: str) -> None:
    assert expected in complaint(hosts)


def test_one_address_with_two_ports_is_two_hosts() -> None:
    pairs = [(name, {"ssh_hostname": "10.0.0.1", "ssh_port": port}) for name, port in (("a", 22), ("b", 23))]
    assert checked_hosts(pairs, "here") == pairs


def test_a_port_that_is_a_list_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "all.py").write_text(f"globals().update({DATA!r})", encoding="utf-8")
    with pytest.raises(PlanError, match="ssh_port"):
        settings_of(checked_hosts([("gpu-1", {"ssh_port": [22]})], "here"), "oci", tmp_path)


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("", []),
        (" , ", []),
        ("gpu-1", [("gpu-1", {"ssh_hostname": "gpu-1"})]),
        (
            "gpu-1=10.0.0.11, gpu-2=10.0.0.12",
            [("gpu-1", {"ssh_hostname": "10.0.0.11"}), ("gpu-2", {"ssh_hostname": "10.0.0.12"})],
        ),
        ("gpu-1=", [("gpu-1", {"ssh_hostname": ""})]),
        ("=10.0.0.1", [("", {"ssh_hostname": "10.0.0.1"})]),
    ],
)
def test_hosts_from_a_variable(text: str, entries: list[Any]) -> None:
    assert hosts_from_text(text) == entries


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("gpu-1=", "host gpu-1 ssh_hostname: found nothing"),
        ("=10.0.0.1", "host #1 name: found nothing"),
        ("gpu-1=10.0.0.1=x", 'host gpu-1 ssh_hostname: found "10.0.0.1=x"'),
    ],
)
def test_incomplete_entry_is_refused(text: str, place: str) -> None:
    assert place in complaint(hosts_from_text(text))


def toml(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "oci.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read_hosts(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The hosts that a file names one by one, as inventories/oci.py reads them."""
    return static_hosts(tables_from_toml(path), path.name)


def test_static_hosts_are_those_of_the_tables(tmp_path: Path) -> None:
    path = toml(tmp_path, '[hosts.gpu-1]\naddress = "10.0.0.11"\nmodel = "m"\n[hosts."10.0.0.12"]\n')
    assert read_hosts(path) == [
        ("gpu-1", {"ssh_hostname": "10.0.0.11", "model": "m"}),
        ("10.0.0.12", {}),
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[hosts.a", "a TOML file in UTF-8"),
        ("[hosts.a]\n[hosts.a]\n", "a TOML file in UTF-8"),
        ("[hosts.é]\n".encode("latin-1"), "a TOML file in UTF-8"),
        ("[hosts.a]\n".encode("utf-16"), "a TOML file in UTF-8"),
        ("[host.gpu-1]\n", "did you mean hosts?"),
        ('hosts = "10.0.0.1"\n', "a table [hosts.NAME] for each host"),
        ('hosts = ["10.0.0.1"]\n', "a table [hosts.NAME] for each host"),
        ('[hosts]\ngpu-1 = "10.0.0.1"\n', "a table [hosts.NAME] for each host"),
    ],
)
def test_toml_that_is_not_an_inventory_is_refused(
    tmp_path: Path, content: str | bytes, expected: str
) -> None:
    with pytest.raises(PlanError) as caught:
        read_hosts(toml(tmp_path, content))
    assert expected in str(caught.value)
    assert "oci.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_toml_file_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"oci\.toml: found no such file.*OCI_HOSTS"):
        read_hosts(tmp_path / "oci.toml")


def test_windows_line_ends_are_fine(tmp_path: Path) -> None:
    assert read_hosts(toml(tmp_path, "[hosts.gpu-1]\r\n")) == [("gpu-1", {})]


def group_data(tmp_path: Path) -> Path:
    data = {**DATA, "model": "gpt2-medium"}
    (tmp_path / "all.py").write_text(f"globals().update({data!r})\n_sudo = True\n", encoding="utf-8")
    (tmp_path / "oci.py").write_text('import os\nservice_name = "inference"\nstart_timeout_s = 60\n', "utf-8")
    return tmp_path


def test_host_data_win_over_group_data_and_those_over_all(tmp_path: Path) -> None:
    hosts: list[tuple[str, dict[str, Any]]] = [("gpu-1", {"start_timeout_s": 90}), ("gpu-2", {})]
    found = settings_of(hosts, "oci", group_data(tmp_path))
    assert found["gpu-1"].service_name == "inference"
    assert (found["gpu-1"].start_timeout_s, found["gpu-2"].start_timeout_s) == (90, 60)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"model": "smollm2-135"}, "model: found smollm2-135, expected a profile.*did you mean smollm2-135m"),
        ({"model": "../../etc/passwd"}, "a profile in inventories/models"),
        ({"mdel": "x"}, "did you mean model"),
        ({"ssh_port": True}, "ssh_port"),
        ({"profile_overrides": {"engin": {}}}, "unknown key engin.*did you mean engine"),
    ],
)
def test_a_host_s_bad_data_are_refused_before_a_connection(
    tmp_path: Path, data: dict[str, Any], expected: str
) -> None:
    with pytest.raises(PlanError, match=expected):
        (settings,) = settings_of([("gpu-1", data)], "oci", group_data(tmp_path)).values()
        check_deployable("gpu-1", settings, date(2026, 11, 21))


def test_group_data_follow_pyinfra_s_rules(tmp_path: Path) -> None:
    path = tmp_path / "all.py"
    path.write_text("import os\nfrom json import dumps as d\na = 1\n_sudo = True\n", encoding="utf-8")
    assert read_group_data(path) == {"a": 1, "_sudo": True}
    path.write_text('__all__ = ["b"]\na = 1\nb = 2\n', encoding="utf-8")
    assert read_group_data(path) == {"b": 2}
    assert read_group_data(tmp_path / "absent.py") == {}


def test_a_refusal_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, refusing():
        raise PlanError("here", "this", "that")
    assert caught.value.code == 2
    assert capsys.readouterr().err == "tritonhost: here: found this, expected that\n"
