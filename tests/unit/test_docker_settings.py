"""What docker's settings mean for a deploy: those of the inventory, and those of the host's own file."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from operations import convergence
from operations.plan import PlanError
from operations.plan.catalog import docker_daemon
from operations.plan.inventory import docker_settings
from operations.plan.inventory.settings import from_host_data
from operations.plan.machine import docker_host
from operations.plan.observed.health import Health
from operations.plan.preflight import checks as preflight
from operations.plan.preflight.check import Check, Subject
from tests.unit.builders import DATA, converged, gpu, profile, release, settings

WANTED = release()


def refusal(own: dict[str, Any]) -> str:
    with pytest.raises(PlanError) as caught:
        from_host_data({**DATA, "docker_daemon_settings": own}, "gpu-1")
    message = str(caught.value)
    assert "\n" not in message
    return message


# the inventory's own


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        # docker starts with it and ignores it
        (
            {"registry-mirror": ["https://m.invalid"]},
            "registry-mirror: found .*, expected the name registry-mirrors",
        ),
        ({"http-proxy": "http://p.invalid"}, "http-proxy: found http://p.invalid, expected the name proxies"),
        ({"registry-mirrors": "https://m.invalid"}, "registry-mirrors: found .*, expected a list of URLs"),
        (
            {"registry-mirrors": ["m.invalid"]},
            r"registry-mirrors: found \['m.invalid'\], expected a list of URLs",
        ),
        ({"log-opts": {"max-file": 3}}, "log-opts: found .*'max-file': 3.*, expected a table of text"),
        ({"log-level": "loud"}, "log-level: found loud, expected debug, info"),
        ({"debug": "true"}, "debug: found true, expected true or false"),
        ({"mtu": "1500"}, "mtu: found 1500, expected a whole number"),
        ({"mtu": True}, "mtu: found True, expected a whole number"),
        ({"features": {"cdi": 1}}, "features: found .*, expected a table of true and false"),
        ({"default-ulimits": {"nofile": 5}}, "default-ulimits: found .*, expected a table of tables"),
        ({"insecure-registries": [5]}, "insecure-registries: found .*, expected a list of text"),
        ({"log_driver": "local"}, "found log_driver, expected names of small .*known is log-driver"),
        (
            {"hosts": ["tcp://0.0.0.0:2375"]},
            "hosts: found .*, expected no sockets here; docker's own unit says -H",
        ),
        ({"hosts": []}, "hosts: found .*, expected no sockets here"),
        ({"userns-remap": "default"}, "userns-remap: found default, expected no user namespaces"),
        ({"storage-driver": "devicemapper"}, "storage-driver: found devicemapper, expected overlay2"),
        (
            {"exec-opts": ["native.cgroupdriver=cgroups"]},
            "exec-opts: found .*, expected native.cgroupdriver=systemd",
        ),
        ({"data-root": "docker"}, "data-root: found docker, expected an absolute path"),
        ({"iptables": False, "userland-proxy": False}, "iptables: found False, expected one of iptables and"),
        ({"runtimes": {}}, "expected settings without runtimes"),
        ({"runtimes": 5}, "expected settings without runtimes"),
    ],
)
def test_impossible_settings_are_refused_before_connecting(own: dict[str, Any], expected: str) -> None:
    message = refusal(own)
    assert message.startswith("gpu-1: docker_daemon_settings")
    assert re.search(expected, message), message


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"features": {"containerd-snapshotter": False}},
        {"registry-mirrors": ["https://m.invalid/"], "insecure-registries": ["r:1", "http://10.0.0.5:8080"]},
        {"log-driver": "local", "log-opts": {"max-size": "10m", "max-file": "3"}, "log-level": "WARN"},
        {"default-address-pools": [{"base": "10.200.0.0/16", "size": 24}], "bip": "10.1.0.1/24", "mtu": 9000},
        {"exec-opts": ["native.cgroupdriver=cgroupfs"], "live-restore": True, "iptables": True, "icc": False},
        # a host may declare it itself
        {"default-runtime": "crun"},
        # a newer docker's
        {"a-new-thing": {"x": 1}},
    ],
)
def test_plausible_settings_are_accepted(own: dict[str, Any]) -> None:
    assert from_host_data({**DATA, "docker_daemon_settings": own}, "gpu-1").docker_daemon_settings == own


def test_unknown_setting_is_a_warning_with_a_suggestion() -> None:
    said = release({"docker_daemon_settings": {"log-levels": "debug", "debug": True}}).warnings
    [line] = [warning for warning in said if warning.startswith("docker_daemon_settings")]
    assert line == (
        "docker_daemon_settings: log-levels: found debug, expected a setting that is known here; the nearest that is known "
        "is log-level; docker is asked before its file is replaced"
    )
    assert docker_settings.unknown({"zzz": 1})[0].endswith(
        "known here; docker is asked before its file is replaced"
    )


def test_every_setting_has_a_kind_and_every_kind_is_used() -> None:
    kinds = {known.kind for known in docker_daemon.SETTINGS.values()}
    assert kinds == set(docker_daemon.KINDS)
    assert [key for key, known in docker_daemon.SETTINGS.items() if not known.fine] == []
    assert set(docker_settings.FLAGS.values()) <= set(docker_daemon.SETTINGS)
    assert not set(docker_settings.FLAGS) & set(docker_daemon.SETTINGS)


# a host's own file


def found(own: Any, inventory: dict[str, Any] | None = None) -> list[tuple[str, str]]:
    text = own if isinstance(own, str) else json.dumps(own)
    return [(each.verdict, each.key) for each in docker_host.of_host(text, inventory or {})]


FILE = "/etc/docker/daemon.json: "


@pytest.mark.parametrize(
    ("own", "verdict", "key"),
    [
        ({"userns-remap": "default"}, "refused", "userns-remap"),
        ({"iptables": False}, "warning", "iptables"),
        ({"iptables": False, "userland-proxy": False}, "refused", "iptables"),
        ({"bridge": "none"}, "warning", "bridge"),
        ({"ip-forward": False}, "warning", "ip-forward"),
        ({"storage-driver": "devicemapper"}, "refused", "storage-driver"),
        ({"storage-driver": "vfs"}, "warning", "storage-driver"),
        ({"default-runtime": "kata"}, "refused", "default-runtime"),
        ({"default-runtime": "kata", "runtimes": {"kata": {"path": "/k"}}}, "warning", "default-runtime"),
        ({"default-runtime": "nvidia"}, "warning", "default-runtime"),
        ({"hosts": ["tcp://10.0.0.1:2376"]}, "refused", "hosts"),
        ({"hosts": ["fd://", "tcp://10.0.0.1:2375"]}, "warning", "hosts"),
        ({"cgroup-parent": "gpu", "exec-opts": ["native.cgroupdriver=systemd"]}, "refused", "cgroup-parent"),
        ({"cgroup-parent": "gpu.slice"}, "warning", "cgroup-parent"),
        ({"exec-opts": ["native.cgroupdriver=other"]}, "refused", "exec-opts"),
        ({"firewall-backend": "nftables"}, "warning", "firewall-backend"),
        ({"log-driver": "fluentd"}, "warning", "log-driver"),
        ({"authorization-plugins": ["x"]}, "warning", "authorization-plugins"),
        ({"seccomp-profile": "unconfined"}, "warning", "seccomp-profile"),
        ({"features": {"containerd-snapshotter": True}}, "warning", "features"),
        (
            {"default-network-opts": {"bridge": {"com.docker.network.bridge.gateway_mode_ipv4": "routed"}}},
            "refused",
            "default-network-opts",
        ),
        # docker does not run with these
        ({"log-opts": {"max-file": 3}}, "refused", "log-opts"),
        ({"iptables": "false"}, "refused", "iptables"),
        # it does, and ignores it
        ({"insecure-registry": ["r:1"]}, "warning", "insecure-registry"),
    ],
)
def test_settings_on_the_host_get_a_verdict(own: dict[str, Any], verdict: str, key: str) -> None:
    assert found(own) == [(verdict, f"{FILE}{key}")]


@pytest.mark.parametrize(
    "own",
    [
        {},
        {
            "icc": False,
            "ip-masq": False,
            "no-new-privileges": True,
            "live-restore": True,
            "selinux-enabled": False,
        },
        {
            "hosts": ["fd://"],
            "userns-remap": "",
            "iptables": True,
            "bridge": "br0",
            "storage-driver": "overlay2",
        },
        {"hosts": ["unix:///var/run/docker.sock", "tcp://10.0.0.1:2376"], "tlsverify": True},
        {
            "default-runtime": "runc",
            "data-root": "/data/docker",
            "exec-opts": ["native.cgroupdriver=systemd"],
        },
        {"default-runtime": None, "dns": None},
        {"unknown-to-us": 1},
        "no JSON",
        "",
    ],
)
def test_harmless_settings_are_not_reported(own: Any) -> None:
    assert found(own) == []


def test_inventory_setting_overrides_the_host_s_and_is_named() -> None:
    assert found({"iptables": False}, {"iptables": True}) == []
    assert found({}, {"iptables": False}) == [("warning", "docker_daemon_settings: iptables")]


# where it is said


def planned(own: dict[str, Any], serves: bool = True, **data: Any) -> None:
    given = settings(**data)
    observed = replace(converged(WANTED), daemon_json=json.dumps(own))
    observed = observed if serves else replace(observed, container=None)
    convergence.planned_for(given, profile(), replace(observed, gpus=(gpu(),)))


def test_userns_remap_on_a_host_is_refused_in_one_line() -> None:
    with pytest.raises(PlanError) as caught:
        planned({"userns-remap": "default"})
    assert str(caught.value).startswith(f"{FILE}userns-remap: found default, expected no user namespaces; ")


def test_settings_with_a_warning_do_not_stop_the_plan() -> None:
    planned({"iptables": False, "bridge": "none"})


@pytest.mark.parametrize(
    ("own", "inventory", "key"),
    [
        ({}, {"data-root": "/data/docker"}, "data-root"),
        ({"data-root": "/data/docker"}, {"data-root": "/var/lib/docker/"}, "data-root"),
        ({"storage-driver": "overlay2"}, {"storage-driver": "btrfs"}, "storage-driver"),
        (
            {"features": {"containerd-snapshotter": True}},
            {"features": {"containerd-snapshotter": False}},
            "features",
        ),
    ],
)
def test_settings_that_hide_images_are_refused_while_serving(
    own: dict[str, Any], inventory: dict[str, Any], key: str
) -> None:
    with pytest.raises(PlanError, match=rf"docker_daemon_settings: {key}: found .*while the host serves"):
        planned(own, docker_daemon_settings=inventory)
    planned(own, serves=False, docker_daemon_settings=inventory)


@pytest.mark.parametrize(
    ("own", "inventory"),
    [
        ({"data-root": "/data/docker"}, {"data-root": "/data/docker/"}),
        ({"data-root": "/data/docker"}, {"debug": True}),
        ({}, {"storage-driver": "overlay2", "features": {"containerd-snapshotter": False}}),
        ({"features": {"buildkit": True}}, {"features": {"containerd-snapshotter": False}}),
    ],
)
def test_settings_that_keep_images_are_accepted_while_serving(
    own: dict[str, Any], inventory: dict[str, Any]
) -> None:
    planned(own, docker_daemon_settings=inventory)


def test_docker_and_artifacts_need_different_directories() -> None:
    with pytest.raises(
        PlanError, match=r"daemon\.json: data-root: found /var/lib/tritonhost, expected another"
    ):
        planned({"data-root": "/var/lib/tritonhost"})


def checked(own: dict[str, Any], wanted: bool = True) -> Check:
    observed = replace(converged(WANTED), daemon_json=json.dumps(own))
    subject = Subject(settings(), profile(), WANTED if wanted else None, Health(), observed)
    return next(check for check in preflight.checks(subject) if check.name == "docker settings")


def test_preflight_reports_docker_settings() -> None:
    check = checked({"iptables": False, "bridge": "none"})
    assert check.verdict == "warning"
    assert check.found == f"{FILE}iptables False; {FILE}bridge none"
    assert "the server sees the host's address" in check.then
    assert checked({"userns-remap": "default"}, wanted=False).verdict == "failed"
    assert checked({"icc": False}).verdict == "ok"
    unseen = Subject(settings(), profile(), None, Health())
    assert next(c for c in preflight.checks(unseen) if c.name == "docker settings").verdict == "not checked"


@pytest.mark.parametrize(
    ("text", "inventory", "root"),
    [
        ("", {}, "/var/lib/docker"),
        # as jq writes it, on lines of its own
        ('{\n "data-root"\n:\n "/data/a\\u0062"\n}', {}, "/data/ab"),
        ('{"data-root": "/a"}', {"data-root": "/b"}, "/b"),
        ("no JSON", {"data-root": "/b"}, "/b"),
        ('{"data-root": 5}', {}, "/var/lib/docker"),
    ],
)
def test_docker_data_root_is_read_as_docker_does(text: str, inventory: dict[str, Any], root: str) -> None:
    assert docker_host.root_of(text, inventory) == root


def test_page_lists_every_setting_with_a_rule() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "docker.md").read_text("utf-8")
    named = set(re.findall(r"^\| `([a-z-]+)` \|", page, flags=re.MULTILINE))
    assert named == {key for key, known in docker_daemon.SETTINGS.items() if known.rules}
