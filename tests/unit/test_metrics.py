"""files/host/metrics.sh, run over made-up data roots: its output is valid for Prometheus, and says what is on the disk."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from operations.golden_answers import HELD_BACK
from operations.scripts import host_script
from tests.unit.certificates import NOW, pair
from tests.unit.stubs import Stubs

RELEASE = "0123456789abcdef"


class DataRoot:
    """A data root, and the script over it."""

    def __init__(self, folder: Path, stubs: Stubs) -> None:
        self.folder, self.stubs = folder, stubs
        self.output = folder / "textfile" / "tritonhost-triton.prom"
        self.variables = {
            "DATA_ROOT": str(folder),
            "STATE_ROOT": str(folder),
            "SERVICE": "triton",
            "ALONE": "yes",
            "GPUS": "2",
            "URLS": "",
            "CERTIFICATE": "",
            "EXPECTED": str(folder / "monitoring/expected"),
            "RUN": str(folder / "monitoring/run"),
            "OUTPUT": str(self.output),
        }
        stubs.add("systemctl", "exit 1")
        stubs.add("curl", "exit 7")

    def put(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def serve(self, model: str = '"llama"', service: str = "triton", name: str = RELEASE) -> None:
        text = f'{{\n  "artifacts": {{\n    "model": "no"\n  }},\n  "model": {model},\n  "service": "{service}"\n}}\n'
        self.put(f"releases/{name}/release.json", text)
        if name == RELEASE:
            (self.folder / "current").symlink_to(f"releases/{name}")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = " ".join(words)
        return self.stubs.run(f"set -- {argv}\n{host_script('metrics.sh', self.variables)}")

    def metrics(self) -> dict[str, str]:
        done = self.run("print")
        assert (done.returncode, done.stderr) == (0, "")
        check(done.stdout)
        lines = [line for line in done.stdout.splitlines() if not line.startswith("#")]
        return {name: value for name, _, value in (line.rpartition(" ") for line in lines)}


def check(text: str) -> None:
    """Raises AssertionError for what Prometheus cannot read, or finds odd."""
    assert shutil.which("promtool"), "install prometheus: tests/lab/lab packages --check --install"
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), text


@pytest.fixture
def root(tmp_path: Path, stubs: Stubs) -> DataRoot:
    return DataRoot(tmp_path / "data", stubs)


def test_check_of_metrics_finds_what_is_not_valid() -> None:
    for wrong in ('a{b="c} 1\n', "# HELP a_seconds x\n# TYPE a_seconds gauge\na_seconds one\n", "9a 1\n"):
        with pytest.raises(AssertionError):
            check(wrong)


def test_empty_data_root_has_valid_metrics(root: DataRoot) -> None:
    assert root.metrics() == {
        'tritonhost_gpus{service="triton"}': "2",
        'tritonhost_files_changed{service="triton"}': "0",
    }


def test_proven_release_is_described(root: DataRoot) -> None:
    root.serve()
    (root.folder / "previous").symlink_to("releases/fedcba9876543210")
    root.put(f"verdicts/{RELEASE}", "proven 2026-11-21T04:00:10Z \n")
    root.put(f"measurements/{RELEASE}", "load_s=12.500 answer_s=0.250 gpu_mib=4096\n")
    root.put("monitoring/run", "start=1795233600\ndifferences=4\nconverged=1795233700\n")
    root.variables["URLS"] = "ensemble\thttp://127.0.0.1:8000/v2/models/ensemble/ready"
    root.stubs.add("curl", "printf 200")
    root.stubs.add(
        "systemctl",
        'case $2 in *=ActiveState) echo ActiveState=active ;; *) echo "ActiveEnterTimestamp=Sat 2026-11-21 04:00:00 UTC" ;; esac',
    )
    found = root.metrics()
    of = f'service="triton",release="{RELEASE}"'
    assert found == {
        f'tritonhost_release_info{{service="triton",model="llama",release="{RELEASE}"}}': "1",
        'tritonhost_previous_release_info{service="triton",release="fedcba9876543210"}': "1",
        'tritonhost_service_active{service="triton"}': "1",
        'tritonhost_service_active_since_timestamp_seconds{service="triton"}': "1795233600",
        'tritonhost_gpus{service="triton"}': "2",
        'tritonhost_model_ready{service="triton",triton_model="ensemble"}': "1",
        'tritonhost_verdict_timestamp_seconds{service="triton",verdict="proven"}': "1795233610",
        f"tritonhost_release_proven_timestamp_seconds{{{of}}}": "1795233610",
        f"tritonhost_measured_load_seconds{{{of}}}": "12.500",
        f"tritonhost_measured_answer_seconds{{{of}}}": "0.250",
        f"tritonhost_measured_gpu_memory_bytes{{{of}}}": "4294967296",
        'tritonhost_run_start_timestamp_seconds{service="triton"}': "1795233600",
        'tritonhost_run_differences{service="triton"}': "4",
        'tritonhost_run_converged_timestamp_seconds{service="triton"}': "1795233700",
        'tritonhost_files_changed{service="triton"}': "0",
    }


def test_stopped_server_is_not_active_and_not_ready(root: DataRoot) -> None:
    root.variables["URLS"] = "ensemble\thttp://x\nother\thttp://y"
    root.stubs.add("systemctl", "echo ActiveState=failed")
    found = root.metrics()
    assert found['tritonhost_service_active{service="triton"}'] == "0"
    assert 'tritonhost_service_active_since_timestamp_seconds{service="triton"}' not in found
    assert found['tritonhost_model_ready{service="triton",triton_model="ensemble"}'] == "0"
    assert found['tritonhost_model_ready{service="triton",triton_model="other"}'] == "0"


def test_last_verdict_of_each_word_counts(root: DataRoot) -> None:
    root.serve()
    for number, text in enumerate(
        [
            "proven 2026-11-21T04:00:10Z \n",
            "proven 2026-11-20T04:00:10Z \n",
            "failed 2026-11-22T04:00:10Z triton.service did not start\n",
            'failed 2026-11-19T04:00:10Z golden request to ensemble: found "a" \\, expected "b"\n',
            "withdrawn 2026-11-18T04:00:10Z rolled back by hand\n",
        ]
    ):
        root.put(f"verdicts/{number}", text)
    found = root.metrics()
    stem = 'tritonhost_verdict_timestamp_seconds{service="triton",verdict='
    assert found[f'{stem}"proven"}}'] == "1795233610"
    assert found[f'{stem}"failed"}}'] == "1795320010"
    assert found[f'{stem}"withdrawn"}}'] == "1794974410"
    assert found['tritonhost_golden_drift_timestamp_seconds{service="triton"}'] == "1795060810"
    # of the running release there is no verdict
    assert not [name for name in found if name.startswith("tritonhost_release_proven")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rubbish",
        "proven\n",
        "proven yesterday \n",
        "proven 2026-99-99T99:99:99Z \n",
        "thought 2026-11-21T04:00:10Z \n",
        "\x00\xff\n",
    ],
)
def test_unknown_verdicts_are_left_out(root: DataRoot, text: str) -> None:
    root.serve()
    root.put(f"verdicts/{RELEASE}", text)
    root.put(f"verdicts/.{RELEASE}.new", "proven 2026-11-21T04:00:10Z \n")
    assert not [name for name in root.metrics() if "verdict" in name or "proven" in name]


@pytest.mark.parametrize(
    "model", ['"a\\"b"', '"a\\\\"', '"\\u00e9\\n{}"', '"a b"', '"}{,="', '"\xe9"'], ids=ascii
)
def test_odd_names_are_valid_labels(root: DataRoot, model: str) -> None:
    root.serve(model)
    root.put(f"verdicts/{RELEASE}", "proven 2026-11-21T04:00:10Z \n")
    [info] = [name for name in root.metrics() if name.startswith("tritonhost_release_info")]
    label = re.search(r'model="([^"]*)"', info)
    assert label and "\\" not in label[1] and " " not in label[1]


@pytest.mark.parametrize(
    "text", ["", "load_s", "load_s=", "load_s=nan", "load_s=1.2.3", "load_s=-1", "load_s=."]
)
def test_measurements_that_are_no_numbers_are_left_out(root: DataRoot, text: str) -> None:
    root.serve()
    root.put(f"measurements/{RELEASE}", f"{text} gpu_mib={'9' * 30} answer_s=0.5\n")
    found = [name for name in root.metrics() if name.startswith("tritonhost_measured")]
    assert found == [f'tritonhost_measured_answer_seconds{{service="triton",release="{RELEASE}"}}']


def test_verdicts_of_the_host_s_other_services_are_left_out(root: DataRoot) -> None:
    root.variables["ALONE"] = ""
    root.serve()
    root.serve(service="other", name="aaaa")
    root.put(f"verdicts/{RELEASE}", "proven 2026-11-21T04:00:10Z \n")
    root.put("verdicts/aaaa", "failed 2026-11-22T04:00:10Z why\n")
    root.put("verdicts/bbbb", "withdrawn 2026-11-22T04:00:10Z removed since\n")
    found = [name for name in root.metrics() if "_verdict_" in name]
    assert found == ['tritonhost_verdict_timestamp_seconds{service="triton",verdict="proven"}']


@pytest.mark.slow
def test_end_of_the_first_certificate_to_end_counts(root: DataRoot) -> None:
    signer = pair("root", ends=NOW + timedelta(days=20))
    own = pair(signer=signer, ends=NOW + timedelta(days=300))
    text = (own.pem + signer.pem + own.key_pem()).decode()
    name = 'tritonhost_gateway_certificate_end_timestamp_seconds{service="triton"}'
    for content, end in (
        (text, signer.certificate.not_valid_after_utc.timestamp()),
        (own.pem.decode(), own.certificate.not_valid_after_utc.timestamp()),
        ("no certificate\n", None),
    ):
        root.variables["CERTIFICATE"] = str(root.put("gateway/tls.pem", content))
        assert root.metrics().get(name) == (None if end is None else str(int(end)))
    root.variables["CERTIFICATE"] = "/nonexistent"
    assert name not in root.metrics()


def test_files_changed_since_the_last_run_are_counted(root: DataRoot) -> None:
    name = 'tritonhost_files_changed{service="triton"}'
    unit, gone = root.put("etc/triton.service", "[Unit]\n"), root.folder / "etc/gone"
    digest = hashlib.sha256(b"[Unit]\n").hexdigest()
    root.put("monitoring/expected", f"{digest}  {unit}\n")
    assert root.metrics()[name] == "0"
    unit.write_text("[Unit]\nDescription=mine\n")
    assert root.metrics()[name] == "1"
    root.put("monitoring/expected", f"{digest}  {unit}\n{digest}  {gone}\n")
    assert root.metrics()[name] == "2"
    root.serve()
    served = root.put(f"releases/{RELEASE}/serve", "x")
    root.put(f"releases/{RELEASE}/SHA256SUMS", f"{hashlib.sha256(b'x').hexdigest()}  ./serve\n")
    assert root.metrics()[name] == "2"
    served.write_text("y")
    assert root.metrics()[name] == "3"


def test_metrics_are_written_atomically_and_removed(root: DataRoot) -> None:
    root.output.parent.mkdir(parents=True)
    done = root.run("write")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    check(root.output.read_text())
    assert root.output.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in root.output.parent.iterdir()] == [root.output.name]
    assert root.run("remove").returncode == 0
    assert list(root.output.parent.iterdir()) == []
    assert root.run("remove").returncode == 0


def test_link_of_another_account_is_not_followed(root: DataRoot) -> None:
    root.output.parent.mkdir(parents=True)
    victim = root.put("victim", "precious")
    root.output.symlink_to(victim)
    # the name of the new file, as another account may guess it
    planted = f"ln -s {victim} {root.output.parent}/.{root.output.name}.$$.new; set -- write\n"
    assert root.stubs.run(planted + host_script("metrics.sh", root.variables)).returncode == 0
    assert victim.read_text() == "precious"
    assert not root.output.is_symlink()


def test_two_that_write_at_the_same_time_both_succeed(root: DataRoot) -> None:
    """The timer and a run: the file of one that was killed goes, too, but not at once."""
    root.output.parent.mkdir(parents=True)
    left = root.put(f"textfile/.{root.output.name}.1.new", "")
    os.utime(left, (0, 0))
    root.stubs.add("systemctl", "sleep 0.05")
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: root.run("write"), range(4)))
    assert [(one.returncode, one.stderr) for one in done] == [(0, "")] * 4
    assert [path.name for path in root.output.parent.iterdir()] == [root.output.name]
    # one that a killed script has just left goes with the rest
    root.put(f"textfile/.{root.output.name}.2.new", "")
    root.run("remove")
    assert list(root.output.parent.iterdir()) == []


def test_directory_that_is_missing_is_named(root: DataRoot) -> None:
    done = root.run("write")
    assert done.returncode == 1
    assert f"metrics: found no way to write {root.output}" in done.stderr


def test_run_is_noted_from_its_beginning_to_its_end(root: DataRoot) -> None:
    run = root.put("monitoring/run", "")

    def noted() -> dict[str, str]:
        return dict(line.split("=") for line in run.read_text().splitlines())

    root.run("begun", "3")
    first = noted()
    assert (first["differences"], first["converged"]) == ("3", "")
    assert 'tritonhost_run_converged_timestamp_seconds{service="triton"}' not in root.metrics()
    root.run("converged", "3")
    second = noted()
    assert second["start"] == first["start"] and int(second["converged"]) >= int(second["start"])
    root.run("begun", "5")
    third = noted()
    assert (third["differences"], third["converged"]) == ("5", second["converged"])


def test_script_knows_how_a_held_back_release_is_recorded() -> None:
    assert f"/^[^ ]+ [^ ]+ {HELD_BACK}/" in host_script("metrics.sh", {})
