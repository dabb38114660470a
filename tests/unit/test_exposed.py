"""Versions against bulletins and floors: what is affected, what a waiver accepts, and what closes it."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from operations.plan.audit.bulletins import Feed, made_of
from operations.plan.audit.exposed import ADVISED, EXPOSED, WAIVED, Audit, audit, by_version
from operations.plan.audit.exposed_page import as_json, page
from operations.plan.audit.fleet import Entry, Fleet, Found, Wanted, of_packages, of_release
from operations.plan.audit.pins import DEPLOY, RESTART, Pins, Proposal, proposals
from tests.unit.builders import release
from tests.unit.csaf_documents import document, driver, triton

TODAY = date(2026, 11, 30)
DOCUMENTS = [
    triton("5865", "2026-08-18", "0.0-26.05", "26.06", 9.8),
    triton("5875", "2026-09-08", "0.0-26.06", "26.07", 7.5),
    driver("5821", "2026-05-21", ["535.309.01", "580.159.03", "595.71.05"], 8.8),
    driver("5861", "2026-09-30", ["580.178.04", "595.91.07", "610.57.04", "615.71.09"], 7.8),
    document("5840", "2026-07-14", {"CVE-2026-24233": (8.4, [("All", "TensorRT-LLM", "0.0 to v1.3.0 rc16", "v1.3.0 rc17")])}),
    document("5850", "2026-06-30", {"CVE-2026-24260": (8.5, [("Linux", "NVIDIA Container Toolkit", "All versions up to and including 1.19.0", "1.19.1")])}),
    document("5900", "2026-11-20", {"CVE-2026-1": (None, [("Linux", "NVIDIA Container Toolkit", "All versions prior to 1.21.0", "1.21.0")])}),
]  # fmt: skip
FEED = made_of([(str(n), made) for n, made in enumerate(DOCUMENTS)], date(2026, 11, 25), "a test")
NONE = made_of([], date(2026, 11, 25), "nothing")
PINS: Pins = {
    "docker_packages": {"docker-ce": "3:29.9.0-1.el{os_major}", "containerd.io": "2.2.6-1.el{os_major}"},
    "nvidia_container_toolkit_packages": {"nvidia-container-toolkit": "1.20.0-1"},
}
LLAMA = {"model": "llama-2-7b", "kind": "engine", "source": "pull", "image_release": "26.05"}


def entry(host: str = "gpu-1", wanted: dict[str, Any] | None = None, **versions: str) -> Entry:
    """One service; a component by its name with _ for -, and docker's by `docker` and `running`."""
    names = {
        "docker": ("docker-ce", "rpm"),
        "running": ("docker-ce", "running"),
        "containerd": ("containerd.io", "rpm"),
    }
    components = []
    for name, version in versions.items():
        component, where = names.get(name, (name.replace("_", "-"), ""))
        components.append(Found(component=component, version=version, where=where))
    return Entry(host=host, release="1f", components=components, wanted=Wanted(**(wanted or {})))


def fleet(*entries: Entry) -> Fleet:
    return Fleet.model_validate({"format": 1, "observed": "2026-11-30T10:00:00Z", "hosts": list(entries)})


def found(*entries: Entry, feed: Feed = FEED, today: date = TODAY) -> Audit:
    return audit(fleet(*entries), feed, today)


def bulletins(result: Audit, status: str = EXPOSED) -> set[tuple[str, str]]:
    return {(one.host, one.bulletin) for one in result.findings if one.status == status}


def waiver(component: str, version: str, until: str) -> dict[str, Any]:
    return {"component": component, "version": version, "reason": "a test of waivers", "until": until}


