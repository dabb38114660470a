"""SELinux: what has to be on and labelled, and what is read of a host."""

from __future__ import annotations

from dataclasses import replace

import pytest

from operations.facts.selinux import selinux as read
from operations.plan.difference import difference
from operations.plan.machine import selinux
from operations.plan.observed.observed import SELinux
from operations.plan.planning import plan_release
from tests.unit.builders import FILES, converged, gpu, profile, settings

CONTEXT = "system_u:object_r:container_file_t:s0"
GOOD = SELinux(True, {"container_use_devices": True}, rule=CONTEXT, label=CONTEXT)
WANTED = plan_release(settings(), [gpu()], "9", profile(), selinux=True)


def rows(found: SELinux) -> list[tuple[str, str, str]]:
    observed = replace(converged(WANTED), selinux=found)
    return [(row.what, row.found, row.wanted) for row in difference(WANTED, observed, FILES)]


def test_complete_host_has_no_difference() -> None:
    assert rows(GOOD) == []
    # permissive is the host owner's choice, and stays
    assert rows(replace(GOOD, enforcing=False)) == []


def test_missing_booleans_rules_and_labels_are_differences() -> None:
    off = replace(GOOD, booleans={"container_use_devices": False})
    assert rows(off) == [("container_use_devices", "off", "on")]
    other = "unconfined_u:object_r:var_lib_t:s0"
    assert rows(replace(GOOD, rule=other)) == [("rule for /var/lib/tritonhost", other, "container_file_t")]
    assert rows(replace(GOOD, label=other)) == [("label of /var/lib/tritonhost", other, "container_file_t")]


def test_unread_state_is_not_a_difference() -> None:
    assert rows(SELinux()) == []


def test_newer_boolean_is_preferred_to_the_wider_one() -> None:
    both = {"container_use_xserver_devices": False, "container_use_devices": False}
    assert selinux.missing_booleans(settings(), both) == ["container_use_xserver_devices"]
    assert selinux.missing_booleans(settings(), {}) == []


def test_proxy_needs_the_haproxy_boolean() -> None:
    found = {"haproxy_connect_any": False}
    assert selinux.missing_booleans(settings(front="haproxy"), found) == ["haproxy_connect_any"]
    assert selinux.missing_booleans(settings(), found) == []


@pytest.mark.parametrize(
    ("host", "inventory", "asked"), [(True, "auto", True), (True, "off", False), (False, "auto", False)]
)
def test_docker_confines_containers_where_the_host_can(host: bool, inventory: str, asked: bool) -> None:
    wanted = plan_release(settings(selinux=inventory), [gpu()], "9", profile(), selinux=host)
    assert wanted.docker_settings == ({"selinux-enabled": True} if asked else {})
    # the release is the same: labels are the host's
    assert wanted.id == WANTED.id


def test_inventory_setting_overrides_selinux_for_docker() -> None:
    own = settings(docker_daemon_settings={"selinux-enabled": False})
    assert plan_release(own, [gpu()], "9", profile(), selinux=True).docker_settings == {
        "selinux-enabled": False
    }


def test_rules_cover_the_data_root_and_unit_files() -> None:
    assert selinux.patterns(settings(data_root="/mnt/nvme.0/tritonhost")) == [
        "/mnt/nvme\\.0/tritonhost(/.*)?",
        "/var/run/tritonhost(/.*)?",
    ]


@pytest.mark.parametrize("service", ["triton", "a", "another-one"])
def test_level_has_two_ordered_categories(service: str) -> None:
    sensitivity, categories = selinux.level(service).split(":")
    first, second = (int(category.removeprefix("c")) for category in categories.split(","))
    assert sensitivity == "s0"
    assert 0 <= first < second <= 1023


def test_selinux_is_read_as_the_probe_prints_it() -> None:
    lines = ["enforce\t0", "boolean:a\t1", "boolean:b\t0", "boolean:c\t", f"rule\t{CONTEXT}", "label\t"]
    booleans = {"a": True, "b": False, "c": False}
    assert read(lines) == SELinux(False, booleans, rule=CONTEXT, label="")
    assert read(["enforce\t1"]) == SELinux(True)
    assert read([]) is None


@pytest.mark.parametrize(
    ("context", "type"),
    [(CONTEXT, "container_file_t"), ("system_u:object_r:etc_t:s0:c1,c2", "etc_t"), ("?", ""), ("", "")],
)
def test_a_context_has_a_type(context: str, type: str) -> None:
    assert selinux.type_of(context) == type
