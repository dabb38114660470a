"""The status of a host: which state it is in, its row of the table, and the document for programs."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator  # type: ignore[import-untyped]

from operations.plan import status
from operations.plan.columns import cells
from operations.plan.difference import difference
from operations.plan.difference_rows import Difference
from operations.plan.inventory import door_settings
from operations.plan.observed.observed import Container, Observed, StoredArtifact
from operations.plan.status import HostStatus, State
from tests.unit import builders

PROJECT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((PROJECT / "files/schema/status.json").read_text("utf-8"))
RELEASE = builders.release()
URLS = list(RELEASE.ready_urls.values())
CONVERGED = builders.converged(RELEASE)
OLD = "9e41c7d0a2b85f36"
NOT_READY = {**dict.fromkeys(URLS, "200"), URLS[0]: "400"}
SILENT = dict.fromkeys(URLS, "000")
ROW = Difference("service", "container", "absent", "running")


def of(observed: Observed, name: str = "gpu-1", **changed: Any) -> HostStatus:
    rows = difference(RELEASE, observed, builders.FILES)
    given = {"release": RELEASE, "rows": rows, **changed}
    return status.of_host(name, RELEASE.settings, observed, URLS, given.pop("release"), **given)


def with_unit(observed: Observed, **properties: str) -> Observed:
    units = {**observed.units, "triton.service": {**builders.UNIT, **properties}}
    return replace(observed, units=units)


def stopped(observed: Observed) -> Observed:
    assert observed.container is not None
    return replace(observed, container=replace(observed.container, running=False), ready=SILENT)


def serving_another(observed: Observed, model: str, ready: dict[str, str]) -> Observed:
    """Another release runs. + model: what it serves"""
    assert observed.container is not None
    labels = {**observed.container.labels, "tritonhost.release": OLD}
    artifacts = {**observed.artifacts, ("release", OLD): StoredArtifact("release", OLD, {"model": model})}
    container = replace(observed.container, labels=labels)
    return replace(observed, container=container, artifacts=artifacts, current=OLD, ready=ready)


STARTING = {"ActiveState": "activating", "SubState": "start-post"}
LOOPING = {"ActiveState": "activating", "SubState": "auto-restart"}
FAILED = {"ActiveState": "failed"}


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        (CONVERGED, "serving"),
        (replace(CONVERGED, daemon_json=""), "differs"),
        (serving_another(CONVERGED, "smollm2-135m", dict.fromkeys(URLS, "200")), "differs"),
        # of another release the URLs may say nothing: other models, other ports
        (serving_another(CONVERGED, "another-model", NOT_READY), "differs"),
        (serving_another(CONVERGED, "smollm2-135m", SILENT), "differs"),
        (serving_another(CONVERGED, "smollm2-135m", NOT_READY), "down"),
        (replace(CONVERGED, ready=NOT_READY), "down"),
        (replace(CONVERGED, ready=SILENT), "down"),
        (with_unit(replace(CONVERGED, ready=SILENT), **STARTING), "starting"),
        (with_unit(stopped(CONVERGED), **STARTING), "starting"),
        (with_unit(stopped(CONVERGED), **LOOPING), "down"),
        (with_unit(stopped(CONVERGED), **FAILED), "down"),
        (with_unit(replace(CONVERGED, container=None, ready=SILENT), **FAILED), "down"),
        (Observed(gpus=CONVERGED.gpus), "not deployed"),
        (Observed(current=OLD), "down"),
    ],
)
def test_state_is_decided_by_what_runs(observed: Observed, expected: State) -> None:
    assert of(observed).state == expected


def with_door(**unit: str) -> HostStatus:
    """Of a host that has all that its inventory says, with a door whose unit has these properties."""
    digests = {**builders.DATA["image_digests"], door_settings.IMAGE: builders.DIGEST}
    wanted = builders.release({"door": {}, "image_digests": digests})
    assert wanted.door
    observed = builders.converged(wanted)
    units = {**observed.units, "triton-door.service": {**builders.UNIT, **unit}}
    images = {**observed.images, wanted.door.image.tag: builders.IMAGE_ID}
    records = {**observed.image_records, wanted.door.image.key: builders.IMAGE_ID}
    observed = replace(observed, units=units, images=images, image_records=records, door=wanted.door.key)
    return of(observed, release=wanted, rows=difference(wanted, observed, builders.FILES))


def test_door_that_is_down_is_a_difference() -> None:
    assert with_door().state == "serving"
    # clients of the server itself get answers
    for state in ("failed", "inactive"):
        found = with_door(ActiveState=state)
        assert found.state == "differs"
        assert [(row.stage, row.what) for row in found.differences or ()] == [("door", "triton-door.service")]


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        (CONVERGED, "differs"),  # it answers, and nobody can say whether it is what it should be
        (replace(CONVERGED, ready=SILENT), "down"),
        (serving_another(CONVERGED, "another-model", SILENT), "differs"),
    ],
)
def test_host_without_a_plan_never_serves_what_it_should(observed: Observed, expected: State) -> None:
    found = of(observed, release=None, rows=None, problem="GPUs: found none, expected one")
    assert (found.state, found.differences, found.problem) == (
        expected,
        None,
        "GPUs: found none, expected one",
    )


def test_row_has_release_verdict_and_time() -> None:
    found = of(CONVERGED)
    assert found.release.running == found.release.current == found.release.wanted == RELEASE.id
    assert found.since == "2026-11-21T04:00:00Z"
    assert found.verdict and (found.verdict.outcome, found.verdict.at) == ("proven", "2026-11-21T04:00:10Z")
    assert found.differences == []
    assert [gpu.name for gpu in found.gpus] == ["NVIDIA A10"]


def test_server_that_does_not_run_has_no_since() -> None:
    assert of(stopped(CONVERGED)).since == ""


def test_release_that_failed_is_named() -> None:
    verdicts = {
        **CONVERGED.verdicts,
        RELEASE.id: builders.verdict("failed 2026-11-21T08:00:00Z wrong answer"),
    }
    old = serving_another(CONVERGED, "smollm2-135m", dict.fromkeys(URLS, "200"))
    found = of(replace(old, verdicts={**verdicts, OLD: builders.verdict("proven then")}))
    assert (found.state, found.verdict and found.verdict.outcome) == ("differs", "proven")
    assert found.problem == f"release {RELEASE.id}, which the inventory says: failed"


@pytest.mark.parametrize("at", ["", "then", "2026-99-99T00:00:00Z"])
def test_time_that_is_none_is_left_out(at: str) -> None:
    container = Container("f", True, at, "", {})
    assert of(replace(CONVERGED, container=container)).since == ""


# --- the table


def fleet(last: str = "図書館") -> list[HostStatus]:
    """One of each state, and two services of one host. + last: the name of the last host"""
    old = serving_another(CONVERGED, "smollm2-135m", dict.fromkeys(URLS, "200"))
    busy = replace(
        old,
        verdicts={OLD: builders.verdict("proven 2026-11-20T09:12:44Z")},
        detached_units=("tritonhost-engine-4f2a9c31.service",),
    )
    ends = datetime(2027, 1, 31, 12, tzinfo=UTC)
    eight = replace(RELEASE, gpus=tuple(builders.gpu(n, name="NVIDIA H200") for n in range(8)))
    return [
        of(CONVERGED, "gpu-1/llama", certificate_ends=ends),
        of(stopped(CONVERGED), "gpu-1/gpt"),
        of(busy, "gpu-2"),
        of(with_unit(stopped(CONVERGED), **STARTING), "gpu-3", release=eight, rows=[ROW]),
        of(Observed(gpus=CONVERGED.gpus), "gpu-4", rows=[ROW] * 34),
        status.unreachable(last, "smollm2-135m", "no route\nto host", 10),
    ]


GOLDEN = """\
host         state         release           model         since (UTC)       verdict  differs  GPUs      certificate  remark
gpu-1/llama  serving       ID  smollm2-135m  2026-11-21 04:00  proven   0        1 x A10   2027-01-31
gpu-1/gpt    down          ID  smollm2-135m  -                 proven   1        1 x A10
gpu-2        differs       9e41c7d0a2b85f36  smollm2-135m  2026-11-21 04:00  proven   2        1 x A10                engine-4f2a9c31
gpu-3        starting      ID  smollm2-135m  -                 proven   1        8 x H200
gpu-4        not deployed  -                 smollm2-135m  -                 -        34       1 x A10
図書館       unreachable   -                 smollm2-135m  -                 -        ?        -                      no route to host
6 services on 5 hosts: 1 serving, 1 starting, 1 differs, 1 down, 1 not deployed, 1 unreachable"""


def test_table_is_the_golden_one() -> None:
    assert status.lines(fleet()) == GOLDEN.replace("ID", RELEASE.id).splitlines()


def test_page_shows_what_the_tool_prints() -> None:
    page = (PROJECT / "docs/how-to/status.md").read_text("utf-8")
    hosts = fleet("gpu-5")
    # another id, which does not change with the code
    page = page.replace("c0a8e1d2f4b69357", RELEASE.id)
    table = "".join(f"    {line}\n" for line in status.lines(hosts))
    assert table in page, table
    shown = json.dumps(document(hosts)["hosts"][2], indent=2)
    assert f"```json\n{shown}\n```" in page, shown


@pytest.mark.parametrize("total", [20, 40, 60, 80, 100, 132])
def test_table_is_one_line_a_host_at_every_width(total: int) -> None:
    lines = status.lines(fleet(), total)
    assert len(lines) == 1 + 6 + 1
    assert all(cells(line) <= total for line in lines[:-1])
    assert [line.split()[0] for line in lines[1:3]] == ["gpu-1/llama", "gpu-1/gpt"]


def test_summary_counts_hosts_without_services_simply() -> None:
    hosts = [of(CONVERGED, f"gpu-{n}") for n in range(3)]
    assert status.summary(hosts) == "3 hosts: 3 serving"
    assert status.summary(hosts[:1]) == "1 host: 1 serving"


def test_terminal_gets_no_control_character() -> None:
    evil = replace(CONVERGED, detached_units=("tritonhost-\x1b[2J\x07x.service",))
    text = "\n".join(status.lines([of(evil)])).replace("\n", "")
    assert text.isprintable()


# --- the document


def document(hosts: list[HostStatus]) -> dict[str, Any]:
    at = datetime(2026, 11, 21, 4, 30, tzinfo=UTC)
    found: dict[str, Any] = json.loads(status.document(hosts, "inventories/oci.py", at).model_dump_json())
    return found


def test_document_fits_its_schema() -> None:
    found = document(fleet())
    assert list(Draft7Validator(SCHEMA).iter_errors(found)) == []
    assert (found["version"], found["at"]) == (status.VERSION, "2026-11-21T04:30:00Z")
    assert found["states"] == dict.fromkeys(status.STATES, 1)
    assert [host["name"] for host in found["hosts"]][:2] == ["gpu-1/llama", "gpu-1/gpt"]
    assert [(host["host"], host["service"]) for host in found["hosts"]][:3] == [
        ("gpu-1", "llama"),
        ("gpu-1", "gpt"),
        ("gpu-2", ""),
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"hosts": [{"name": "gpu-1"}]},
        {"states": {"lost": 1}},
        {"extra": 1},
    ],
)
def test_schema_refuses_another_document(change: dict[str, Any]) -> None:
    assert list(Draft7Validator(SCHEMA).iter_errors({**document(fleet()), **change}))


def test_document_has_no_secret_of_a_host_s_own_files() -> None:
    proxies = "{'httpProxy': 'http://user:CANARY@proxy:3128'}"
    row = Difference("container runtime", "proxies in daemon.json", proxies, "{'registry-token': 'CANARY'}")
    found = of(CONVERGED, rows=[row], problem="hub: Authorization: Bearer CANARY")
    said = json.dumps(document([found])) + "\n".join(status.lines([found]))
    assert "CANARY" not in said
    assert "proxies in daemon.json" in said


# --- the exit code


def test_exit_code_is_0_only_where_all_serve() -> None:
    serving, *others = fleet()
    assert status.exit_code([serving, serving]) == 0
    assert [status.exit_code([serving, other]) for other in others] == [1] * 5