# --- versions


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("26.04", {"NVIDIA 5865", "NVIDIA 5875"}),
        ("26.05", {"NVIDIA 5865", "NVIDIA 5875"}),
        ("26.06", {"NVIDIA 5875"}),
        ("26.07", set()),
        ("26.08", set()),
    ],
)
def test_version_is_exposed_below_the_fix_alone(version: str, expected: set[str]) -> None:
    result = found(entry(triton=version))
    assert {bulletin for _, bulletin in bulletins(result)} == expected
    assert result.exit_code == (1 if expected else 0)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("580.159.02", {"NVIDIA 5821", "NVIDIA 5861"}),
        ("580.159.03", {"NVIDIA 5861"}),
        ("580.178.03", {"NVIDIA 5861"}),
        ("580.178.04", set()),
        ("580.200.01", set()),
        # the fix of one branch is none of another, whose numbers are higher
        ("595.71.05", {"NVIDIA 5861"}),
        ("595.91.07", set()),
        ("610.57.03", {"NVIDIA 5861"}),
        ("610.57.04", set()),
        # a branch that only the newest bulletin names, and no floor
        ("615.61", {"NVIDIA 5861"}),
        ("615.71.09", set()),
        # maintained no more: not named by the last bulletin
        ("535.309.00", {"NVIDIA 5821"}),
        ("535.309.01", set()),
        ("620.10.01", set()),
    ],
)
def test_driver_is_compared_within_its_branch(version: str, expected: set[str]) -> None:
    assert {bulletin for _, bulletin in bulletins(found(entry(driver=version)))} == expected


def test_branch_without_any_fix_is_exposed_by_the_floors() -> None:
    [finding] = found(entry(driver="550.163.01")).findings
    assert (finding.status, finding.bulletin, finding.cvss) == (EXPOSED, "NVIDIA 5861", 7.8)
    assert finding.fixed == "580.178.04 or 595.91.07 or 610.57.04"


def test_branch_that_has_ended_is_said() -> None:
    result = found(entry(driver="535.309.01"))
    assert result.exit_code == 0
    [note] = result.notes
    assert note.startswith("gpu-1: driver 535.309.01 is of R535, which NVIDIA ended in 2026-06")


def test_floors_speak_where_the_feed_is_silent() -> None:
    result = found(entry(triton="26.06", nginx="1.30.6", docker="28.5.2", containerd="1.7.29"), feed=NONE)
    by_component = {one.component: one for one in result.findings if one.status == EXPOSED}
    assert {name: one.fixed for name, one in by_component.items()} == {
        "triton": "26.07",
        "nginx": "1.30.7",
        "docker-ce": "29.3.1",
        "containerd.io": "2.1.5",
    }
    assert by_component["docker-ce"].cvss == 8.8
    assert by_component["docker-ce"].cves == ("CVE-2026-34040", "CVE-2026-33997")
    assert by_component["nginx"].cvss is None


def test_floor_and_bulletin_of_one_name_are_one_finding() -> None:
    [finding] = found(entry(triton="26.06")).findings
    assert (finding.bulletin, finding.cvss, finding.fixed) == ("NVIDIA 5875", 7.5, "26.07")


def test_bulletin_that_no_floor_knows_yet_is_exposed() -> None:
    [finding] = found(entry(nvidia_container_toolkit="1.20.0")).findings
    assert (finding.status, finding.bulletin, finding.cvss) == (EXPOSED, "NVIDIA 5900", None)


def test_highest_score_of_what_the_version_has_counts() -> None:
    rows = {
        "CVE-OLD": (9.8, [("Linux", "Triton Inference Server", "All versions prior to 26.01", "26.01")]),
        "CVE-NEW": (5.0, [("Linux", "Triton Inference Server", "All versions prior to 26.09", "26.09")]),
    }
    feed = made_of([("a", document("1", "2026-10-01", rows))], TODAY, "")
    [finding] = found(entry(triton="26.07"), feed=feed).findings
    assert (finding.cvss, finding.cves, finding.fixed) == (5.0, ("CVE-NEW",), "26.09")
    [finding] = [
        one for one in found(entry(triton="25.12"), feed=feed).findings if one.bulletin == "NVIDIA 1"
    ]
    assert (finding.cvss, finding.cves, finding.fixed) == (9.8, ("CVE-OLD", "CVE-NEW"), "26.09")


def test_version_that_is_none_is_said_and_not_compared() -> None:
    result = found(entry(triton="latest", haproxy="2.8.14", pgvector="0.8.0-pg17", driver="580.178.04"))
    assert result.findings == ()
    assert result.uncompared == (
        "gpu-1: triton latest: not a version in numbers",
        "gpu-1: haproxy 2.8.14: no bulletins are read for it",
        "gpu-1: pgvector 0.8.0-pg17: no bulletins are read for it",
    )


