"""The rules, by Prometheus' own program: each alert fires when it should, does not just below, and leads to a page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from operations.plan.monitoring import rules, yaml_text
from operations.plan.monitoring.site import RUNBOOKS
from tests.unit.alert_cases import CASES, Case

PROJECT = Path(__file__).resolve().parents[2]
BY_NAME = {alert.name: alert for alert in rules.ALERTS}
GROUPS = ["tritonhost-records", *rules.GROUPS]


def promtool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    assert shutil.which("promtool"), "install prometheus: tests/lab/lab packages --check --install"
    return subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True)


def as_test(case: Case) -> dict[str, object]:
    """One case, as promtool reads it."""
    alert = BY_NAME[case.alert]
    expected = []
    if case.labels is not None:
        annotations = {
            "summary": case.summary,
            "description": alert.description,
            "runbook_url": f"{RUNBOOKS}#{alert.anchor}",
        }
        labels = {**case.labels, "severity": alert.severity}
        expected = [{"exp_labels": labels, "exp_annotations": annotations}]
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "alert_rule_test": [
            {"eval_time": f"{case.minutes}m", "alertname": case.alert, "exp_alerts": expected}
        ],
    }


def run(tmp_path: Path, cases: tuple[Case, ...], text: str = "") -> subprocess.CompletedProcess[str]:
    """The cases against the rules, or against other ones."""
    (tmp_path / "rules.yml").write_text(text or yaml_text.document(rules.rules(RUNBOOKS)), encoding="utf-8")
    tests = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "1m",
        "group_eval_order": GROUPS,
        "tests": [as_test(case) for case in cases],
    }
    (tmp_path / "tests.yml").write_text(json.dumps(tests), encoding="utf-8")
    return promtool("test", "rules", tmp_path / "tests.yml")


@pytest.mark.slow
def test_alerts_fire_when_they_should_and_not_below(tmp_path: Path) -> None:
    done = run(tmp_path, CASES)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_rule_that_never_or_always_fires_is_noticed(tmp_path: Path, name: str) -> None:
    own = [case for case in CASES if case.alert == name]
    firing, silent = own[0], next(case for case in own if case.labels is None)
    text, alert = yaml_text.document(rules.rules(RUNBOOKS)), BY_NAME[name]
    for expression, lasts, case in (("vector(1) > 2", alert.lasts, firing), ("vector(1)", "0m", silent)):
        was, now = (
            indented(yaml_text.document(one.rule(RUNBOOKS), ""))
            for one in (alert, replace(alert, expression=expression, lasts=lasts))
        )
        assert was in text
        assert run(tmp_path, (case,), text.replace(was, now)).returncode == 1, expression


def indented(rule: str) -> str:
    """A rule as it stands in the file."""
    return f"      - {rule.rstrip()}".replace("\n", "\n        ")


def test_each_alert_is_tested_firing_and_not_firing() -> None:
    firing = Counter(case.alert for case in CASES if case.labels is not None)
    silent = Counter(case.alert for case in CASES if case.labels is None)
    assert set(firing) == set(silent) == set(BY_NAME)
    assert len(BY_NAME) == len(rules.ALERTS)


def test_rules_are_valid_for_prometheus(tmp_path: Path) -> None:
    path = tmp_path / "rules.yml"
    path.write_text(yaml_text.document(rules.rules(RUNBOOKS)), encoding="utf-8")
    done = promtool("check", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules.ALERTS) + len(rules.RECORDS)} rules found" in done.stdout
    path.write_text(path.read_text().replace("sum by", "sum bye", 1), encoding="utf-8")
    assert promtool("check", "rules", path).returncode == 1


def headings(page: str) -> list[str]:
    return re.findall(r"^## (.+)$", (PROJECT / page).read_text(encoding="utf-8"), re.MULTILINE)


def test_each_alert_has_its_heading_with_what_to_do() -> None:
    found = [heading for heading in headings(RUNBOOKS) if heading.startswith("Tritonhost")]
    assert found == [alert.name for alert in rules.ALERTS]
    # as GitHub and the site make an anchor of a heading
    assert [alert.anchor for alert in rules.ALERTS] == [name.lower() for name in found]
    sections = re.split(r"^## ", (PROJECT / RUNBOOKS).read_text(encoding="utf-8"), flags=re.MULTILINE)
    for section in sections:
        assert not section.startswith("Tritonhost") or len(section.split("\n\n", 1)[1].strip()) > 60, section


def test_each_alert_says_what_people_need() -> None:
    for alert in rules.ALERTS:
        assert "{{ $labels.host }}" in alert.summary, alert.name
        assert "{{" not in alert.description and alert.description.endswith("."), alert.name
        assert re.fullmatch(r"[0-9]+[mh]", alert.lasts), alert.name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": "yes", "b": 1, "c": []}, 'a: "yes"\nb: 1\nc: []\n'),
        ({"a": [{"b": ["x"], "c": {"d": "1.0"}}]}, 'a:\n  - b:\n      - "x"\n    c:\n      d: "1.0"\n'),
        ({"a b": 'q"\\'}, '"a b": "q\\"\\\\"\n'),
    ],
)
def test_yaml_is_written_with_quoted_texts(value: dict[str, object], text: str) -> None:
    assert yaml_text.document(value, "") == text
