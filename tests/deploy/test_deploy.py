"""deploy.py, whole, against hosts that only answer: the order of operations, what stops it, and what is left alone.

pyinfra runs as a process of its own: importing its command line would patch this one with gevent.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from operations.plan.machine.packages import install, keys, tool_packages, trust
from operations.plan.observed.observed import GuardRules
from operations.plan.planning import plan_release
from operations.remote import host_files
from tests.command_line import PROJECT, PYINFRA, run
from tests.unit import preflight_output, probe_output
from tests.unit.builders import DATA, UNIT, converged, gpu, settings
from tests.unit.builders import verdict as judged
from tests.unit.keys_for_tests import ED25519, RSA

A, B = "@fake/gpu-1", "@fake/gpu-2"

PROBE = "GPU_FIELDS="
PREFLIGHT = "METADATA="
DNF = "UNIT=tritonhost-packages-"
QUICK = {"PYINFRA_FAKE_DELAY": "0", "PYINFRA_FAKE_DELAY_JITTER": "0", "PYINFRA_PROGRESS": "off"}
# The tests must not depend on what a home or an agent of this machine holds.
ALONE = {"SSH_AUTH_SOCK": "", "HOME": "/nonexistent"}

# None: the host closes the connection
Answers = list[tuple[str, bool | None, list[str]]]


class Run:
    """One run of pyinfra, and what reached each host."""

    def __init__(
        self,
        tmp_path: Path,
        hosts: dict[str, Answers],
        *arguments: str,
        own: dict[str, dict[str, Any]] | None = None,
        answers: str = "",
    ) -> None:
        log = tmp_path / "commands"
        scenario = tmp_path / "scenario.json"
        data = {"_sudo": True, **DATA}
        scenario.write_text(
            json.dumps({"log": str(log), "data": data, "hosts": hosts, "own": own or {}}), encoding="utf-8"
        )
        words: list[str | Path] = [PYINFRA, "tests/deploy/fake_inventory.py", "deploy.py", *arguments]
        done = run(words, PROJECT, variables(SCENARIO=str(scenario)), answers)
        self.code, self.stdout = done.returncode, done.stdout
        self.output = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
        lines = log.read_text("utf-8").splitlines() if log.exists() else []
        self.commands: list[tuple[str, str]] = [(name, command) for name, command in map(json.loads, lines)]

    def on(self, name: str) -> list[str]:
        return [command for host, command in self.commands if host == name]


def pyinfra(*arguments: str, cwd: Path = PROJECT, **environment: str) -> subprocess.CompletedProcess[str]:
    return run([PYINFRA, *arguments], cwd, variables(**environment))


def variables(**environment: str) -> dict[str, str]:
    """The variables of a command: this process's, without those that name hosts, keys or an agent of this machine."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OCI_", "LAB_", "HF_"))}
    return {**kept, **QUICK, **ALONE, **environment}


KEYS: Answers = [
    (DATA["docker_gpg_key_url"] + " ", True, RSA.splitlines()),
    (DATA["nvidia_container_toolkit_gpg_key_url"] + " ", True, ED25519.splitlines()),
]
BARE: Answers = [(PROBE, True, probe_output.bare()), *KEYS]
WANTED = plan_release(settings(), [gpu()], "9")
DOCKER_TRUSTED, TOOLKIT_TRUSTED = (f"UNIT={trust(*key).unit}" for key in keys(WANTED.settings))
TOOLS = f"UNIT={install(tool_packages(WANTED.settings, '9'), ()).unit}"
ENDED = ["cursor: c", "state: ActiveState=inactive SubState=dead Result=success ExecMainStatus=0"]
TRUSTED: Answers = [(DOCKER_TRUSTED, True, ENDED), (TOOLKIT_TRUSTED, True, ENDED)]