# --- waivers, and what the floors do not require


@pytest.mark.parametrize(
    ("until", "status"), [("2026-11-29", EXPOSED), ("2026-11-30", WAIVED), ("2027-03-31", WAIVED)]
)
def test_waiver_holds_up_to_its_last_day(until: str, status: str) -> None:
    result = found(entry(triton="26.06", wanted={"waivers": [waiver("triton", "26.06", until)]}))
    [finding] = result.findings
    assert (finding.status, finding.waiver) == (status, date.fromisoformat(until))
    assert result.exit_code == (1 if status == EXPOSED else 0)


def test_waiver_of_another_version_or_component_is_none() -> None:
    waivers = [waiver("triton", "26.05", "2027-01-01"), waiver("tensorrt-llm", "26.06", "2027-01-01")]
    [finding] = found(entry(triton="26.06", wanted={"waivers": waivers})).findings
    assert (finding.status, finding.waiver) == (EXPOSED, None)


def test_bulletin_whose_floor_is_advice_is_not_exposed() -> None:
    result = found(entry(tensorrt_llm="1.2.1"))
    [finding] = result.findings
    assert (finding.status, finding.bulletin) == (ADVISED, "NVIDIA 5840")
    assert finding.note.startswith("no image holds it yet")
    assert result.exit_code == 0


def test_advice_covers_no_older_bulletin_that_is_required() -> None:
    old = document("5648", "2025-04-29", {"CVE-1": (8.8, [("Linux", "NVIDIA TensorRT-LLM", "All versions prior to 0.18.2", "0.18.2")])})  # fmt: skip
    feed = made_of([("a", old), ("b", DOCUMENTS[4])], TODAY, "")
    result = found(entry(tensorrt_llm="0.16.0"), feed=feed)
    assert bulletins(result) == {("gpu-1", "NVIDIA 5648"), ("gpu-1", "NVIDIA 5805")}
    assert bulletins(result, ADVISED) == {("gpu-1", "NVIDIA 5840")}


def test_advice_covers_an_older_bulletin_that_is_not_required() -> None:
    old = document("5836", "2026-05-19", {"CVE-1": (8.2, [("All", "TensorRT", "All versions prior to v10.16.1", "v10.16.1")])})  # fmt: skip
    result = found(entry(tensorrt="10.14.1.48"), feed=made_of([("a", old)], TODAY, ""))
    assert bulletins(result) == set()
    assert bulletins(result, ADVISED) == {("gpu-1", "NVIDIA 5836"), ("gpu-1", "NVIDIA 5855")}


# --- several services


def test_services_have_rows_of_their_own_and_the_host_s_once() -> None:
    entries = [entry("gpu-1/llama", triton="26.06", driver="580.159.03"), entry("gpu-1/gpt", triton="26.06", driver="580.159.03")]  # fmt: skip
    result = found(*entries)
    assert [(one.host, one.component) for one in result.findings] == [
        ("gpu-1", "driver"),
        ("gpu-1/gpt", "triton"),
        ("gpu-1/llama", "triton"),
    ]
    assert result.exposed == ("gpu-1",)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_shared_version_is_waived_where_all_services_waive_it(order: tuple[int, int]) -> None:
    waived = {"waivers": [waiver("driver", "580.159.03", "2027-01-01")]}
    with_one, without = entry("gpu-1/a", waived, driver="580.159.03"), entry("gpu-1/b", driver="580.159.03")
    [finding] = found(*[(with_one, without)[n] for n in order]).findings
    assert finding.status == EXPOSED
    [finding] = found(with_one, entry("gpu-1/b", waived, driver="580.159.03")).findings
    assert finding.status == WAIVED


def test_running_engine_is_compared_beside_its_package() -> None:
    exposed = [
        one for one in found(entry(docker="29.9.0", running="28.5.2")).findings if one.status == EXPOSED
    ]
    assert [(one.version, one.where) for one in exposed] == [("28.5.2", "running")]


