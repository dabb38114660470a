"""SELinux: what has to be on and labelled, and what is read of a host."""

from __future__ import annotations

from dataclasses import replace

import pytest

from operations.plan import selinux
from operations.plan.difference import difference
from operations.plan.release import plan_release
from tests.unit.builders import FILE_DIGESTS, converged, gpu, profile, settings

CONTEXT = "system_u:object_r:container_file_t:s0"
GOOD = {"enforce": "1", "rule": CONTEXT, "label": CONTEXT, "boolean:container_use_devices": "1"}
WANTED = plan_release(settings(), [gpu()], "9", profile(), selinux=True)


def rows(found: dict[str, str]) -> list[tuple[str, str, str]]:
    observed = replace(converged(WANTED), selinux=found)
    return [(row.what, row.found, row.wanted) for row in difference(WANTED, observed, FILE_DIGESTS)]


def test_a_host_that_has_it_all_has_no_difference() -> None:
    assert rows(GOOD) == []
    # permissive is somebody's choice, and left
    assert rows({**GOOD, "enforce": "0"}) == []


def test_what_is_missing_is_said() -> None:
    assert rows({**GOOD, "boolean:container_use_devices": "0"}) == [("container_use_devices", "off", "on")]
    other = "unconfined_u:object_r:var_lib_t:s0"
    assert rows({**GOOD, "rule": other}) == [("rule for /var/lib/tritonhost", other, "container_file_t")]
    assert rows({**GOOD, "label": other}) == [("label of /var/lib/tritonhost", other, "container_file_t")]


def test_what_could_not_be_asked_is_no_difference() -> None:
    assert rows({"enforce": "1"}) == []


def test_the_newer_boolean_is_preferred_and_the_wider_one_left_off() -> None:
    both = {"boolean:container_use_xserver_devices": "0", "boolean:container_use_devices": "0"}
    assert selinux.missing_booleans(settings(), both) == ["container_use_xserver_devices"]
    assert selinux.missing_booleans(settings(), {}) == []


def test_a_front_may_use_its_ports() -> None:
    found = {"boolean:haproxy_connect_any": "0"}
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


def test_the_inventory_s_own_word_on_docker_stands() -> None:
    own = settings(docker_daemon_settings={"selinux-enabled": False})
    assert plan_release(own, [gpu()], "9", profile(), selinux=True).docker_settings == {
        "selinux-enabled": False
    }


def test_the_rules_are_for_the_data_root_and_the_transient_units_files() -> None:
    assert selinux.patterns(settings(data_root="/mnt/nvme.0/tritonhost")) == [
        "/mnt/nvme\\.0/tritonhost(/.*)?",
        "/var/run/tritonhost(/.*)?",
    ]


@pytest.mark.parametrize("service", ["triton", "a", "another-one"])
def test_a_level_has_two_categories_in_their_order(service: str) -> None:
    sensitivity, categories = selinux.level(service).split(":")
    first, second = (int(category.removeprefix("c")) for category in categories.split(","))
    assert sensitivity == "s0"
    assert 0 <= first < second <= 1023


@pytest.mark.parametrize(
    ("context", "type"),
    [(CONTEXT, "container_file_t"), ("system_u:object_r:etc_t:s0:c1,c2", "etc_t"), ("?", ""), ("", "")],
)
def test_a_context_has_a_type(context: str, type: str) -> None:
    assert selinux.type_of(context) == type