def converged_host(
    current: str = "", verdict: str = "proven then", daemon_json: str = "", **data: Any
) -> Answers:
    """
    The host that is the release already; with `current`, one where another is served in its place.

    + daemon_json: what docker's file says in place of what it should
    + data: settings of its own
    """
    wanted = plan_release(settings(**data), [gpu()], "9")
    digests = {file.path: file.digest for file in host_files.expected(wanted)}
    host = replace(
        converged(wanted),
        verdicts={wanted.id: judged(verdict)},
        guard=GuardRules(digests[host_files.paths(wanted.settings).guard_rules]),
    )
    if daemon_json:
        host = replace(host, daemon_json=daemon_json)
    if "monitoring" in data:
        host = replace(host, units={**host.units, "triton-metrics.timer": UNIT})
    lines = probe_output.converged(wanted, replace(host, current=current) if current else host)
    at = lines.index(f"{probe_output.SECTION}files")
    end = next(n for n in range(at + 1, len(lines)) if lines[n].startswith(probe_output.SECTION))
    ours = [f"{digest}  {path}" for path, digest in {**host.file_digests, **digests}.items()]
    return [(PROBE, True, [*lines[: at + 1], *ours, *lines[end:]])]


STEPS = [
    "Lock | Hold the host's lock",
    "Record | Record what the host was",
    "Storage | Grow the root file system to its disk",
    "Record | Record it where the disk was full",
    "Packages | Trust Docker's package key",
    "Packages | Trust NVIDIA's package key",
    "Packages | Docker's repository",
    "Packages | NVIDIA container toolkit's repository",
    "Packages | Install tools at their versions",
    "Ownership | Restore root's ownership",
    "Packages | Remove runc, podman and buildah",
    "Packages | Install docker and the toolkit at their versions",
    "Container runtime | Configure docker",
    "Container runtime | Enable and start docker",
    "Serving image | Check out tensorrtllm_backend",
    "Serving image | Trust the tag of the serving image",
    "Serving image | Build or pull the serving image",
    "Serving image | Record the serving image",
    "Weights | Read the hub's description of the weights",
    "Weights | Check that the model fits the release and the GPUs",
    "Weights | Download the weights",
    "Engine | Convert the weights to a checkpoint",
    "Engine | Build the engine",
    "Model repository | Write the release",
    "Rollout | Serve the release, one host after another",
    "Release | Remove what no kept release needs",
]


def steps_in(output: str) -> list[str]:
    """The steps a text names, in the order in which it first names them."""
    found = {step: output.find(step) for step in STEPS if step in output}
    return sorted(found, key=lambda step: found[step])


def test_dry_run_of_a_bare_host_lists_steps_and_writes_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path, {A: BARE}, "--dry")
    assert run.code == 0, run.output
    assert "Traceback" not in run.output
    assert steps_in(run.output) == STEPS
    # the table of differences comes first, with its reasons
    assert re.search(r"runc +4:1\.2\.5-3\.el9_6 +absent: it conflicts with containerd\.io", run.output)
    changing = (
        DNF,
        "rpm --import",
        "systemctl enable",
        "systemctl restart",
        "systemd-run",
        "mv -T",
    )
    assert [c for c in run.on(A) if any(word in c for word in changing)] == []


@pytest.mark.slow
@pytest.mark.parametrize("there", [False, True])
def test_growpart_is_installed_first_when_missing(tmp_path: Path, there: bool) -> None:
    room = ["/dev/sda3 xfs 38684065792", "sda3 part 38685065216", "sda disk 107374182400"]
    table = ["sda1 2048 204800 1", "sda3 2304000 75556768 3"]
    asked = ("rpm -q --qf", True, ["cloud-utils-growpart\t0:0.33-0.el9"] if there else [])
    answers = [(PROBE, True, probe_output.bare()), ("\nroot_disk", True, [*room, *table]), asked, *KEYS]
    run = Run(tmp_path, {A: answers}, "--dry")
    assert run.code == 0, run.output
    grow = run.output.index("Storage | Grow the root file system to its disk")
    install = run.output.index("Storage | Install what grows a partition")
    assert install < grow < run.output.index("Packages | Docker's repository")


@pytest.mark.slow
def test_json_dry_run_lists_the_hosts_each_step_changes(tmp_path: Path) -> None:
    run = Run(tmp_path, {A: BARE, B: converged_host()}, "--dry", "--json")
    assert run.code == 0, run.output
    plan = json.loads(run.stdout[run.stdout.index("{") :])["plan"]
    assert [step["name"] for step in plan] == STEPS
    assert {name for step in plan for name in step["hosts_with_change"]} == {A}