# --- hosts that could not be read


def test_host_that_was_not_read_has_the_exit_code_2() -> None:
    lost = Entry(host="gpu-2", problem="no route to host")
    assert found(lost, entry(triton="26.07")).exit_code == 2
    assert found(lost, entry(triton="26.06")).exit_code == 1
    assert found(entry(triton="26.07")).exit_code == 0


def test_host_read_in_part_keeps_what_was_read() -> None:
    partly = entry(triton="26.06").model_copy(update={"problem": "driver: no answer"})
    result = found(partly)
    assert bulletins(result) == {("gpu-1", "NVIDIA 5875")}
    lines = page(fleet(partly), FEED, result, [], TODAY)
    assert any(line.startswith("gpu-1  read in part") for line in lines)
    assert "  gpu-1: driver: no answer" in lines


# --- the order, and the table


def test_worst_is_first_and_waived_behind_exposed() -> None:
    waived = {"waivers": [waiver("triton", "26.05", "2027-01-01")]}
    result = found(
        entry("a", driver="580.159.03", nvidia_container_toolkit="1.20.0"),
        entry("b", triton="26.05"),
        entry("c", waived, triton="26.05"),
        entry("d", tensorrt_llm="1.2.1"),
    )
    assert [(one.host, one.cvss, one.status) for one in result.findings] == [
        ("b", 9.8, EXPOSED),
        ("a", 7.8, EXPOSED),
        ("b", 7.5, EXPOSED),
        ("a", None, EXPOSED),
        ("c", 9.8, WAIVED),
        ("c", 7.5, WAIVED),
        ("d", 8.4, ADVISED),
    ]


def test_table_has_a_row_for_each_version() -> None:
    result = found(entry(triton="26.05"))
    [(worst, others, fixed)] = by_version(result.findings)
    assert (worst.bulletin, worst.cvss, others, fixed) == ("NVIDIA 5865", 9.8, 1, "26.07")
    assert rows(result, entry(triton="26.05")) == [
        ["host", "component", "version", "bulletin", "CVSS", "fixed in", "waiver"],
        ["gpu-1", "triton", "26.05", "NVIDIA 5865 and 1 more", "9.8", "26.07"],
    ]
    assert rows(result, entry(triton="26.05"), every=True)[1:] == [
        ["gpu-1", "triton", "26.05", "NVIDIA 5865", "9.8", "26.06"],
        ["gpu-1", "triton", "26.05", "NVIDIA 5875", "7.5", "26.07"],
    ]


def rows(result: Audit, *entries: Entry, every: bool = False) -> list[list[str]]:
    """The cells of the table."""
    lines = page(fleet(*entries), FEED, result, [], TODAY, "feed.json", every)
    begin = next(n for n, line in enumerate(lines) if line.startswith("host "))
    table = lines[begin : lines.index("", begin) if "" in lines[begin:] else None]
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in table]


def test_page_says_how_old_the_bulletins_are() -> None:
    lines = page(fleet(entry()), FEED, found(entry()), [], TODAY, "feed.json")
    assert lines[:3] == [
        "bulletins of 2026-11-25, 5 days old, the newest of 2026-11-20",
        "  feed.json: a test",
        "1 host of 2026-11-30T10:00+00:00: 0 exposed",
    ]
    assert lines[-1] == "nothing is exposed"
    old = page(fleet(entry()), FEED, found(entry()), [], date(2027, 1, 25), "feed.json")
    assert (
        old[0]
        == "bulletins of 2026-11-25, 61 days old, the newest of 2026-11-20; more than 60 days: make it again with --update-feed"
    )


