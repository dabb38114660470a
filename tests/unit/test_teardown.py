"""What a teardown takes off, puts back and leaves, from what a host was found to have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from operations.plan.errors import PlanError
from operations.plan.exposure import firewall
from operations.plan.machine.version_locks import with_locks
from operations.plan.teardown import DataRoot, Survey, Teardown, survey, teardown

PLACE = ("triton", "/data")
DOCKER_REPOSITORY = "/etc/yum.repos.d/docker-ce.repo"
DAEMON = "/etc/docker/daemon.json"
REPOSITORIES = {DOCKER_REPOSITORY: "docker-ce-stable"}
RUNTIME = ("docker-ce", "docker-ce-cli", "nvidia-container-toolkit")

UNITS = [
    f"/etc/systemd/system/{name}"
    for name in (
        *("triton.service", "triton-gateway.service", "triton-door.service", "triton-front.service"),
        *("triton-guard.service", "triton-metrics.timer", "old-gateway.service", "gone.service"),
    )
]
SECTIONS: dict[str, Sequence[str]] = {
    "began": ["bare"],
    "going": [],
    "there": ["/etc/docker"],
    "places": ["old\t/data"],
    "came": ["docker-ce", "git", "gpg-pubkey-621e9f35-58adea78", "nvidia-container-toolkit"],
    "went": ["podman\tpodman-4.9.4-1.el9.x86_64"],
    "booleans": ["container_use_devices"],
    "copies": [],
    "files": [*UNITS, DOCKER_REPOSITORY],
    "active": ["triton.service", "triton-guard.service", "sshd.service"],
    "busy": [],
    "roots": ["/data\t4294967296\t\t\t"],
    "tables": ["tritonhost_triton"],
    "locks": with_locks(["vim-9.0"], {"git": "git-2.43"}),
    "docker": [
        "answers",
        "container\ttriton\ttritonhost.release=r1",
        "container\tfurther\ta=b,tritonhost.exporter=k",
        f"volume\t{'a' * 64}",
        f"own\t{'a' * 64}",
        "image\ttritonhost/serving:abc\tsha1",
        "image\tnvcr.io/nvidia/tritonserver:<none>\tsha1",
        "image\tnvcr.io/nvidia/tritonserver:25.03-py3\tsha1",
        "network\tbridge",
    ],
    "needed": [],
    "installed": ["docker-ce", "git"],
    "selinux": [],
    "end": [],
}


def found(**changes: Sequence[str]) -> Survey:
    return survey({**SECTIONS, **changes}, [PLACE])


def planned(host: Survey | None = None, documents_too: bool = False, keep_packages: bool = False) -> Teardown:
    return teardown(host or found(), RUNTIME, REPOSITORIES, (), documents_too, keep_packages)


def words(wanted: Teardown, name: str) -> list[str]:
    return wanted.variables[name].splitlines()


def rows(wanted: Teardown) -> dict[tuple[str, str], str]:
    return {(row.fate, row.what): row.detail for row in wanted.rows}


def test_all_that_came_goes_and_what_made_room_comes_back() -> None:
    wanted = planned()
    assert wanted.problem is None
    assert words(wanted, "PACKAGES") == list(SECTIONS["came"])
    assert words(wanted, "BACK") == ["podman-4.9.4-1.el9.x86_64"]
    assert wanted.variables["DOCKER"] == "goes"
    assert words(wanted, "REPOSITORIES") == [DOCKER_REPOSITORY]
    assert words(wanted, "CACHES") == ["docker-ce-stable"]
    assert "/etc/docker" not in words(wanted, "STATE")  # it was there
    assert "/var/lib/docker" in words(wanted, "STATE")
    assert wanted.variables["DAEMON"] == DAEMON
    assert words(wanted, "ROOTS") == ["/data\t\t\t"]
    assert wanted.variables["FORGET"] == "yes"
    assert wanted.locks == "# written by a teardown\nvim-9.0\n"
    assert set(words(wanted, "MARKS")) == {firewall.mark("triton"), firewall.mark("old")}
    assert words(wanted, "TABLES") == ["tritonhost_triton", "tritonhost_old"]
    assert rows(wanted)["goes", "packages"] == "2: docker-ce, git"
    assert rows(wanted)["back", "packages"] == "podman-4.9.4-1.el9.x86_64"


def test_clients_are_refused_before_the_server_stops() -> None:
    order = words(planned(), "UNITS")
    places = [order.index(f"{name}.service") for name in ("triton-gateway", "triton-door", "triton-front")]
    assert places == sorted(places)
    assert (
        order.index("triton-front.service")
        < order.index("triton.service")
        < order.index("triton-guard.service")
    )
    assert order.index("old-gateway.service") < order.index("triton.service")
    assert "triton-metrics.timer" in order
    assert order[-1] == "gone.service"  # of an earlier inventory


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("container\tregistry\ta=b", "container registry"),
        ("volume\tours", "volume ours"),
        ("image\tregistry:2\tsha2", "image registry:2"),
        (f"volume\t{'b' * 64}", f"volume {'b' * 64}"),
        # of that name, and not of this tool
        ("container\ttriton-gateway\t", "container triton-gateway"),
    ],
)
def test_docker_with_something_of_others_stays(line: str, name: str) -> None:
    wanted = planned(found(docker=[*SECTIONS["docker"], line]))
    assert wanted.variables["DOCKER"] == "stays"
    assert words(wanted, "PACKAGES") == ["git"]
    assert words(wanted, "BACK") == words(wanted, "REPOSITORIES") == words(wanted, "CACHES") == []
    assert DOCKER_REPOSITORY not in words(wanted, "FILES")
    assert wanted.variables["DAEMON"] == ""
    assert wanted.variables["FORGET"] == ""  # it may go later
    assert rows(wanted)["stays", "docker"] == f"it has {name}, not tritonhost's"


def test_docker_that_was_there_is_as_it_was() -> None:
    came = ["nvidia-container-toolkit", "gpg-pubkey-f796ecb0-58a2dd5e"]
    wanted = planned(found(came=came, copies=[DAEMON, DOCKER_REPOSITORY]))
    assert wanted.variables["DOCKER"] == "stays"
    assert words(wanted, "PACKAGES") == came
    assert words(wanted, "COPIES") == [DAEMON, DOCKER_REPOSITORY]
    assert wanted.variables["DAEMON"] == ""
    assert DOCKER_REPOSITORY not in words(wanted, "FILES")
    assert rows(wanted)["stays", "docker"] == "it was there before tritonhost"


def test_docker_without_settings_before_has_none_again() -> None:
    assert planned(found(came=["git"])).variables["DAEMON"] == DAEMON


def test_host_from_before_the_record_keeps_its_packages() -> None:
    wanted = planned(found(began=["used"], came=["git"]))
    assert words(wanted, "PACKAGES") == ["git"]
    assert wanted.variables["DAEMON"] == ""
    assert "nobody knows what was there" in rows(wanted)["stays", "docker"]


def test_packages_stay_where_that_is_asked() -> None:
    wanted = planned(keep_packages=True)
    assert words(wanted, "PACKAGES") == words(wanted, "BACK") == []
    assert rows(wanted)["stays", "docker"] == "as you asked, with its settings"
    assert "git-2.43" in wanted.locks


def test_documents_are_not_removed_unasked() -> None:
    host = found(roots=["/data\t4096\t\t/data/database\t"])
    problem = planned(host).problem
    assert isinstance(problem, PlanError)
    assert "--documents-too" in str(problem)
    assert planned(host, documents_too=True).problem is None


@pytest.mark.parametrize("busy", ["tritonhost-engine-abc.service", "ann@laptop since 2026: deploy"])
def test_host_at_work_is_left_alone(busy: str) -> None:
    problem = planned(found(busy=[busy])).problem
    assert busy in str(problem)


def test_what_others_put_into_a_data_root_stays() -> None:
    wanted = planned(found(roots=["/data\t4096\tdata.mount\t\tbackup,home"]))
    assert words(wanted, "ROOTS") == ["/data\tdata.mount\tstays\t"]
    assert rows(wanted)["stays", "data root"] == "in /data: backup, home: not tritonhost's"
    assert "/etc/systemd/system/data.mount" not in words(wanted, "FILES")


def test_bare_host_has_nothing() -> None:
    bare = found(began=[], places=[], files=[], roots=["/data\t4096\t\t\t"], tables=[], locks=[])
    assert bare.empty
    assert not found().empty
    assert not replace(bare, roots=(DataRoot("/data", 10**6, "", "", ()),)).empty


def test_half_an_answer_is_none() -> None:
    with pytest.raises(PlanError, match="all of its sections"):
        survey({key: value for key, value in SECTIONS.items() if key != "end"}, [PLACE])


@pytest.mark.parametrize("going", [[], ["docker"]])
def test_docker_that_does_not_answer_is_not_taken_for_empty(going: list[str]) -> None:
    wanted = planned(found(docker=[], going=going))
    # an interrupted teardown had looked at it, and stopped it
    assert (wanted.problem is None) is bool(going)
    if wanted.problem:
        assert "systemctl start docker" in str(wanted.problem)


@pytest.mark.parametrize("going", [[], ["disks"]])
def test_disks_that_are_not_mounted_are_not_emptied_unseen(going: list[str]) -> None:
    wanted = planned(found(roots=["/data\t4096\tabsent:data.mount\t\t"], going=going))
    assert (wanted.problem is None) is bool(going)
    if wanted.problem:
        assert "systemctl start data.mount" in str(wanted.problem)
    assert words(wanted, "ROOTS") == ["/data\tdata.mount\t\t"]


def test_monitoring_server_has_names_of_its_own() -> None:
    place = ("monitoring", "/watch")
    host = survey({**SECTIONS, "places": [], "roots": ["/watch\t4096\t\t\t"]}, [place])
    assert words(planned(host), "ROOTS") == [
        "/watch\t\t\timages config prometheus alertmanager grafana administered"
    ]


def test_teardown_that_goes_on_is_followed() -> None:
    unit = "tritonhost-teardown-566ae4993c23a6ec.service"
    assert planned(found(busy=[unit, "a teardown of this host"])).problem is None
    assert planned(found(busy=["a teardown of this host"])).problem is not None
    assert planned(found(busy=[unit, "tritonhost-engine-1.service"])).problem is not None