@pytest.mark.slow
@pytest.mark.parametrize("broken", [True, False], ids=["a host failed", "changes"])
def test_question_without_a_terminal_is_an_error(tmp_path: Path, broken: bool) -> None:
    """Without -y pyinfra asks; its standard input is at its end in a timer or a CI job."""
    failing = [("rpm -q --qf '%{VERSION}\\n' gpg-pubkey", False, ["broken"]), *BARE]
    run = Run(tmp_path, {A: failing if broken else BARE, B: BARE}, *(["--dry"] if broken else []))
    assert run.code == 1, run.output
    assert "Traceback" not in run.output and "EOFError" not in run.output
    assert "-y: found no terminal to ask, expected one, or -y to go on without" in run.output
    assert f"{B}           differs, nothing was changed" in run.output


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param((PROBE, False, ["sudo: a password is required"]), id="refused"),
        pytest.param((PROBE, True, []), id="silent"),
        pytest.param((PROBE, None, []), id="closed"),
        pytest.param((PROBE, True, probe_output.bare()[:40]), id="cut"),
        pytest.param((PROBE, True, ["This account is currently not available."]), id="another program"),
    ],
)
def test_host_that_cannot_be_read_is_alone(
    tmp_path: Path, answer: tuple[str, bool | None, list[str]]
) -> None:
    """pyinfra hands out None for a fact that failed, as long as there are other hosts."""
    run = Run(tmp_path, {A: [answer], B: converged_host()}, "-y")
    assert run.code == 1, run.output
    assert "Traceback" not in run.output and "An exception" not in run.output
    assert f"[{B}] converged: release " in run.output
    [row] = [line for line in run.output.splitlines() if line.split()[:1] == [A]]
    assert "refused: look: found no answer that could be read" in row
    assert "data_root=" not in run.output


