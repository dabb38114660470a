"""What the page of a report is made from: what a host remembers, the forecast, a run's JSON, and what is exposed."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from operations.plan import report, status
from operations.plan.audit.bulletins import SHIPPED, load
from operations.plan.audit.exposed import audit
from operations.plan.audit.fleet import FORMAT, Entry, Fleet, Found
from operations.plan.difference import difference
from operations.plan.errors import PlanError
from operations.plan.explain import as_json
from operations.plan.observed.observed import Measurements, Observed, StoredArtifact
from operations.plan.report import HostReport, Report, load_run, of_reading
from operations.plan.swap import needed_mib
from operations.plan.units import MIB
from tests.report_example import EXPOSURE, example
from tests.report_example import status as host_status
from tests.unit import builders

RELEASE = builders.release(
    tables={
        "architecture": {
            **{"hidden_size": 576, "layers": 30, "heads": 9, "kv_heads": 3, "head_size": 64},
            **{"intermediate_size": 1536, "vocabulary": 49152, "max_positions": 2048, "tied_embeddings": True},
        }
    }
)  # fmt: skip
CONVERGED = builders.converged(RELEASE)
OLD = "9e41c7d0a2b85f36"
AT = datetime(2026, 11, 21, 4, 30, tzinfo=UTC)


def of(observed: Observed, planned: bool = True) -> HostReport:
    rows = difference(RELEASE, observed, builders.FILES)
    urls = list(RELEASE.ready_urls.values())
    release = RELEASE if planned else None
    found = status.of_host("gpu-1", RELEASE.settings, observed, urls, release, rows)
    return of_reading(found, observed, release)


def remembering(**verdicts: str) -> Observed:
    return replace(
        CONVERGED, verdicts={name: builders.verdict(text) for name, text in verdicts.items()}, previous=OLD
    )


def test_releases_have_verdicts_places_and_times() -> None:
    observed = replace(
        remembering(
            **{
                RELEASE.id: "proven 2026-11-21T04:00:10Z ",
                OLD: "withdrawn 2026-11-12T09:12:44Z an operator's rollback",
                "e7b3049a6c11d85f": "failed 2026-11-20T16:30:00Z golden answer: found Berlin",
            }
        ),
        measurements={RELEASE.id: Measurements(41.2, 0.38, 19866), "5" * 16: Measurements(load_s=3)},
        artifacts={
            **CONVERGED.artifacts,
            ("release", OLD): StoredArtifact("release", OLD, {"model": "gpt2-medium"}),
        },
    )
    found = of(observed).releases
    assert [(one.id, one.outcome, one.why) for one in found] == [
        (RELEASE.id, "proven", ""),
        ("e7b3049a6c11d85f", "failed", "golden answer: found Berlin"),
        (OLD, "withdrawn", "an operator's rollback"),
        ("5" * 16, "", ""),
    ]
    assert [one.places for one in found] == [["running", "current", "wanted"], [], ["previous"], []]
    assert [one.model for one in found] == ["", "", "gpt2-medium", ""]
    assert found[0].at == datetime(2026, 11, 21, 4, 0, 10, tzinfo=UTC)
    assert [(one.load_s, one.answer_s, one.gpu_mib) for one in found[:2]] == [
        (41.2, 0.38, 19866),
        (None, None, None),
    ]
    assert found[3].load_s == 3


def test_verdict_without_a_time_is_kept() -> None:
    [found] = of(replace(CONVERGED, verdicts={RELEASE.id: builders.verdict("proven then")})).releases
    assert (found.outcome, found.at) == ("proven", None)


def test_secret_in_a_verdict_is_taken_out() -> None:
    said = "failed 2026-11-21T04:00:10Z hub: Authorization: Bearer CANARY"
    assert "CANARY" not in of(remembering(**{RELEASE.id: said})).model_dump_json()


def test_forecast_is_that_of_explain_and_of_the_swap() -> None:
    found = of(CONVERGED).memory
    assert found and found.measured is None
    told = json.loads(as_json(RELEASE))["forecast"]
    assert found.weights == told["weights_per_rank"] // MIB
    assert found.gpu == 23028
    wanted = needed_mib(RELEASE, replace(CONVERGED, container=None), "")
    # each part is cut to whole MiB
    assert wanted and wanted - 4 <= found.forecast <= wanted


def test_measured_memory_is_the_running_release_s() -> None:
    kept = {RELEASE.id: Measurements(gpu_mib=19866), OLD: Measurements(gpu_mib=5)}
    found = of(replace(CONVERGED, measurements=kept)).memory
    assert found and (found.measured, found.measured_of) == (19866, RELEASE.id)


def test_host_without_a_plan_has_what_it_remembers() -> None:
    found = of(remembering(**{OLD: "proven 2026-11-12T09:12:44Z"}), planned=False)
    assert found.memory is None
    assert OLD in [one.id for one in found.releases]
    assert dict(found.versions)["driver"] == "580.95.05"


def test_model_without_an_architecture_has_no_forecast() -> None:
    without = builders.release()
    observed = builders.converged(without)
    found = status.of_host("a", without.settings, observed, [], without, [])
    assert of_reading(found, observed, without).memory is None


def test_versions_are_those_of_the_release_and_the_host() -> None:
    found = dict(of(CONVERGED).versions)
    assert found["image"] == "24.09" and found["TensorRT-LLM"] == "0.13.0"
    assert found["docker-ce"] == "3:28.5.2-1.el9" and found["system"] == "ol 9.6"
    assert "haproxy" not in found


# --- a run


def run_file(folder: Path, **changed: Any) -> Path:
    given = {"began": AT.isoformat(), "ended": AT.isoformat(), "hosts": [], **changed}
    path = folder / "run.json"
    path.write_text(json.dumps(given), encoding="utf-8")
    return path


HOST = {"host": "a", "release": "", "status": "no", "failed": True, "differences": None}


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"began": "yesterday"}, "began"),
        ({"ended": "2026-11-21T04:00:00"}, "ended"),
        ({"hosts": [{**HOST, "failed": "perhaps"}]}, "hosts.0.failed"),
        ({"hosts": [{"host": "a"}]}, "hosts.0.release"),
    ],
)
def test_other_file_than_a_run_s_is_refused(tmp_path: Path, changed: dict[str, Any], key: str) -> None:
    path = run_file(tmp_path, **changed)
    with pytest.raises(PlanError) as error:
        load_run(path)
    assert str(error.value).startswith(f"{path}: {key}: found ")
    assert "TRITONHOST_REPORT" in str(error.value)


def test_run_is_read_with_keys_that_are_not_known(tmp_path: Path) -> None:
    [found] = load_run(run_file(tmp_path, hosts=[{**HOST, "later": 1}], later=[])).hosts
    assert (found.host, found.failed, found.differences) == ("a", True, None)


# --- exposure and exit code


def test_rows_are_the_worst_of_each_version() -> None:
    entry = Entry(
        host="gpu-1/llama", components=[Found(component="driver", version="535.104.05", where="loaded")]
    )
    lost = Entry(host="gpu-2", problem="no route to host")
    feed = load(SHIPPED)
    observed = Fleet(format=FORMAT, observed=AT, hosts=[entry, lost])
    found = report.exposure_of(audit(observed, feed, AT.date()), feed, AT)
    assert found.exposed == ["gpu-1"] and found.unread == {"gpu-2": "no route to host"}
    [row] = found.rows
    assert (row.host, row.component, row.status) == ("gpu-1", "driver", "exposed") and row.others > 1
    assert found.of(host_status("gpu-1/llama", "serving")) == found.of(host_status("gpu-1/gpt", "serving"))
    assert found.of(host_status("gpu-2", "serving")) == []


def test_feed_that_is_old_says_so() -> None:
    feed = load(SHIPPED).model_copy(update={"collected": date(2026, 1, 1)})
    nothing = audit(Fleet(format=FORMAT, observed=AT, hosts=[]), feed, AT.date())
    assert "too old to be relied on" in report.exposure_of(nothing, feed, AT).feed


@pytest.mark.parametrize(
    ("state", "exposure", "code"),
    [
        ("serving", None, 0),
        ("down", None, 1),
        ("serving", EXPOSURE, 1),
        ("serving", EXPOSURE.model_copy(update={"rows": [], "unread": {}}), 0),
        ("serving", EXPOSURE.model_copy(update={"rows": EXPOSURE.rows[1:], "unread": {}}), 0),  # waived
        ("serving", EXPOSURE.model_copy(update={"rows": []}), 1),  # not read
    ],
)
def test_exit_code_counts_states_and_what_is_exposed(state: str, exposure: Any, code: int) -> None:
    hosts = [HostReport(status=host_status("gpu-1", state))]
    assert Report(at=AT, inventory="a", hosts=hosts, exposure=exposure).exit_code == code


def test_example_of_the_docs_has_each_state() -> None:
    assert {host.status.state for host in example().hosts} == set(status.STATES)