def test_json_has_each_bulletin_and_stable_keys() -> None:
    entries = fleet(
        entry(triton="26.05", wanted={**LLAMA, "waivers": [waiver("triton", "26.05", "2027-01-01")]})
    )
    result = audit(entries, FEED, TODAY)
    answer = as_json(entries, FEED, result, proposed(entries), TODAY, "feed.json")
    assert answer.keys() == {
        *("format", "exit_code", "feed", "observed", "hosts"),
        *("findings", "proposed", "not_compared", "notes"),
    }
    assert answer["feed"].keys() == {"date", "age_days", "old", "newest", "file", "source", "unread"}
    assert answer["hosts"][0].keys() == {"host", "problem", "release", "components"}
    assert [one["bulletin"] for one in answer["findings"]] == ["NVIDIA 5865", "NVIDIA 5875"]
    assert answer["findings"][0] == {
        "host": "gpu-1",
        "component": "triton",
        "version": "26.05",
        "where": "",
        "bulletin": "NVIDIA 5865",
        "published": "2026-08-18",
        "cvss": 9.8,
        "cves": ("CVE-2026-5865",),
        "fixed": "26.06",
        "status": WAIVED,
        "waiver": "2027-01-01",
        "note": "a test of waivers",
    }
    assert answer["exit_code"] == 0


# --- what closes it


def proposed(entries: Fleet, pins: Pins = PINS) -> list[Proposal]:
    return proposals(entries, audit(entries, FEED, TODAY).findings, FEED, pins, TODAY)


def only(*entries: Entry, pins: Pins = PINS) -> Proposal:
    [one] = proposed(fleet(*entries), pins)
    return one


def test_least_release_without_a_finding_is_proposed() -> None:
    one = only(entry(wanted=LLAMA, triton="26.05", tensorrt_llm="1.2.1"))
    assert (one.key, one.value, one.place) == ("image.release", "26.07", "inventories/models/llama-2-7b.toml")
    assert (one.components, one.hosts) == (("triton",), ("gpu-1",))


def test_release_that_the_profile_has_already_is_a_deploy() -> None:
    one = only(entry(wanted={**LLAMA, "image_release": "26.07"}, triton="26.05"))
    assert (one.value, one.note, one.there) == ("26.07", DEPLOY, True)


def test_release_is_one_that_the_kind_can_use() -> None:
    search = {"model": "clip-search", "kind": "plan", "source": "pull", "image_release": "26.05"}
    later = triton("5999", "2026-11-29", "All versions prior to 26.08", "26.08")
    feed = made_of([("a", later)], TODAY, "")
    entries = fleet(entry("a", search, triton="26.05"), entry("b", LLAMA, triton="26.05"))
    found = proposals(entries, audit(entries, feed, TODAY).findings, feed, PINS, TODAY)
    assert {one.hosts: one.value for one in found} == {("a",): "26.08", ("b",): None}
    assert "no release that is known closes it" in next(one.note for one in found if one.value is None)


def test_same_change_of_several_hosts_is_said_once() -> None:
    wanted = {"model": "m", "nvidia_container_toolkit_packages": {"nvidia-container-toolkit": "1.18.0-1"}}
    one = only(
        entry("gpu-1/a", wanted, nvidia_container_toolkit="1.18.0"),
        entry("gpu-1/b", wanted, nvidia_container_toolkit="1.18.0"),
        entry("gpu-2", wanted, nvidia_container_toolkit="1.18.0"),
        pins={"nvidia_container_toolkit_packages": {"nvidia-container-toolkit": "1.21.0-1"}},
    )
    assert (one.key, one.hosts) == ("nvidia_container_toolkit_packages", ("gpu-1", "gpu-2"))
    assert one.value == {"nvidia-container-toolkit": "1.21.0-1"}


def test_shipped_pins_that_close_nothing_are_not_proposed() -> None:
    one = only(entry(nvidia_container_toolkit="1.20.0"))
    assert one.value is None
    assert "1.21.0" in one.note


def test_pins_of_the_inventory_are_a_deploy_or_a_restart() -> None:
    wanted = {"docker_packages": dict(PINS["docker_packages"])}
    one = only(entry(wanted=wanted, docker="28.5.2", containerd="1.7.29"))
    assert (one.note, one.components) == (DEPLOY, ("docker-ce", "containerd.io"))
    assert only(entry(wanted=wanted, docker="29.9.0", running="28.5.2")).note == RESTART