@pytest.mark.slow
def test_connection_that_is_closed_at_any_look_ends_one_host(tmp_path: Path) -> None:
    """At the first fact that an operation asks for, at one in the middle, and at the last; the preflight goes on without."""
    facts = list(dict.fromkeys(Run(tmp_path, {A: BARE}, "--dry").on(A)))
    assert len(facts) > 20
    for number in (2, len(facts) // 2, len(facts) - 1):
        (tmp_path / "commands").unlink()
        closed: Answers = [(facts[number], None, []), *BARE]
        run = Run(tmp_path, {A: closed, B: BARE}, "--dry", answers="\n" * 3)
        assert "Traceback" not in run.output, run.output
        assert steps_in(run.output) == STEPS
        [row] = [line for line in run.output.splitlines() if line.split()[:1] == [A]]
        assert "failed: see the lines above; the running release was left as it is" in row


@pytest.mark.slow
def test_connection_that_stays_closed_ends_one_host(tmp_path: Path) -> None:
    """Of a kind without templates, whose release is laid out from what the host says alone."""
    lost: Answers = [BARE[0], ("", None, [])]
    digests = {**DATA["image_digests"], "pgvector/pgvector:0.8.6-pg16": f"sha256:{'a' * 64}"}
    model = {"model": "clip-search", "image_digests": digests}
    run = Run(tmp_path, {A: lost, B: BARE}, "--dry", own={A: model, B: model}, answers="\n" * 200)
    assert "Traceback" not in run.output and "An exception" not in run.output, run.output[-3000:]
    assert "Model repository | Write the release" in steps_in(run.output)


@pytest.mark.slow
def test_question_at_the_look_is_not_taken_for_an_answer(tmp_path: Path) -> None:
    unread: Answers = [(PROBE, False, ["sudo: a password is required"])]
    run = Run(tmp_path, {A: unread, B: BARE}, "--dry")
    assert run.code == 1 and "Traceback" not in run.output
    assert "-y: found no terminal to ask, expected one, or -y to go on without" in run.output


def test_converged_host_is_probed_once_and_not_changed(tmp_path: Path) -> None:
    run = Run(tmp_path, {A: converged_host()}, "-y")
    assert run.code == 0, run.output
    assert "converged: release " in run.output
    assert len(run.on(A)) == 1
    assert PROBE in run.on(A)[0]
    assert steps_in(run.output) == []


def test_converged_host_with_metrics_is_one_round_trip(tmp_path: Path) -> None:
    own: dict[str, Any] = {"monitoring": {}}
    run = Run(tmp_path, {A: converged_host(**own)}, "-y", own={A: own})
    assert run.code == 0, run.output
    assert "converged: release " in run.output
    assert len(run.on(A)) == 1


@pytest.mark.slow
def test_run_notes_its_beginning_where_metrics_are_wanted(tmp_path: Path) -> None:
    own: dict[str, Any] = {"monitoring": {}}
    run = Run(tmp_path, {A: BARE, B: BARE}, "--dry", own={A: own})
    assert run.code == 0, run.output
    step = "Monitoring | Note that a run begins"
    assert run.output.index("Lock | Hold the host's lock") < run.output.index(step)
    noted = [line for line in run.output.splitlines() if "note" in line.lower() and "gpu-2" in line]
    assert noted == []


@pytest.mark.slow
def test_failed_step_ends_the_run_before_later_steps(tmp_path: Path) -> None:
    run = Run(tmp_path, {A: [(TOOLS, False, ["Error: no such package"]), *TRUSTED, *BARE]}, "-y")
    assert run.code != 0
    assert "Traceback" not in run.output
    assert "Error: no such package" in run.output
    commands = run.on(A)
    assert any(DOCKER_TRUSTED in command for command in commands)
    at = next(i for i, command in enumerate(commands) if TOOLS in command)
    assert commands[at + 1 :] == []


LATER_STEPS = [
    ("UNIT=tritonhost-source-", "Serving image | Check out tensorrtllm_backend"),
    ("UNIT=tritonhost-image-", "Serving image | Build or pull the serving image"),
    ("UNIT=tritonhost-weights-", "Weights | Download the weights"),
    ("UNIT=tritonhost-checkpoint-", "Engine | Convert the weights to a checkpoint"),
    ("UNIT=tritonhost-engine-", "Engine | Build the engine"),
]


@pytest.mark.parametrize(("part", "step"), LATER_STEPS)
def test_later_step_that_fails_ends_the_run_by_name(tmp_path: Path, part: str, step: str) -> None:
    run = Run(
        tmp_path, {A: [(part, False, ["stopped here"]), ("UNIT=tritonhost-", True, ENDED), *BARE]}, "-y"
    )
    assert run.code == 1, run.output
    assert "Traceback" not in run.output
    assert re.search(rf"{re.escape(A)} +failed: {re.escape(step)}\n", run.output)
    begun = [s for s in STEPS if f"--> Starting operation: {s}" in run.output]
    assert begun == STEPS[: STEPS.index(step) + 1]
    commands = run.on(A)
    at = next(i for i, command in enumerate(commands) if part in command)
    # nothing of a later step: what follows asks how the failed one stands
    assert [c for c in commands[at + 1 :] if "UNIT=tritonhost-" in c and part not in c] == []


@pytest.mark.slow
def test_failed_host_does_not_stop_another_host(tmp_path: Path) -> None:
    failing: Answers = [(DOCKER_TRUSTED, False, ["error: key import failed"]), *BARE]
    other: Answers = [(TOOLS, False, ["stopped here"]), *TRUSTED, *BARE]
    run = Run(tmp_path, {A: failing, B: other}, "-y")
    assert run.code != 0
    assert not any(TOOLS in command for command in run.on(A))
    assert any(TOOLS in command for command in run.on(B))


@pytest.mark.slow
def test_failed_host_beside_a_converged_one_fails_the_run(tmp_path: Path) -> None:
    run = Run(tmp_path, {A: [(DOCKER_TRUSTED, False, []), *BARE], B: converged_host()}, "-y")
    assert run.code != 0
    assert "converged: release " in run.output
    assert len(run.on(B)) == 1


UBUNTU: Answers = [
    (
        PROBE,
        True,
        probe_output.lines({"os-release": ["ID=ubuntu", 'VERSION_ID="22.04"'], "architecture": ["x86_64"]}),
    )
]
OLD_NVIDIA_SMI = 'Field "compute_cap" is not a valid field to query.'


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (UBUNTU, "operating system: found ubuntu 22.04, expected Oracle Linux 8 or 9"),
        (
            [(PROBE, True, [*probe_output.bare()[:5]])],
            "look: found no answer that could be read",
        ),
        (
            [(PROBE, True, [line for line in probe_output.bare() if line != probe_output.GPU])],
            "GPUs: found none",
        ),
        (
            [(PROBE, True, [OLD_NVIDIA_SMI if li == probe_output.GPU else li for li in probe_output.bare()])],
            "GPU driver: found an nvidia-smi that does not know compute_cap, expected that of a driver of about 510",
        ),
    ],
)
def test_host_without_a_plan_is_refused_after_the_probe(
    tmp_path: Path, answers: Answers, expected: str
) -> None:
    run = Run(tmp_path, {A: answers}, "-y")
    assert run.code != 0
    assert expected in run.output
    assert "Traceback" not in run.output
    # and what else does not fit is asked for in one more round trip
    assert [c for c in run.on(A) if PROBE not in c and PREFLIGHT not in c] == []
    assert len(run.on(A)) == (1 if "look:" in expected else 2)


