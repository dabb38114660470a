"""`tritonhost provision` against OCI's stand-in: what is made, what is not made twice, and what is ended."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from operations import new_instances, provision
from operations.intake import known_hosts
from operations.plan.errors import PlanError
from operations.plan.provisioning import host_keys
from tests.oci.conftest import Controller
from tests.oci.machines import host_key, printed
from tests.oci.service import COMPARTMENT, Fault, Tenancy

AD = ("Uocm:IAD-AD-1", "Uocm:IAD-AD-2")
INSTANCES = "/20160918/instances"
Run = Callable[..., int]


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def project(tmp_path: Path, controller: Controller, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two hosts that OCI does not have, and a file of known hosts of its own."""
    root = tmp_path / "project"
    (root / "inventories/group_data").mkdir(parents=True)
    (root / "key.pub").write_text("ssh-ed25519 AAAAC3 operator\n", encoding="utf-8")
    (root / "inventories/group_data/all.py").write_text(
        f"ssh_known_hosts_file = {str(root / 'known_hosts')!r}\n", encoding="utf-8"
    )
    monkeypatch.chdir(root)
    write(root, controller)
    return root


def write(
    project: Path, controller: Controller, more: str = "", hosts: str = "'gpu-1', 'gpu-2'", oci: str = ""
) -> None:
    (project / "inventories/oci.toml").write_text(
        f"""
[oci]
compartments = ['{COMPARTMENT}']
config_file = '{controller.config}'
endpoint = '{controller.url}'
{oci}
[provision]
fleet = "live"

[provision.instances.a100]
hosts = [{hosts}]
shape = "BM.GPU4.8"
image = "ocid1.image.oc1.iad.aaaa"
subnet = "ocid1.subnet.oc1.iad.aaaa"
availability_domains = ["{AD[0]}", "{AD[1]}"]
ssh_public_key = "key.pub"
{more}
""",
        encoding="utf-8",
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    for module in (provision, new_instances):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=found.monotonic, sleep=found.sleep))
    return found


@pytest.fixture
def run(project: Path, clock: Clock) -> Run:
    def command(*words: str) -> int:
        return provision.main(list(words), sleep=clock.sleep)

    return command


def living(tenancy: Tenancy) -> list[str]:
    return [
        each["displayName"]
        for each in tenancy.instances
        if each["lifecycleState"] not in ("TERMINATING", "TERMINATED")
    ]


def test_nothing_becomes_hosts_whose_keys_are_known(
    run: Run, project: Path, tenancy: Tenancy, capsys: pytest.CaptureFixture[str]
) -> None:
    tenancy.machines.captures, tenancy.machines.looks = 3, 6

    assert run("--yes") == 0

    assert living(tenancy) == ["gpu-1", "gpu-2"]
    [body, _] = tenancy.machines.bodies
    assert body["metadata"] == {"ssh_authorized_keys": "ssh-ed25519 AAAAC3 operator"}
    assert body["sourceDetails"] == {"sourceType": "image", "imageId": "ocid1.image.oc1.iad.aaaa"}
    assert body["freeformTags"] == {
        "tritonhost-fleet": "live",
        "tritonhost-instances": "a100",
        "tritonhost-host": "gpu-1",
    }
    assert body["instanceOptions"] == {"areLegacyImdsEndpointsDisabled": True}
    known = (project / "known_hosts").read_text(encoding="utf-8").splitlines()
    first, second = (f"ocid1.instance.oc1.iad.inst000{n}" for n in (1, 2))
    assert known == [f"10.0.0.11 {host_key('gpu-1')} {first}", f"10.0.0.12 {host_key('gpu-2')} {second}"]
    printed = capsys.readouterr().out
    assert "next: pyinfra inventories/oci.py deploy.py" in printed
    assert "gpu-1: PROVISIONING, after 0 min" in printed and "gpu-1: RUNNING, after" in printed
    assert tenancy.refused == []


