"""`tritonhost report` against hosts that only answer: what is sent to them, what is on the page, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from operations.plan.inventory.gateway_settings import IMAGE
from tests.command_line import PROJECT, run
from tests.deploy.test_deploy import BARE, PROBE, A, Answers, B, converged_host, variables
from tests.deploy.test_status import LOST
from tests.unit.builders import DATA, DIGEST
from tests.unit.certificates import API_KEY, gateway_files, pair
from tests.unit.test_replay_page import Page
from tests.unit.versions_output import output

VERSIONS = "MODULE="
SECURE: Answers = [(VERSIONS, True, output())]
OLD: Answers = [(VERSIONS, True, output(driver=["580.159.03"]))]
RUN = {
    "began": "2026-11-21T03:40:00+00:00",
    "ended": "2026-11-21T04:02:07+00:00",
    "hosts": [
        {
            "host": A,
            "release": "c0a8e1d2f4b69357",
            "status": "deployed <b>",
            "failed": False,
            "differences": [
                {"stage": "container runtime", "what": "proxies", "found": "http://user:CANARY@proxy:3128", "wanted": "-"}
            ],
            "later": 1,
        }
    ],
}  # fmt: skip


class Reported:
    """One run of the command, its page, and what reached each host."""

    def __init__(
        self,
        tmp_path: Path,
        hosts: dict[str, Answers],
        *arguments: str,
        own: dict[str, dict[str, Any]] | None = None,
        **environment: str,
    ) -> None:
        log, scenario = tmp_path / "commands", tmp_path / "scenario.json"
        log.unlink(missing_ok=True)
        self.path = tmp_path / "made" / "report.html"
        data = {"_sudo": True, **DATA}
        scenario.write_text(
            json.dumps({"log": str(log), "data": data, "hosts": hosts, "own": own or {}}), encoding="utf-8"
        )
        words = ["operations.report", "tests/deploy/fake_inventory.py", "--output", str(self.path)]
        done = run(
            [sys.executable, "-m", *words, *arguments],
            PROJECT,
            variables(SCENARIO=str(scenario), **environment),
        )
        self.code, self.stdout, self.stderr = done.returncode, done.stdout, done.stderr
        assert "Traceback" not in self.stderr, self.stderr
        self.html = self.path.read_text("utf-8") if self.path.exists() else ""
        lines = log.read_text("utf-8").splitlines() if log.exists() else []
        self.commands: list[tuple[str, str]] = [(name, command) for name, command in map(json.loads, lines)]

    @property
    def text(self) -> str:
        found = Page(self.html)
        assert (found.open, found.wrong) == ([], [])
        return " ".join(text for _, text in found.text)


def test_page_of_a_host_that_serves_is_exit_code_0(tmp_path: Path) -> None:
    found = Reported(tmp_path, {A: converged_host()})
    assert (found.code, found.stderr) == (0, "")
    assert found.stdout == f"1 host: 1 serving\nwritten: {found.path}\n"
    assert "tests/deploy/fake_inventory.py, 20" in found.text
    for said in (A, "serving", "smollm2-135m", "proven", "NVIDIA A10, 23028 MiB", "TensorRT-LLM 0.13.0"):
        assert said in found.text, said
    # a page to be sent, which every reader of the directory may read
    assert stat.S_IMODE(found.path.stat().st_mode) == 0o666 & ~_umask()
    assert [path.name for path in found.path.parent.iterdir()] == ["report.html"]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(
    ("answers", "state"),
    [(BARE, "not deployed"), (converged_host("another"), "differs"), (LOST, "unreachable")],
)
def test_every_other_state_is_on_the_page_and_code_1(tmp_path: Path, answers: Answers, state: str) -> None:
    found = Reported(tmp_path, {A: converged_host(), B: answers})
    assert (found.code, found.stderr) == (1, "")
    assert f"2 hosts: 1 serving, 1 {state}." in found.text
    assert found.text.count(B) >= 2
    if state == "unreachable":
        assert "not read to the end: sudo: CANARY is broken" in found.text


def test_report_reads_each_host_once(tmp_path: Path) -> None:
    found = Reported(tmp_path, {A: converged_host(), B: BARE})
    assert [(name, PROBE in command) for name, command in sorted(found.commands)] == [(A, True), (B, True)]


def test_page_of_some_hosts_names_them_in_its_title(tmp_path: Path) -> None:
    found = Reported(tmp_path, {A: converged_host(), B: LOST}, "--limit", A)
    assert found.code == 0 and {name for name, _ in found.commands} == {A}
    assert f"tests/deploy/fake_inventory.py ({A}), 20" in found.text and B not in found.text


def test_exposure_is_read_over_the_same_connection(tmp_path: Path) -> None:
    found = Reported(tmp_path, {A: [*converged_host(), *SECURE], B: [*converged_host(), *OLD]}, "--exposure")
    assert found.code == 1  # all serve
    assert "Exposed: " in found.text and "580.159.03" in found.text
    assert [name for name, _ in sorted(found.commands)] == [A, A, B, B]
    good = Reported(tmp_path, {A: [*converged_host(), *SECURE]}, "--exposure")
    assert good.code == 0, good.text
    assert "Nothing that was compared is exposed." in good.text


def test_host_whose_versions_are_not_read_is_named(tmp_path: Path) -> None:
    cut: Answers = [(VERSIONS, True, output()[:3])]
    found = Reported(tmp_path, {A: [*converged_host(), *cut], B: LOST}, "--exposure")
    assert found.code == 1
    assert found.text.count("not read: ") == 2 and "the output ends early" in found.text


@pytest.mark.slow
def test_exposure_of_saved_facts_asks_no_host_for_it(tmp_path: Path) -> None:
    saved = tmp_path / "facts.json"
    scenario = tmp_path / "scenario.json"
    told = {"log": str(tmp_path / "log"), "data": {"_sudo": True, **DATA}, "hosts": {A: OLD}}
    scenario.write_text(json.dumps(told), encoding="utf-8")
    words = ["operations.exposure", "--inventory", "tests/deploy/fake_inventory.py", "--save", str(saved)]
    run([sys.executable, "-m", *words], PROJECT, variables(SCENARIO=str(scenario)))
    found = Reported(tmp_path, {A: converged_host(), B: converged_host()}, "--facts", str(saved))
    assert [name for name, _ in sorted(found.commands)] == [A, B]
    assert found.code == 1 and "580.159.03" in found.text
    # a host that the inventory has since then is not called secure
    assert f"{B} : not read:  the saved facts do not have it" in found.text


def test_run_is_on_the_page_without_a_secret(tmp_path: Path) -> None:
    report = tmp_path / "run.json"
    report.write_text(json.dumps(RUN), encoding="utf-8")
    found = Reported(tmp_path, {A: converged_host()}, "--run", str(report))
    assert found.code == 0
    assert "2026-11-21 03:40 to 2026-11-21 04:02 UTC, 22:07 minutes: 1 host, 0 failed." in found.text
    assert "deployed <b>" in found.text and "<b>" not in found.html
    assert "proxies" in found.text and "CANARY" not in found.html


def test_gateway_s_secrets_are_not_on_the_page(tmp_path: Path) -> None:
    made = pair(addresses=["10.0.0.11"], ends=datetime(2099, 1, 31, tzinfo=UTC))
    gateway = {
        "gateway": gateway_files(tmp_path, made),
        "image_digests": {**DATA["image_digests"], IMAGE: DIGEST},
    }
    found = Reported(tmp_path, {A: BARE}, own={A: gateway})
    assert "ends 2099-01-31 00:00 UTC" in found.text
    assert API_KEY not in found.html and "PRIVATE KEY" not in found.html


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--limit", "gpu-9"], "--limit gpu-9: found no hosts selected, expected a host"),
        (["--nothing"], "unrecognized arguments: --nothing"),
        (["--run", "none.json"], "none.json"),
        (["--run", "README.md"], "README.md"),
        (["--run", "files/schema/status.json"], "files/schema/status.json: began: found "),
        (["--facts", "none.json"], "none.json"),
        (["--facts", "a", "--exposure"], "--facts: found it beside --exposure, expected one of the two"),
        (["--feed", "a"], "--feed: found it without --exposure or --facts"),
        (["--output", "docs"], "--output: found a directory: docs, expected a file"),
        (["--output", "README.md/report.html"], "--output: found "),
    ],
)
def test_wrong_usage_reads_no_host(tmp_path: Path, arguments: list[str], expected: str) -> None:
    found = Reported(tmp_path, {A: converged_host()}, *arguments)
    assert (found.code, found.stdout, found.commands, found.html) == (2, "", [], "")
    assert expected in found.stderr


def test_output_has_to_be_named() -> None:
    done = run([sys.executable, "-m", "operations.report"], PROJECT, variables())
    assert done.returncode == 2 and "--output" in done.stderr


def test_older_page_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "report.html").write_text("old", encoding="utf-8")
    assert Reported(tmp_path, {A: converged_host()}).html.startswith("<!doctype html>")


@pytest.mark.slow
def test_report_of_200_hosts_is_one_small_page(tmp_path: Path) -> None:
    kinds = (converged_host(), converged_host("another"), BARE, LOST)
    hosts = {f"@fake/gpu-{n:03}": kinds[n % 4] if n < 8 else kinds[0] for n in range(200)}
    began = time.monotonic()
    found = Reported(tmp_path, hosts, PYINFRA_FAKE_DELAY="0.5")
    assert time.monotonic() - began < 20
    assert "200 hosts: 194 serving, 2 differs, 2 not deployed, 2 unreachable." in found.text
    assert len(found.html.encode()) < 2_000_000
    assert all(name in found.html for name in hosts)


@pytest.mark.slow
def test_interrupt_writes_no_page(tmp_path: Path) -> None:
    scenario, page = tmp_path / "scenario.json", tmp_path / "report.html"
    told = {"log": str(tmp_path / "log"), "data": {"_sudo": True, **DATA}, "hosts": {A: converged_host()}}
    scenario.write_text(json.dumps(told), encoding="utf-8")
    words = ["operations.report", "tests/deploy/fake_inventory.py", "--output", str(page)]
    environment = variables(SCENARIO=str(scenario), PYINFRA_FAKE_DELAY="20")
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=PROJECT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(2.5)  # the answer takes 20 s
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=15)
    assert (process.returncode, out) == (130, "")
    assert err == "tritonhost: interrupted; no page was written\n"
    assert not page.exists()