# --- inventories/oci.py


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """This project with inventories of its own."""
    for name in ("operations", "templates", "files", "tests", "config.py", "deploy.py"):
        (tmp_path / name).symlink_to(PROJECT / name)
    ignored = shutil.ignore_patterns("__pycache__", "oci.toml")
    shutil.copytree(PROJECT / "inventories", tmp_path / "inventories", ignore=ignored)
    return tmp_path


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a refusal."""
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr
    assert "onnect" not in done.stdout + done.stderr
    # pyinfra itself says which file it reads
    [line] = [line for line in done.stderr.splitlines() if not line.startswith("--> Loading ")]
    assert line.startswith("tritonhost: ")
    return line


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ("", "OCI_HOSTS: found no hosts, expected at least one host"),
        ("gpu 1", 'OCI_HOSTS: host #1 name: found "gpu 1", expected a host name'),
    ],
)
def test_bad_hosts_in_the_environment_are_refused_offline(hosts: str, expected: str) -> None:
    assert expected in refused(pyinfra("inventories/oci.py", "deploy.py", "-y", OCI_HOSTS=hosts))


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        (None, "inventories/oci.toml: found no such file"),
        (
            "[hosts.gpu-1]\nssh_port = 99999\n",
            "inventories/oci.toml: [hosts.gpu-1] ssh_port: found 99999, expected a whole number from 1 to 65535",
        ),
        ('[hosts.gpu-1]\nmodel = "smollm2-135"\n', "did you mean smollm2-135m?"),
        ('[hosts.gpu-1]\nhf_token = "hf_CANARY0123456789"\n', "expected no secret in an inventory"),
    ],
)
def test_a_bad_oci_toml_is_refused_before_a_connection(
    project: Path, toml: str | None, expected: str
) -> None:
    if toml is not None:
        (project / "inventories/oci.toml").write_text(toml, encoding="utf-8")
    line = refused(pyinfra("inventories/oci.py", "deploy.py", "-y", cwd=project))
    assert expected in line
    assert "CANARY" not in line


def test_stopped_lab_is_refused_with_the_command_to_start_it(tmp_path: Path) -> None:
    done = pyinfra("inventories/lab.py", "deploy.py", "-y", LAB_STATE=str(tmp_path))
    assert "tests/lab/lab up 1" in refused(done)


def test_good_inventory_is_accepted(project: Path) -> None:
    (project / "inventories/oci.toml").write_text('[hosts.gpu-1]\naddress = "10.0.0.11"\n', encoding="utf-8")
    done = pyinfra("inventories/oci.py", "debug-inventory", "--json", cwd=project)
    assert done.returncode == 0, done.stderr
    [host] = json.loads(done.stdout[done.stdout.index("[") :])
    data: dict[str, Any] = host["data"]
    assert (host["name"], data["ssh_hostname"], data["ssh_user"]) == ("gpu-1", "10.0.0.11", "opc")
    assert data["ssh_strict_host_key_checking"] == "yes"


def test_failed_release_is_retried_only_with_retry_failed(tmp_path: Path) -> None:
    host = converged_host("another", "failed 2026-11-21T08:00:00Z no answer")
    run = Run(tmp_path, {A: host}, "-y")
    assert run.code == 1
    assert "found failed 2026-11-21T08:00:00Z no answer; expected a different release" in run.output
    assert len(run.on(A)) == 1, "looked at once, and left"
    again = Run(tmp_path, {A: host}, "-y", "--data", "retry_failed=true")
    assert "expected a different release" not in again.output
    assert len(again.on(A)) > 2


def test_failed_release_that_still_serves_is_converged(tmp_path: Path) -> None:
    run = Run(tmp_path, {A: converged_host(verdict="failed then")}, "-y")
    assert run.code == 0, run.output
    assert "converged: release" in run.output


# --- the preflight


def preflight_answer(**changed: list[str]) -> Answers:
    return [(PREFLIGHT, True, preflight_output.lines(changed))]


@pytest.mark.slow
def test_preflight_reports_every_problem_and_changes_nothing(tmp_path: Path) -> None:
    taken = ['LISTEN 0 5 0.0.0.0:8000 0.0.0.0:* users:(("python3",pid=3,fd=3))']
    clock = [str(time.time() - 4000)]
    bad = [*preflight_answer(listening=taken, clock=clock, gpus=preflight_output.nvidia_smi(count=2)), *BARE]
    run = Run(tmp_path, {A: bad, B: [(DNF, False, ["stopped here"]), *BARE]}, "-y")
    assert run.code == 1, run.output
    assert re.search(
        r"failed +shape +2 x NVIDIA A10 .* 1 x A10 of 24 GB, as VM\.GPU\.A10\.1 has them", run.output
    )
    assert re.search(r"failed +ports +8000 by python3", run.output)
    assert re.search(r"failed +clock +4\d\d\d s behind", run.output)
    assert "preflight: found 3 failed (shape, clock, ports), expected none" in run.output
    assert len(run.on(A)) == 2, "looked at, asked for its health, and left"
    assert any(DNF in command for command in run.on(B)), "the other host is not ended by it"


@pytest.mark.slow
def test_waived_check_and_unreachable_source_do_not_stop_deploy(tmp_path: Path) -> None:
    taken = ['LISTEN 0 5 0.0.0.0:8000 0.0.0.0:* users:(("python3",pid=3,fd=3))']
    host = [*preflight_answer(listening=taken, clock=[str(time.time())], network=[]), *BARE]
    run = Run(tmp_path, {A: host}, "--dry", "--data", 'preflight_waived=["ports"]')
    assert run.code == 0, run.output
    assert re.search(r"warning +ports +8000 by python3 .*; waived by preflight_waived", run.output)
    assert re.search(r"not checked: .*shape, .*source docker", run.output)
    assert steps_in(run.output) == STEPS


def test_gated_model_without_token_is_refused_before_any_work(tmp_path: Path) -> None:
    gated = 'profile_overrides={"weights": {"gated": true}}'
    run = Run(tmp_path, {A: BARE}, "-y", "--data", gated)
    assert run.code == 1
    [said] = [line for line in run.output.splitlines() if "HF_TOKEN" in line]
    assert re.search(r"failed +hub token +HF_TOKEN: not set", said)
    assert len(run.on(A)) == 2


def test_host_without_a_plan_still_gets_its_preflight(tmp_path: Path) -> None:
    host = [*preflight_answer(umask=["0027"], user=["1000"]), *UBUNTU]
    run = Run(tmp_path, {A: host}, "-y")
    assert run.code == 1
    assert re.search(r"failed +sudo +user 1000", run.output)
    assert "operating system: found ubuntu 22.04, expected Oracle Linux 8 or 9" in run.output


def preflight(*arguments: str, cwd: Path = PROJECT, **environment: str) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-m", "operations.preflight", *arguments], cwd, variables(**environment))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["inventories/none.py"], "inventory not found: inventories/none.py: found no such file"),
        (
            ["inventories/oci.py", "--limit", "gpu-9"],
            "--limit gpu-9: found no hosts selected, expected a host",
        ),
        (["inventories/oci.py", "--data", "shape"], '--data: found "shape", expected KEY=VALUE'),
        (["inventories/oci.py", "--data", "shape=BM.GPU4.9"], "expected an OCI shape with NVIDIA GPUs"),
    ],
)
def test_preflight_command_refuses_bad_input_with_exit_code_2(arguments: list[str], expected: str) -> None:
    done = preflight(*arguments, OCI_HOSTS="gpu-1=192.0.2.1")
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_preflight_command_reports_unreachable_hosts() -> None:
    known_hosts = ("--data", "ssh_connect_retries=0")
    done = preflight(
        "inventories/oci.py", "--json", *known_hosts, OCI_HOSTS="gpu-1=127.0.0.1,gpu-2=127.0.0.2"
    )
    assert done.returncode == 5, done.stderr
    hosts = json.loads(done.stdout)["hosts"]
    assert {name: host["status"] for name, host in hosts.items()} == {
        "gpu-1": "unreachable",
        "gpu-2": "unreachable",
    }
    assert all(host["problem"] and not host["checks"] for host in hosts.values())
    assert "Traceback" not in done.stderr


def test_preflight_command_checks_hosts_and_prints_json(tmp_path: Path) -> None:
    scenario, log = tmp_path / "scenario.json", tmp_path / "commands"
    good = [*preflight_answer(clock=[str(time.time())]), *converged_host()]
    other = {"os-release": ["ID=ubuntu", 'VERSION_ID="22.04"'], "architecture": ["aarch64"]}
    bad = [*preflight_answer(clock=[str(time.time())], **other), *UBUNTU]
    hosts = {A: good, B: bad}
    data = {"_sudo": True, **DATA}
    scenario.write_text(
        json.dumps({"log": str(log), "data": data, "hosts": hosts, "own": {}}), encoding="utf-8"
    )
    done = preflight("tests/deploy/fake_inventory.py", "--json", SCENARIO=str(scenario))
    assert done.returncode == 3, done.stderr + done.stdout
    found = json.loads(done.stdout)["hosts"]
    assert found[B]["status"] == "failed"
    failed = [check["name"] for check in found[B]["checks"] if check["verdict"] == "failed"]
    assert failed == ["operating system", "processor", "release"]
    assert [c["name"] for c in found[A]["checks"] if c["verdict"] == "failed"] == []
    assert found[A]["seconds"] < 10
    table = preflight("tests/deploy/fake_inventory.py", "--limit", A, SCENARIO=str(scenario))
    assert table.returncode in (0, 4), table.stdout
    assert f"{A}: " in table.stdout and B not in table.stdout


def test_docker_with_userns_remap_is_refused_in_one_line(tmp_path: Path) -> None:
    run = Run(tmp_path, {A: converged_host(daemon_json='{"userns-remap": "default"}')}, "--dry")
    assert run.code == 1, run.output
    before, _, report = run.output.partition("--> Hosts:")
    [said] = [line for line in before.splitlines() if "userns-remap" in line]
    assert "/etc/docker/daemon.json: userns-remap: found default, expected no user namespaces" in said
    assert "refused: /etc/docker/daemon.json: userns-remap" in report
    assert "Traceback" not in run.output


def test_docker_without_iptables_rules_is_a_warning(tmp_path: Path) -> None:
    answers = converged_host(daemon_json='{"iptables": false, "bridge": "none"}')
    run = Run(tmp_path, {A: [*answers, (PREFLIGHT, True, preflight_output.lines())]}, "--dry")
    [row] = [line for line in run.output.splitlines() if "docker settings" in line]
    assert "warning" in row
    assert "daemon.json: iptables False; /etc/docker/daemon.json: bridge none" in row