def test_a_second_run_makes_nothing(run: Run, tenancy: Tenancy, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--yes") == 0
    tenancy.requests.clear()

    assert run() == 0

    assert not [line for line in tenancy.requests if line.startswith("POST")]
    assert "running  gpu-1" in capsys.readouterr().out


def test_the_plan_alone_asks_for_nothing(
    run: Run, tenancy: Tenancy, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--plan") == 0

    assert tenancy.instances == []
    assert f"launch   gpu-1             BM.GPU4.8 on demand: {AD[0]}, else {AD[1]}" in capsys.readouterr().out


def test_without_a_terminal_it_does_not_launch(
    run: Run, tenancy: Tenancy, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 2

    assert tenancy.instances == []
    assert "expected --yes" in capsys.readouterr().err


def test_an_answer_that_is_lost_makes_no_second_instance(run: Run, tenancy: Tenancy) -> None:
    tenancy.faults.append(Fault(INSTANCES, method="POST", done=True, times=2))

    assert run("--yes") == 0

    assert living(tenancy) == ["gpu-1", "gpu-2"]


def test_a_run_that_lost_every_answer_finds_its_instances(run: Run, tenancy: Tenancy) -> None:
    tenancy.faults.append(Fault(INSTANCES, method="POST", done=True))

    assert run("--yes") == 0

    assert living(tenancy) == ["gpu-1", "gpu-2"]


def test_a_launch_that_is_not_answered_is_not_tried_elsewhere(
    run: Run, tenancy: Tenancy, capsys: pytest.CaptureFixture[str]
) -> None:
    tenancy.faults.append(Fault(INSTANCES, method="POST"))

    assert run("--yes") == 1

    assert living(tenancy) == []
    assert "gpu-1: not known to be launched" in capsys.readouterr().err
    tenancy.faults.clear()
    assert run("--yes") == 0
    assert living(tenancy) == ["gpu-1", "gpu-2"]


def test_an_interrupted_wait_is_taken_up(
    project: Path, tenancy: Tenancy, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    assert provision.main(["--yes"], sleep=interrupt) == 130
    assert "is paid for; run the command again" in capsys.readouterr().err

    assert provision.main(["--yes"], sleep=clock.sleep) == 0
    assert living(tenancy) == ["gpu-1", "gpu-2"]
    assert (project / "known_hosts").read_text(encoding="utf-8").count("ssh-ed25519") == 2


@pytest.mark.parametrize("late", [False, True], ids=["refused", "accepted first"])
def test_a_full_availability_domain_is_left_for_the_next(
    run: Run, tenancy: Tenancy, capsys: pytest.CaptureFixture[str], late: bool
) -> None:
    where = tenancy.machines.capacity_late if late else tenancy.machines.capacity
    where[AD[0]] = 0

    assert run("--yes") == 0

    found = [each for each in tenancy.instances if each["lifecycleState"] == "RUNNING"]
    assert [each["availabilityDomain"] for each in found] == [AD[1], AD[1]]
    assert f"gpu-1: none in {AD[0]}" in capsys.readouterr().out
    assert len([line for line in tenancy.requests if line == f"POST {INSTANCES}"]) == 4


@pytest.mark.parametrize("late", [False, True], ids=["refused", "accepted first"])
def test_no_capacity_anywhere_is_said(
    run: Run, tenancy: Tenancy, capsys: pytest.CaptureFixture[str], late: bool
) -> None:
    where = tenancy.machines.capacity_late if late else tenancy.machines.capacity
    where.update(dict.fromkeys(AD, 0))

    assert run("--yes") == 1

    assert living(tenancy) == []
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all("Out of host capacity" in line for line in lines)


def test_an_instance_that_ends_early_is_said_with_the_reason(
    run: Run, tenancy: Tenancy, capsys: pytest.CaptureFixture[str]
) -> None:
    tenancy.machines.broken["gpu-2"] = "all 29 non-reserved IP addresses have already been allocated"

    assert run("--yes") == 1

    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("tritonhost: gpu-2: TERMINATING before it ran: InternalError: all 29 non-reserved")
    tenancy.machines.broken.clear()
    assert run("--yes") == 0
    assert living(tenancy) == ["gpu-1", "gpu-2"]


def test_a_host_is_made_again_although_its_tokens_were_used(run: Run, tenancy: Tenancy) -> None:
    for _ in range(3):
        assert run("--yes") == 0
        assert living(tenancy) == ["gpu-1", "gpu-2"]
        for each in tenancy.instances:
            each["lifecycleState"] = "TERMINATED"
    # OCI lists an instance that is gone for half a day, and keeps the token for a whole one
    tenancy.machines.forgotten = {each["id"] for each in tenancy.instances if each["displayName"] == "gpu-1"}

    assert run("--yes") == 0
    assert living(tenancy) == ["gpu-1", "gpu-2"]


def test_a_changed_inventory_makes_no_second_instance(
    run: Run, project: Path, controller: Controller, tenancy: Tenancy
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    assert provision.main(["--yes"], sleep=interrupt) == 130
    write(project, controller, "boot_volume_gb = 250")

    assert run("--yes") == 0

    assert living(tenancy) == ["gpu-1", "gpu-2"]


def test_a_wrong_image_is_said_in_ocis_words(
    run: Run, tenancy: Tenancy, capsys: pytest.CaptureFixture[str]
) -> None:
    tenancy.machines.wrong_image = "ocid1.image.oc1.iad.aaaa"

    assert run("--yes") == 1

    line = capsys.readouterr().err.splitlines()[0]
    assert "Shape BM.GPU4.8 is not valid for image ocid1.image.oc1.iad.aaaa." in line
    assert "opc-request-id" in line


def test_a_late_instance_stays_and_is_said(
    run: Run, tenancy: Tenancy, capsys: pytest.CaptureFixture[str]
) -> None:
    tenancy.machines.looks = 10_000

    assert run("--yes") == 1

    assert living(tenancy) == ["gpu-1", "gpu-2"]
    assert "gpu-1: PROVISIONING after 60 minutes; it is paid for" in capsys.readouterr().err


def test_a_console_without_a_key_is_said(
    run: Run, tenancy: Tenancy, capsys: pytest.CaptureFixture[str]
) -> None:
    tenancy.machines.captures = 10_000

    assert run("--yes") == 1

    assert "gpu-1: its key is not known: console: found no host key" in capsys.readouterr().err


def test_an_address_that_another_machine_had_gets_the_new_key(
    run: Run, project: Path, tenancy: Tenancy
) -> None:
    (project / "known_hosts").write_text(
        f"10.0.0.11 {host_key('old')}\nother {host_key('x')}", encoding="utf-8"
    )

    assert run("--yes") == 0

    known = (project / "known_hosts").read_text(encoding="utf-8")
    assert host_key("old") not in known and host_key("gpu-1") in known
    assert f"other {host_key('x')}\n" in known


def test_an_instance_without_a_name_is_shown_then_ended(
    run: Run, project: Path, controller: Controller, tenancy: Tenancy, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--yes") == 0
    tenancy.add("another", freeformTags={"tritonhost-fleet": "test"})
    tenancy.add("foreign")
    write(project, controller, hosts="'gpu-1'")

    assert run("--yes") == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(
        "tritonhost: gpu-2 (ocid1.instance.oc1.iad.inst0002): BM.GPU4.8, RUNNING: paid for"
    )
    assert living(tenancy) == ["gpu-1", "gpu-2", "another", "foreign"]

    tenancy.machines.busy = 2
    assert run("--terminate", "--yes") == 0
    assert living(tenancy) == ["gpu-1", "another", "foreign"]
    assert tenancy.machines.kept_volumes == []
    assert run("--terminate") == 0
    assert run() == 0


def test_a_termination_whose_answer_is_lost_is_a_termination(
    run: Run, project: Path, controller: Controller, tenancy: Tenancy
) -> None:
    assert run("--yes") == 0
    write(project, controller, hosts="'gpu-1'")
    tenancy.faults.append(Fault(f"{INSTANCES}/", method="DELETE", done=True))

    assert run("--terminate", "--yes", "--keep-boot-volume") == 0

    assert living(tenancy) == ["gpu-1"]


def test_a_termination_that_is_not_allowed_is_said(
    run: Run, project: Path, controller: Controller, tenancy: Tenancy, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--yes") == 0
    write(project, controller, hosts="'gpu-1'")
    tenancy.faults.append(Fault(f"{INSTANCES}/", 404, "NotAuthorizedOrNotFound", method="DELETE"))

    assert run("--terminate", "--yes") == 1

    assert "not terminated" in capsys.readouterr().err
    assert living(tenancy) == ["gpu-1", "gpu-2"]


def test_hosts_that_are_not_as_wanted_are_left_alone(
    run: Run, tenancy: Tenancy, capsys: pytest.CaptureFixture[str]
) -> None:
    tenancy.add("gpu-1")
    tenancy.add("gpu-1")
    tenancy.add("gpu-2", "BM.GPU.H100.8")

    assert run("--yes") == 1

    assert len(tenancy.instances) == 3
    twice, differs = capsys.readouterr().err.splitlines()
    assert "ocid1.instance.oc1.iad.inst0001, ocid1.instance.oc1.iad.inst0002; terminate one of them" in twice
    assert "is a BM.GPU.H100.8, the inventory says BM.GPU4.8" in differs


def test_a_stopped_host_is_not_made_a_second_time(
    run: Run, tenancy: Tenancy, capsys: pytest.CaptureFixture[str]
) -> None:
    tenancy.add("gpu-1", lifecycleState="STOPPED")
    tenancy.add("gpu-2")

    assert run("--yes") == 1

    assert len(tenancy.instances) == 2
    assert (
        "gpu-1 (ocid1.instance.oc1.iad.inst0001): STOPPED; start or terminate it" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("more", "oci", "hosts", "said"),
    [
        ("", "shape = 'BM.GPU.A100*'", "'gpu-1'", "gpu-1, which [oci] leaves out by shape BM.GPU.A100*"),
        ("", "freeform_tags = { stage = 'live' }", "'gpu-1'", "leaves out by freeform_tags.stage live"),
        ("", "", "'gpu-1', 'gpu-1'", "gpu-1 twice"),
        ("compartment = 'ocid1.compartment.oc1..other'", "", "'gpu-1'", "one of [oci] compartments"),
        ("preemptible = true", "", "'gpu-1'", "no preemptible bare metal"),
        ("capacity_reservation = 'ocid1.computecluster.oc1.iad.a'", "", "'gpu-1'", "the OCID of a capacity reservation"),
        ("freeform_tags = { 'a.b' = 'c' }", "", "'gpu-1'", "without dots"),
        ("freeform_tags = { tritonhost-fleet = 'c' }", "", "'gpu-1'", "which `tritonhost provision` sets"),
        ("boot_volume_gb = 10", "", "'gpu-1'", "from 50 to 32768"),
        ("", "address = 'public'", "'gpu-1'", "public_address: found false"),
        ("user_data = '~nosuchuser/x'", "", "'gpu-1'", "a path whose user exists"),
        ("user_data = 'nothing'", "", "'gpu-1'", "No such file"),
        ("user_data = 'quiet'", "", "'gpu-1'", "a console that shows the host's keys"),
        ("user_data = 'long'", "", "'gpu-1'", "expected at most"),
        ("imagee = 'x'", "", "'gpu-1'", "did you mean image?"),
        ("", "", "'GPU-1'", "a host name of lower-case letters"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused_before_oci_is_asked(
    run: Run, project: Path, controller: Controller, tenancy: Tenancy, capsys: pytest.CaptureFixture[str],
    more: str, oci: str, hosts: str, said: str,
) -> None:  # fmt: skip
    (project / "quiet").write_text("#cloud-config\nssh: {emit_keys_to_console: false}\n", encoding="utf-8")
    (project / "long").write_bytes(b"x" * 30_000)
    write(project, controller, more, hosts, oci)

    with pytest.raises(SystemExit) as ended:
        run("--yes")

    assert ended.value.code == 2
    line = capsys.readouterr().err
    assert said in line and line.count("\n") == 1
    assert tenancy.requests == []


def test_a_private_key_in_place_of_a_public_one_is_not_shown(
    run: Run, project: Path, tenancy: Tenancy, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "key.pub").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaA\n", encoding="utf-8")

    with pytest.raises(SystemExit):
        run("--yes")

    said = capsys.readouterr().err
    assert "a file with one public key" in said and "b3Blb" not in said
    assert tenancy.requests == []


def test_user_data_and_capacity_reach_oci(
    run: Run, project: Path, controller: Controller, tenancy: Tenancy
) -> None:
    (project / "cloud-init").write_text("#cloud-config\n", encoding="utf-8")
    more = (
        "user_data = 'cloud-init'\nboot_volume_gb = 250\ncompute_cluster = 'ocid1.computecluster.oc1.iad.a'\n"
        "capacity_reservation = 'ocid1.capacityreservation.oc1.iad.a'\npublic_address = true\n"
        "freeform_tags = { model = 'gpt2-medium' }\ndefined_tags = { Ops = { Team = 'x' } }\n"
    )
    write(project, controller, more)

    assert run("--yes") == 0

    body = tenancy.machines.bodies[0]
    assert base64.b64decode(body["metadata"]["user_data"]) == b"#cloud-config\n"
    assert body["sourceDetails"]["bootVolumeSizeInGBs"] == 250
    assert body["computeClusterId"].endswith(".a") and body["capacityReservationId"].endswith(".a")
    assert body["createVnicDetails"] == {"subnetId": "ocid1.subnet.oc1.iad.aaaa", "assignPublicIp": True}
    assert body["freeformTags"]["model"] == "gpt2-medium" and body["definedTags"] == {"Ops": {"Team": "x"}}


def test_a_key_is_taken_from_a_console_only_if_it_is_whole() -> None:
    shown = printed("gpu-1")
    assert host_keys(shown) == [host_key("gpu-1")]
    assert host_keys(shown.replace("AAAAC3", "AAAAC4")) == []
    assert host_keys(shown.replace(host_key("gpu-1")[30:40], "[  9.2] eth")) == []
    assert host_keys("\n".join(line for line in shown.splitlines() if "SHA256" not in line)) == []
    assert host_keys(f"{printed('before')}{shown}") == [host_key("gpu-1")]
    assert host_keys("") == []


def test_a_file_that_cannot_be_written_is_said(
    run: Run, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "known_hosts").mkdir()

    assert run("--yes") == 1

    assert "gpu-1: its key is not known" in capsys.readouterr().err
    assert known_hosts.lines_of(project / "known_hosts", "10.0.0.11") == []


def test_an_instance_of_another_fleet_is_no_host(
    run: Run, project: Path, controller: Controller, tenancy: Tenancy, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        project,
        controller,
        "freeform_tags = { stage = 'live' }",
        "'gpu-1', 'gpu-2'",
        "freeform_tags = { stage = 'live' }",
    )
    tenancy.add("gpu-1", freeformTags={"tritonhost-fleet": "test", "stage": "live"})
    tenancy.add("gpu-2")

    assert run("--yes") == 0

    assert living(tenancy) == ["gpu-1", "gpu-2", "gpu-1", "gpu-2"]
    assert capsys.readouterr().err == ""


def test_a_renamed_instance_is_neither_made_again_nor_ended(
    run: Run, tenancy: Tenancy, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--yes") == 0
    tenancy.instances[0]["displayName"] = "other"

    assert run("--yes") == 1
    assert (
        "gpu-1 (ocid1.instance.oc1.iad.inst0001): is called other in OCI; give it its name back"
        in capsys.readouterr().err
    )
    assert run("--terminate", "--yes") == 0
    assert living(tenancy) == ["other", "gpu-2"]


def test_two_runs_at_once_that_make_a_host_twice_say_so(
    run: Run, tenancy: Tenancy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another run has found capacity in the other availability domain, after this one has looked."""
    real = new_instances.settled

    def settled(
        work: new_instances.Work, hosts: dict[str, new_instances.Coming]
    ) -> tuple[list[str], list[str]]:
        tenancy.add("gpu-1", freeformTags=dict(tenancy.instances[0]["freeformTags"]))
        return real(work, hosts)

    monkeypatch.setattr(provision, "settled", settled)

    assert run("--yes") == 1
    assert "terminate one of them" in capsys.readouterr().err


def test_lists_that_fail_meanwhile_do_not_end_the_wait(
    run: Run, tenancy: Tenancy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tenancy.machines.looks = 8
    answers = iter([False] * 6 + [True] * 2)
    real = new_instances.Work.seen

    def seen(work: new_instances.Work) -> list[Any]:
        if next(answers, False):
            raise PlanError("list", "HTTP 503", "an answer")
        return real(work)

    monkeypatch.setattr(new_instances.Work, "seen", seen)

    assert run("--yes") == 0

    assert "not known: list: found HTTP 503" in capsys.readouterr().out


def test_a_key_that_another_instance_had_is_replaced_later_too(
    run: Run, project: Path, tenancy: Tenancy
) -> None:
    tenancy.machines.captures = 10_000
    assert run("--yes") == 1
    old = f"10.0.0.11 {host_key('old')} ocid1.instance.oc1.iad.gone\n10.0.0.12 {host_key('x')}\n"
    (project / "known_hosts").write_text(old, encoding="utf-8")
    tenancy.machines.captures = 1

    assert run("--yes") == 0

    known = (project / "known_hosts").read_text(encoding="utf-8")
    assert host_key("gpu-1") in known and host_key("old") not in known
    # a person has put this one there
    assert host_key("x") in known


def test_a_host_that_was_started_again_keeps_its_known_key(
    run: Run, project: Path, tenancy: Tenancy, clock: Clock
) -> None:
    assert run("--yes") == 0
    before = (project / "known_hosts").read_text(encoding="utf-8")
    tenancy.instances[0]["lifecycleState"] = "STARTING"
    tenancy.machines.captures = 10_000
    began = clock.now

    def running(seconds: float) -> None:
        tenancy.instances[0]["lifecycleState"] = "RUNNING"
        clock.sleep(seconds)

    assert provision.main(["--yes"], sleep=running) == 0
    assert clock.now - began < 60
    assert (project / "known_hosts").read_text(encoding="utf-8") == before


def test_another_port_of_ssh_is_in_the_entry(run: Run, project: Path, tenancy: Tenancy) -> None:
    with (project / "inventories/group_data/all.py").open("a", encoding="utf-8") as file:
        file.write("ssh_port = 2222\n")

    assert run("--yes") == 0

    assert "[10.0.0.11]:2222 ssh-ed25519 " in (project / "known_hosts").read_text(encoding="utf-8")


@pytest.mark.parametrize("line", ["10.0.0.11,other", "10.0.0.*", "@revoked 10.0.0.11"])
def test_a_line_about_other_machines_too_is_left_to_a_person(
    run: Run, project: Path, tenancy: Tenancy, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    text = f"{line} {host_key('old')}\n"
    (project / "known_hosts").write_text(text, encoding="utf-8")

    assert run("--yes") == 1

    assert text in (project / "known_hosts").read_text(encoding="utf-8")
    assert "lines of one machine each" in capsys.readouterr().err


def test_a_later_run_goes_on_in_the_next_domain(project: Path, tenancy: Tenancy, clock: Clock) -> None:
    tenancy.machines.capacity_late[AD[0]] = 0
    tenancy.machines.looks = 4

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    assert provision.main(["--yes"], sleep=interrupt) == 130
    assert provision.main(["--yes"], sleep=clock.sleep) == 0
    found = [each["availabilityDomain"] for each in tenancy.instances if each["lifecycleState"] == "RUNNING"]
    assert found == [AD[1], AD[1]]


def test_a_program_that_is_missing_is_said(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    assert run("--yes") == 1

    assert "ssh-keygen: found no such program" in capsys.readouterr().err
