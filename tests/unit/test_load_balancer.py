"""A load balancer: its settings, its members, what differs, and the files that haproxy reads."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from operations.intake import load_balancer_secrets
from operations.plan.artifacts.keys import digest
from operations.plan.balancing import load_balancer as plan
from operations.plan.balancing.canary import Figures, decide, figures
from operations.plan.balancing.load_balancer import LoadBalancerPlan, Secrets
from operations.plan.balancing.load_balancer_difference import difference, record_of
from operations.plan.balancing.members import Member, Serving, members
from operations.plan.difference_rows import Difference
from operations.plan.drain import interrupts
from operations.plan.errors import PlanError
from operations.plan.inventory.hosts import with_services
from operations.plan.inventory.rollout_settings import RolloutSettings
from operations.plan.inventory.settings import Settings, from_host_data
from operations.plan.observed.observed import GuardRules, Observed, SELinux
from operations.remote import load_balancer_files
from operations.scripts import host_script
from tests.unit.builders import DATA
from tests.unit.certificates import pair
from tests.unit.stubs import Stubs

TABLE: dict[str, Any] = {
    "certificate": "front.crt",
    "private_key": "front.key",
    "gateway_ca": "root.crt",
    "bind": "10.0.1.5",
    "sources": ["10.0.0.0/16"],
}
SECRETS = Secrets("certificate and key", b"der", "root")


def settings(table: dict[str, Any] | None = None, **changed: Any) -> Settings:
    data = {**DATA, "load_balancer": {**TABLE, **(table or {})}, **changed}
    return from_host_data(data, "front-1")


def serving(name: str = "gpu-1", model: str = "llama-2-7b", **changed: Any) -> Serving:
    data = {
        **DATA,
        "model": model,
        "bind_address": "10.0.0.1",
        "allowed_sources": ["10.0.1.5/32"],
        "gateway": {"certificate": "a", "private_key": "b", "api_keys": "c", "proxies": ["10.0.1.5/32"]},
        **changed,
    }
    return Serving(name, from_host_data(data, name), "192.0.2.1")


def planned(table: dict[str, Any] | None = None, selinux: bool = False) -> LoadBalancerPlan:
    found = settings(table)
    assert found.load_balancer
    return plan.planned(found, "9", selinux, members(found.load_balancer, [serving()]), SECRETS)


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ({"bind": "0.0.0.0"}, "the host's own private address"),
        ({"bind": "127.0.0.1"}, "the host's own private address"),
        ({"bind": "8.8.8.8"}, "without expose=True"),
        ({"sources": []}, "who may reach 10.0.1.5"),
        ({"sources": ["0.0.0.0/0"]}, "without expose=True"),
        ({"metrics_port": 443}, "root alone may listen on"),
        ({"port": 8405}, "another port than the clients'"),
        ({"gateway_name": "https://x"}, "a DNS name without a port"),
        ({"private_key": "-----BEGIN X-----"}, "the path of a file of this machine"),
        ({"certificat": "a"}, "unknown key"),
    ],
    ids=str,
)
def test_invalid_load_balancer_is_refused(table: dict[str, Any], found: str) -> None:
    with pytest.raises(PlanError) as error:
        settings(table)
    assert found in str(error.value) and str(error.value).startswith("front-1: load_balancer")
    assert "BEGIN" not in str(error.value)


def test_members_are_the_hosts_of_its_model() -> None:
    own = settings({"model": "gpt2-medium"}).load_balancer
    assert own
    hosts = [serving(), serving("gpu-2/gpt", "gpt2-medium"), serving("gpu-3", "gpt2-medium")]
    assert members(own, hosts) == (
        Member("gpu-2:gpt", "10.0.0.1", 8443),
        Member("gpu-3", "10.0.0.1", 8443),
    )


@pytest.mark.parametrize(
    ("hosts", "found"),
    [
        ([serving(), serving("gpu-2", "gpt2-medium")], "nothing, and hosts of 2 models"),
        ([], "a host that serves"),
        ([serving(gateway=None)], "nothing at gpu-1"),
        ([serving(bind_address="127.0.0.1")], "127.0.0.1 at gpu-1"),
        ([serving(allowed_sources=["10.0.9.0/24"])], "allowed_sources: found no 10.0.1.5 at gpu-1"),
        (
            [serving(gateway={"certificate": "a", "private_key": "b", "api_keys": "c"})],
            "gateway.proxies: found no 10.0.1.5 at gpu-1",
        ),
    ],
)
def test_host_that_cannot_be_reached_is_refused(hosts: list[Serving], found: str) -> None:
    own = settings().load_balancer
    assert own
    with pytest.raises(PlanError, match=found):
        members(own, hosts)


def test_haproxy_of_oracle_linux_8_is_refused() -> None:
    with pytest.raises(PlanError, match="Oracle Linux 9 or newer"):
        plan.planned(settings(), "8", False, (), SECRETS)


def test_configuration_has_every_member_in_both_backends() -> None:
    text = load_balancer_files.read(planned({"gateway_name": "llm.example"}))[plan.CONFIGURATION]
    assert "    server gpu-1 10.0.0.1:8443\n" in text
    assert "    server gpu-1 10.0.0.1:8443 track http/gpu-1\n" in text
    assert text.count("verify required") == 2 and text.count("verifyhost llm.example") == 2
    # a host that leaves would be used by use-server
    assert "http-check disable-on-404" not in text
    assert "bind 10.0.1.5:443 ssl" in text
    assert "bind 127.0.0.1:8405" in text
    assert (
        "frontend metrics" not in load_balancer_files.read(planned({"metrics_port": 0}))[plan.CONFIGURATION]
    )


def test_only_declared_networks_reach_it() -> None:
    wanted = planned({"metrics_sources": ["10.0.9.0/24"]})
    rules = load_balancer_files.files(wanted)[wanted.guard.rules_path].text
    assert "tcp dport { 443 } jump published" in rules
    assert "ip saddr { 10.0.0.0/16 } accept" in rules
    assert "tcp dport { 8405 } jump watched" in rules
    assert "ip saddr { 10.0.9.0/24 } accept" in rules


def seen(wanted: LoadBalancerPlan, **changed: Any) -> Observed:
    files = {file.path: digest(file.text) for file in load_balancer_files.files(wanted).values()}
    read = load_balancer_files.read(wanted)
    own = {f"{plan.DIRECTORY}/{name}": digest(text) for name, text in read.items()}
    unit = {"ActiveState": "active", "UnitFileState": "enabled"}
    found: dict[str, Any] = {
        "packages": {name: ("1-1",) for name in wanted.packages},
        "file_digests": {**files, **own, plan.RECORD: digest(record_of(read))},
        "units": {"load-balancer.service": unit, wanted.guard.unit: unit},
        "guard": GuardRules(files[wanted.guard.rules_path], False),
    }
    return Observed(**{**found, **changed})


def rows(wanted: LoadBalancerPlan, observed: Observed) -> list[tuple[str, str]]:
    files, read = load_balancer_files.expected(wanted), load_balancer_files.read(wanted)
    return [(row.what, row.found) for row in difference(wanted, observed, files, read)]


def test_matching_load_balancer_is_not_a_difference() -> None:
    wanted = planned()
    assert rows(wanted, seen(wanted)) == []
    # podman may be there: nothing of docker is
    assert rows(wanted, seen(wanted, packages={**seen(wanted).packages, "podman": ("5",)})) == []


def test_changed_certificate_is_a_difference_without_its_text() -> None:
    wanted = planned()
    changed = plan.planned(
        wanted.settings, "9", False, wanted.members, Secrets("another secret", b"der", "root")
    )
    found = rows(changed, seen(wanted))
    assert found == [
        ("/etc/load-balancer/clients.pem", "another content"),
        ("haproxy", "has not read its files"),
    ]
    assert "another secret" not in repr(changed)


def test_selinux_boolean_that_is_off_is_a_difference() -> None:
    wanted = planned(selinux=True)
    observed = seen(wanted, selinux=SELinux(booleans={"haproxy_connect_any": False}))
    assert rows(wanted, observed) == [("haproxy_connect_any", "off")]


def test_hosts_without_a_model_are_groups(tmp_path: Path) -> None:
    hosts, groups = with_services([("gpu-1", {}), ("front-1", {"load_balancer": TABLE})], "oci", tmp_path)
    assert groups == {"front": ["front-1"]}
    assert [name for name, _ in hosts] == ["gpu-1", "front-1"]


def test_files_of_a_load_balancer_are_checked(tmp_path: Path) -> None:
    made, other = pair("front.example"), pair()
    for name, content in (("crt", made.pem), ("key", made.key_pem()), ("root", other.pem)):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    table = {"certificate": "crt", "private_key": "key", "gateway_ca": "root"}
    paths = {key: str(tmp_path / name) for key, name in table.items()}
    own = settings(paths).load_balancer
    assert own
    found = load_balancer_secrets.load(own, "front-1")
    assert found.gateway_ca == other.pem.decode()
    assert "PRIVATE KEY" in found.tls and "PRIVATE KEY" not in repr(found)
    wrong = settings({**paths, "gateway_ca": str(tmp_path / "key")}).load_balancer
    assert wrong
    with pytest.raises(PlanError, match="a private key"):
        load_balancer_secrets.load(wrong, "front-1")


# A host leaves its load balancers


@pytest.mark.parametrize(
    ("stage", "what", "found", "beside", "expected"),
    [
        ("service", "running release", "a", False, True),
        ("service", "running release", "a", True, False),
        ("release", "current", "a", True, False),
        ("packages", "docker-ce", "1", True, True),
        ("container runtime", "daemon.json", "a", True, True),
        ("gateway", "container triton-gateway", "of other options", True, True),
        ("gateway", "container triton-gateway", "not what its files say", False, False),
        ("gateway", "/x/keys.map", "another content", False, False),
        ("gateway", "release for load balancers", "another release", False, False),
        ("engine", "0123", "absent", False, False),
        ("monitoring", "x", "absent", False, False),
    ],
)
def test_only_what_clients_notice_interrupts(
    stage: str, what: str, found: str, beside: bool, expected: bool
) -> None:
    assert interrupts([Difference(stage, what, found, "b")], beside) is expected


@pytest.fixture
def host_with_a_release(tmp_path: Path, stubs: Stubs) -> dict[str, str]:
    (tmp_path / "verdicts").mkdir()
    (tmp_path / "gateway").mkdir()
    (tmp_path / "current").symlink_to("releases/abc")
    stubs.add("curl", "printf 200")
    return {
        "LEAVE": "",
        "CANARY": "",
        "FILE": str(tmp_path / "gateway" / "released"),
        "UNDECIDED": str(tmp_path / "gateway" / "undecided"),
        "STATE_ROOT": str(tmp_path),
        "DATA_ROOT": str(tmp_path),
        "URL": "http://127.0.0.1:8000/v2/health/ready",
    }


def test_only_a_proven_release_is_released(
    host_with_a_release: dict[str, str], stubs: Stubs, tmp_path: Path
) -> None:
    file = Path(host_with_a_release["FILE"])
    done = stubs.run(host_script("released.sh", host_with_a_release))
    assert done.returncode == 1 and "release abc not proven" in done.stderr
    (tmp_path / "verdicts" / "abc").write_text("proven 2026-12-01T00:00:00Z\n")
    done = stubs.run(host_script("released.sh", host_with_a_release))
    assert (done.returncode, file.read_text()) == (0, "abc\n")
    stubs.add("curl", "printf 503")
    done = stubs.run(host_script("released.sh", host_with_a_release))
    assert done.returncode == 1 and not file.exists()


def test_undecided_release_is_a_canary_or_nothing(
    host_with_a_release: dict[str, str], stubs: Stubs, tmp_path: Path
) -> None:
    (tmp_path / "verdicts" / "abc").write_text("proven 2026-12-01T00:00:00Z\n")
    Path(host_with_a_release["UNDECIDED"]).write_text("abc\n")
    done = stubs.run(host_script("released.sh", host_with_a_release))
    assert done.returncode == 1 and "release abc undecided" in done.stderr
    done = stubs.run(host_script("released.sh", {**host_with_a_release, "CANARY": " canary"}))
    assert (done.returncode, Path(host_with_a_release["FILE"]).read_text()) == (0, "abc canary\n")
    # of another release: the one from before was put back
    Path(host_with_a_release["UNDECIDED"]).write_text("def\n")
    assert stubs.run(host_script("released.sh", host_with_a_release)).returncode == 0


def test_host_says_whether_it_has_left(host_with_a_release: dict[str, str], stubs: Stubs) -> None:
    leave = host_script("released.sh", {**host_with_a_release, "LEAVE": "yes"})
    assert stubs.run(leave).stdout == ""
    Path(host_with_a_release["FILE"]).write_text("abc\n")
    assert stubs.run(leave).stdout == "left: yes\n"
    assert not Path(host_with_a_release["FILE"]).exists()


# A canary


RULES = RolloutSettings.model_validate({"canary": "5 %", "minutes": 10})


@pytest.mark.parametrize(("text", "share"), [("5 %", 500), ("0.01%", 1), ("50 %", 5000)])
def test_share_is_read_in_per_cent(text: str, share: int) -> None:
    assert RolloutSettings.model_validate({"canary": text}).canary == share


@pytest.mark.parametrize("text", ["5", 5, "0 %", "51 %", "5.123 %", "-1 %"])
def test_share_that_cannot_be_meant_is_refused(text: object) -> None:
    with pytest.raises(PlanError, match="a share of all requests"):
        from_host_data({**DATA, "rollout": {"canary": text}}, "gpu-1")


def test_figures_leave_out_what_clients_have_ended() -> None:
    lines = [
        "h1 200 100 --",
        "h1 500 90 --",
        "h1 200 300 CD",
        "h1 200 120 SD",
        "h2 200 50 --",
        "<NOSRV> 503 -1 SC",
    ]
    own, others = figures(lines, "h1")
    assert (own.requests, own.errors, own.first_ms) == (3, 2, 100)
    assert (others.requests, others.errors, others.first_ms) == (1, 0, 50)
    with pytest.raises(PlanError, match="how a request ended"):
        figures(["h1 200"], "h1")


@pytest.mark.parametrize(
    ("own", "others", "over", "wrong", "expected"),
    [
        (Figures(100, 0, 200), Figures(1900, 0, 200), False, "", "wait"),
        (Figures(100, 0, 200), Figures(1900, 0, 200), True, "", "go on"),
        (Figures(100, 0, 200), Figures(1900, 0, 200), False, "wrong", "put back"),
        # one failure in a hundred may be chance, six in six hundred are not
        (Figures(100, 1, 200), Figures(1900, 0, 200), True, "", "go on"),
        (Figures(600, 6, 200), Figures(11400, 0, 200), False, "", "put back"),
        # two of two are too few to say
        (Figures(2, 2, 200), Figures(1900, 0, 200), False, "", "wait"),
        # the others fail as often
        (Figures(600, 6, 200), Figures(11400, 114, 200), True, "", "go on"),
        (Figures(49, 0, 200), Figures(1900, 0, 200), True, "", "hold"),
        (Figures(100, 0, 301), Figures(1900, 0, 200), True, "", "put back"),
        (Figures(100, 0, 301), Figures(1900, 0, 200), False, "", "wait"),
        # 40 ms are nothing
        (Figures(100, 0, 50), Figures(1900, 0, 10), True, "", "go on"),
        (Figures(100, 100, 0), Figures(1900, 0, 200), False, "", "put back"),
        # every host fails
        (Figures(100, 100, 0), Figures(1900, 1900, 0), True, "", "go on"),
    ],
)
def test_requests_decide(own: Figures, others: Figures, over: bool, wrong: str, expected: str) -> None:
    assert decide(own, others, RULES, over, wrong).what == expected


def test_lines_of_haproxy_are_read_from_its_journal(stubs: Stubs) -> None:
    line = "request client=10.0.0.7 host=gpu-1:llama status=200 first_ms=212 whole_ms=900 bytes=1200 end=--"
    stubs.add("journalctl", f"echo '{line}'; echo '[NOTICE] (12) : New worker (14) forked'")
    done = stubs.run(host_script("canary_seen.sh", {"UNIT": "load-balancer.service", "SINCE": "1"}))
    assert done.stdout == "gpu-1:llama 200 212 --\n"


def test_script_reads_the_members_of_haproxy_s_table(tmp_path: Path, stubs: Stubs) -> None:
    table = (
        "# pxname,svname,qcur,status,weight,last_chk,\n"
        "clients,FRONTEND,,OPEN,,,\n"
        'http,gpu-1:llama,0,UP 1/2,200,"Layer7, check",\n'
        "http,gpu-2,0,DOWN,0,,\n"
        "http,BACKEND,0,UP,200,,\n"
        "grpc,gpu-1:llama,0,UP,200,,\n\n"
    )
    path = tmp_path / "haproxy.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def answers() -> None:
            accepted, _ = listening.accept()
            with accepted:
                asked.append(accepted.recv(100))
                accepted.sendall(table.encode())

        asked: list[bytes] = []
        thread = threading.Thread(target=answers)
        thread.start()
        done = stubs.run(host_script("members.sh", {"SOCKET": str(path)}))
        thread.join()
    assert asked == [b"show stat\n"]
    assert (done.returncode, done.stdout) == (0, "gpu-1:llama UP 200\ngpu-2 DOWN 0\n")
    absent = stubs.run(host_script("members.sh", {"SOCKET": str(tmp_path / "none")}))
    assert (absent.returncode, absent.stdout) == (0, "")
    # nobody listens any more
    assert stubs.run(host_script("members.sh", {"SOCKET": str(path)})).returncode == 1