def test_image_of_the_gateway_is_proposed() -> None:
    one = only(entry(wanted={"gateway_image": "library/nginx:1.30.4"}, nginx="1.30.4"))
    assert (one.key, one.value) == ("gateway.image", "library/nginx:1.30.7")
    assert only(entry(wanted={"gateway_image": "library/nginx:1.30.7"}, nginx="1.30.4")).note == DEPLOY


def test_driver_is_left_to_the_operator() -> None:
    one = only(entry("gpu-1/a", driver="580.95.05"))
    assert (one.key, one.value, one.hosts) == ("", None, ("gpu-1",))
    assert "install 580.178.04 or later" in one.note


def test_waived_and_advised_need_no_change() -> None:
    waived = {**LLAMA, "waivers": [waiver("triton", "26.05", "2027-01-01")]}
    assert proposed(fleet(entry(wanted=waived, triton="26.05", tensorrt_llm="1.2.1"))) == []


def test_pins_stand_below_their_proposal() -> None:
    one = Proposal(
        ("docker-ce",),
        "docker_packages",
        dict(PINS["docker_packages"]),
        "inventories/group_data",
        ("a",),
        "n",
    )
    lines = page(fleet(entry()), FEED, found(entry()), [one], TODAY)
    at = lines.index("proposed pins:")
    assert lines[at + 1 :] == [
        "  docker-ce on a: docker_packages of inventories/group_data: n",
        "      docker-ce = 3:29.9.0-1.el{os_major}",
        "      containerd.io = 2.2.6-1.el{os_major}",
    ]


# --- release.json and rpms


def of(document: dict[str, Any]) -> dict[str, str]:
    return {one.component: one.version for one in of_release(document)}


def test_release_says_what_it_serves_with() -> None:
    document = release().document()
    assert of(document) == {"triton": "24.09", "tensorrt-llm": "0.13.0", "tensorrt": "10.4.0"}
    assert {one.where for one in of_release(document)} == {f"release {document['release']}"}


def test_built_release_has_the_triton_of_its_base() -> None:
    document = release(tables={"image": {"source": "build"}}).document()
    assert of(document)["triton"] == "24.07"
    assert of(document)["tensorrt-llm"] == "0.13.0"


@pytest.mark.parametrize(
    ("stack", "expected"),
    [
        # the row of the month's image with TensorRT-LLM, which the plain image lacks
        ({"release": "26.05", "tensorrt_llm": "1.2.1", "tensorrt": "10.14.1.48"}, {"triton": "26.05", "tensorrt": "10.14.1.48"}),
        ({"release": "26.06", "tensorrt_llm": "1.2.1", "tensorrt": "10.14.1.48"}, {"triton": "26.06"}),
        ({"release": "26.08", "tensorrt_llm": "", "tensorrt": "11.2.1"}, {"triton": "26.08", "tensorrt": "11.2.1"}),
    ],
)  # fmt: skip
def test_plain_release_has_no_tensorrt_llm(stack: dict[str, str], expected: dict[str, str]) -> None:
    images = {
        "tritonhost/serving:1": {"source": "build", "base": f"nvidia/tritonserver:{stack['release']}-py3"},
        "tritonhost/database:2": {
            "source": "pull",
            "image": "pgvector/pgvector:0.8.0-pg17",
            "digest": "sha256:0",
        },
    }
    document = {
        "release": "1f",
        "stack": {**stack, "triton_release": stack["release"]},
        "image": {"inputs": images["tritonhost/serving:1"]},
        "images": images,
    }
    assert of(document) == {**expected, "pgvector": "0.8.0-pg17"}


def test_packages_are_counted_as_their_makers_do() -> None:
    packages = {
        "docker-ce": "3:29.9.0-1.el9",
        "docker-ce-cli": "1:29.9.0-1.el9",
        "containerd.io": "0:2.2.6-1.el9",
        "nvidia-container-toolkit": "0:1.20.0-1",
        "haproxy": "0:2.8.14-1.el9",
    }
    assert [(one.component, one.version) for one in of_packages(packages)] == [
        ("docker-ce", "29.9.0"),
        ("containerd.io", "2.2.6"),
        ("nvidia-container-toolkit", "1.20.0"),
        ("haproxy", "2.8.14-1.el9"),
    ]
