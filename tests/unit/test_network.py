"""The guard and firewalld's doors: what is rendered from settings, what is read of a host, and what differs."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from operations.facts.firewall import firewall as read_firewall
from operations.facts.firewall import guard_command
from operations.plan.difference import difference
from operations.plan.exposure import firewall, network
from operations.plan.observed.firewall import Firewall
from operations.plan.observed.observed import GuardRules, Observed
from operations.plan.release import Release
from operations.remote import host_files
from operations.scripts import host_script
from tests.unit.builders import DATA, DIGEST, FILES, UNIT, converged, release
from tests.unit.stubs import Stubs

CAPTURES = Path(__file__).parent / "captures"
REACHED: dict[str, Any] = {
    "bind_address": "10.0.0.11",
    "allowed_sources": ["10.0.0.0/16", "10.0.1.0/24", "192.168.0.7/32"],
}
FRONTED = {**REACHED, "front": "haproxy"}
BEHIND_GATEWAY: dict[str, Any] = {
    "gateway": {"certificate": "chain.pem", "private_key": "key.pem", "api_keys": "keys"},
    "image_digests": {**DATA["image_digests"], "library/nginx:1.30.7": DIGEST},
}


def rules(**data: Any) -> str:
    wanted = release(data)
    return host_files.rendered(wanted)[host_files.paths(wanted.settings).guard_rules].text


def chain(text: str, name: str) -> list[str]:
    """The rules of one chain, without comments."""
    body = text.split(f"chain {name} {{\n", 1)[1].split("\n    }", 1)[0]
    return [line.strip() for line in body.splitlines() if not line.strip().startswith("#")]


ANSWERS = ["ct direction reply ct state established accept", "ct state related accept"]


def test_loopback_server_is_isolated_in_both_directions() -> None:
    text = rules()
    assert chain(text, "from_server") == [*ANSWERS, "ip daddr 169.254.0.0/16 counter drop", "counter drop"]
    assert chain(text, "to_server") == [*ANSWERS, "counter drop"]
    assert chain(text, "to_host") == [*ANSWERS, "counter drop"]
    assert "published" not in text


def test_published_ports_accept_only_declared_sources() -> None:
    text = rules(**REACHED)
    assert chain(text, "to_server")[2:] == [
        "ct original ip daddr 127.0.0.0/8 counter drop",
        "ct status dnat ip saddr { 10.0.0.0/16, 192.168.0.7/32 } accept",
        "counter drop",
    ]
    assert chain(text, "published") == [
        'iifname "lo" accept',
        "ip saddr { 10.0.0.0/16, 192.168.0.7/32 } accept",
        "counter drop",
    ]


def test_guard_behind_a_proxy_still_admits_a_server_without_one() -> None:
    text = rules(**FRONTED)
    # servers behind a front are published on the loopback, which nobody is forwarded from
    assert chain(text, "to_server")[2:] == chain(rules(**REACHED), "to_server")[2:]
    assert "tcp dport { 8000, 8001, 8002 } jump published" in text
    assert chain(rules(allowed_sources=["10.0.0.0/16"]), "to_server") == [*ANSWERS, "counter drop"]


def test_guard_closes_ports_past_a_leading_gateway() -> None:
    data = {**REACHED, **BEHIND_GATEWAY}
    text = rules(**data)
    assert network.LED in text.splitlines()
    assert chain(text, "to_server") == [*ANSWERS, "counter drop"]
    assert "tcp dport { 8000, 8001, 8002, 8443 } jump published" in text
    assert chain(text, "published") == [
        'iifname "lo" accept',
        "tcp dport { 8000, 8001, 8002 } counter drop",
        "ip saddr { 10.0.0.0/16, 192.168.0.7/32 } accept",
        "counter drop",
    ]
    # while the running release may be from before the gateway
    before = host_files.guard_rules(replace(release(data).guard, closed=()))
    assert network.LED not in before
    assert chain(before, "to_server") == chain(rules(**REACHED), "to_server")
    assert chain(before, "published") == chain(rules(**REACHED), "published")
    assert network.LED not in rules(**REACHED) + rules(**FRONTED)


def test_egress_rules_follow_the_metadata_service_block() -> None:
    lines = chain(rules(egress=["0.0.0.0/0"]), "from_server")
    assert lines[2:] == [
        "ip daddr 169.254.0.0/16 counter drop",
        "ip daddr { 0.0.0.0/0 } accept",
        "counter drop",
    ]
    assert "--dns" not in release({"egress": ["10.9.0.0/24"]}).files["serve"]
    assert "--dns" in release().files["serve"]


def test_rules_replace_only_their_own_table_in_one_transaction() -> None:
    text = rules(service_name="my-llm")
    named = [line for line in text.splitlines() if "table" in line and not line.startswith("#")]
    assert named == [
        "table inet tritonhost_my_llm",
        "delete table inet tritonhost_my_llm",
        "table inet tritonhost_my_llm {",
    ]
    assert "flush" not in text


@pytest.mark.parametrize("service", ["triton", "a", "a-service-14chr", "a" * 32, "triton-inference-server"])
def test_bridge_name_fits_the_kernel_s_limit(service: str) -> None:
    assert 0 < len(network.bridge(service)) <= 15
    assert network.bridge(service) != network.bridge(service[:-1] + "z")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize(
    "data",
    [
        {},
        REACHED,
        FRONTED,
        {**REACHED, **BEHIND_GATEWAY},
        {**BEHIND_GATEWAY, "service_name": "a-service-of-a-long-name"},
        {"egress": ["0.0.0.0/0"]},
        {"egress": ["10.0.0.0/8", "10.1.0.0/16"], "service_name": "my-llm"},
        {"bind_address": "0.0.0.0", "expose": True, "allowed_sources": ["0.0.0.0/0", "10.0.0.0/8"]},
    ],
    ids=str,
)
def test_nft_accepts_rules_twice_and_record_detects_changes(data: dict[str, Any], tmp_path: Path) -> None:
    assert shutil.which("nft"), "install nftables: tests/lab/lab packages --check --install"
    wanted = release(data)
    service = wanted.settings.service_name
    (tmp_path / "rules").write_text(rules(**data), encoding="utf-8")
    record, table = str(tmp_path / "record"), network.table(service)
    look = guard_command(service).replace(network.record(service), record)
    remember = f"{{ sha256sum <{tmp_path}/rules; nft --stateless list table inet {table}; }} | cat >{record}"
    script = (
        f"set -e; nft -f {tmp_path}/rules; nft -f {tmp_path}/rules; {remember}; {look}; "
        f"nft add rule inet {table} from_server accept; {look}; nft delete table inet {table}; {look}"
    )
    done = subprocess.run(["unshare", "--net", "sh", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    digest = host_files.digest(rules(**data))
    assert done.stdout.split() == [digest, "changed", "changed"]


def test_rules_never_loaded_have_no_digest(stubs: Stubs) -> None:
    stubs.add("nft", "exit 1")
    done = stubs.run(guard_command("no-such-service"))
    assert (done.stdout, done.stderr) == ("", "")


# --- what differs


WANTED = release(FRONTED)
HOST = replace(converged(WANTED), units={**converged(WANTED).units, "triton-front.service": UNIT})


def rows(wanted: Release, observed: Observed) -> list[tuple[str, str, str]]:
    return [(row.what, row.found, row.wanted) for row in difference(wanted, observed, FILES)]


@pytest.mark.parametrize(
    ("guard", "found"),
    [
        (GuardRules(), "absent"),
        (GuardRules(changed=True), "changed since it was loaded"),
        (GuardRules("9" * 64), "sha256 999999999999"),
    ],
)
def test_unloaded_rules_are_a_difference(guard: GuardRules, found: str) -> None:
    wanted = release()
    assert rows(wanted, replace(converged(wanted), guard=guard)) == [
        ("nftables table tritonhost_triton", found, "/etc/triton-guard.nft, loaded")
    ]


def test_container_on_another_network_is_a_difference() -> None:
    wanted = release()
    host = converged(wanted)
    assert host.container is not None
    both = replace(host, container=replace(host.container, networks=frozenset({"bridge", "triton-network"})))
    assert rows(wanted, both) == [("networks", "bridge, triton-network", "triton-network alone")]
    none = replace(host, container=replace(host.container, networks=frozenset()))
    assert rows(wanted, none) == [("networks", "none", "triton-network alone")]


# --- firewalld


MARK = firewall.mark("triton")
RULE = f'rule {MARK} family="ipv4" source address="10.0.0.0/16" port port="8000" protocol="tcp" accept'
FOREIGN = 'rule family="ipv4" source address="10.0.0.0/8" service name="ssh" accept'


def test_only_a_proxy_on_the_network_needs_firewalld() -> None:
    for data in ({}, REACHED, {"front": "haproxy"}):
        wanted = release(data)
        assert firewall.rules(wanted.settings, wanted.ports) == []
    assert len(firewall.rules(WANTED.settings, WANTED.ports)) == 6
    assert RULE in firewall.rules(WANTED.settings, WANTED.ports)


@pytest.mark.parametrize(
    ("address", "zones"),
    [
        ("10.0.0.11", {"internal"}),
        ("10.0.0.12", {"public"}),
        ("10.7.7.7", {"public"}),
        ("0.0.0.0", {"public", "internal"}),
    ],
)
def test_rules_go_into_the_zone_of_the_address(address: str, zones: set[str]) -> None:
    wanted = release({**FRONTED, "bind_address": address, "expose": True})
    host = Firewall(True, "public", {"10.0.0.11": "internal", "10.0.0.12": "public", "172.17.0.1": "docker"})
    found = firewall.wanted(wanted.settings, wanted.ports, host)
    assert {zone for _, zone, _ in found} == zones
    assert {scope for scope, _, _ in found} == {"runtime", "permanent"}


def test_stopped_firewalld_needs_no_rules() -> None:
    assert rows(WANTED, replace(HOST, firewall=Firewall())) == []


def test_only_our_missing_or_old_rules_are_differences() -> None:
    outdated = RULE.replace("10.0.0.0/16", "10.3.0.0/16")
    complete = firewall.wanted(WANTED.settings, WANTED.ports, Firewall(True, "public"))
    others = {("runtime", "public", FOREIGN), ("permanent", "public", FOREIGN)}
    seen = Firewall(True, "public", {}, frozenset({*complete, *others}))
    assert rows(WANTED, replace(HOST, firewall=seen)) == []
    changed = (seen.rules - {("runtime", "public", RULE)}) | {("permanent", "public", outdated)}
    assert rows(WANTED, replace(HOST, firewall=replace(seen, rules=frozenset(changed)))) == [
        ("firewalld, runtime, public", "absent", RULE),
        ("firewalld, permanent, public", outdated, "absent"),
    ]
    # the front is gone from the inventory, and its doors are still open
    without = release()
    left = replace(converged(without), firewall=Firewall(True, "public", {}, frozenset(complete)))
    assert len(rows(without, left)) == len(complete)


def test_firewalld_output_is_parsed() -> None:
    found = read_firewall((CAPTURES / "firewalld.txt").read_text("utf-8").splitlines())
    assert found.running
    assert found.default == "public"
    assert found.zones == {"10.98.60.11": "public", "172.17.0.1": "docker", "172.18.0.1": "docker"}
    ours = RULE.replace("10.0.0.0/16", "10.98.60.1/32").replace("8000", "8443")
    assert {(scope, "public", rule) for scope in firewall.SCOPES for rule in (ours, FOREIGN)} <= found.rules
    assert len(found.rules) == 8
    assert read_firewall([]) == Firewall()
    assert read_firewall(["\x1frunning"]) == Firewall(True)


# its unit is active while it starts, or while dbus is away: https://github.com/firewalld/firewalld/issues/655
def test_firewalld_that_does_not_answer_has_no_rules() -> None:
    parts = [f"\x1f{name}" for name in ("default", "active", "runtime", "permanent")]
    assert read_firewall(["\x1frunning", *parts]) == Firewall()
    # zones that did not answer any more
    default, active = ["\x1fdefault", 's "public"'], ["\x1factive", "a{sa{sas}} 0"]
    whole = ["\x1frunning", *default, *active, "\x1fruntime", "public\tas 0", "\x1fpermanent"]
    assert read_firewall(whole) == Firewall(True, "public")
    for cut in (
        [*default, "\x1factive", "\x1fruntime", "public\tas 0"],
        [*default, *active, "\x1fruntime", "public\t"],
        [*default, *active, "\x1fruntime", "public\tas 0", "\x1fpermanent", "public\t"],
    ):
        assert read_firewall(["\x1frunning", *cut]) == Firewall(), cut


@pytest.mark.parametrize(
    ("answer", "zone"),
    [
        ('a{sa{sas}} 1 "public" 1 "interfaces" 1 "eth0"', "public"),
        (
            'a{sa{sas}} 2 "work" 1 "sources" 1 "eth0" "home" 2 "sources" 0 "interfaces" 2 "eth1" "eth0"',
            "home",
        ),
        ("a{sa{sas}} 0", "trusted"),
        ('a{sa{sas}} 1 "public" 1 "interfaces" 2 "eth1"', "trusted"),
    ],
)
def test_interface_without_a_zone_is_in_the_default_one(answer: str, zone: str) -> None:
    address = ["\x1faddresses", "2: eth0    inet 10.0.0.5/24 brd 10.0.0.255 scope global eth0"]
    output = ["\x1frunning", "\x1fdefault", 's "trusted"', *address, "\x1factive", answer]
    assert read_firewall(output) == Firewall(True, "trusted", {"10.0.0.5": zone})


# --- the scripts


def load(stubs: Stubs, tmp_path: Path, active: bool) -> Any:
    stubs.add("systemctl", f'[ "$1" != is-active ] || exit {0 if active else 3}')
    script = host_script(
        "load_guard.sh", {"FILE": str(tmp_path / "guard.nft"), "UNIT": "triton-guard.service"}
    )
    return stubs.run(script, stdin="rules\n")


def test_rules_are_checked_and_a_running_guard_is_reloaded(stubs: Stubs, tmp_path: Path) -> None:
    stubs.add("nft", "exit 0")
    assert load(stubs, tmp_path, active=True).returncode == 0
    assert (tmp_path / "guard.nft").read_text("utf-8") == "rules\n"
    # never restarted: the server requires it
    assert stubs.calls == [
        f"nft --check --file {tmp_path}/.guard.nft.new",
        "systemctl enable --quiet triton-guard.service",
        "systemctl is-active --quiet triton-guard.service",
        "systemctl reload triton-guard.service",
    ]


def test_stopped_guard_is_started(stubs: Stubs, tmp_path: Path) -> None:
    stubs.add("nft", "exit 0")
    assert load(stubs, tmp_path, active=False).returncode == 0
    assert stubs.calls[-1] == "systemctl start triton-guard.service"


@pytest.mark.parametrize("active", [True, False])
def test_rules_that_fail_to_load_restore_the_old_file(stubs: Stubs, tmp_path: Path, active: bool) -> None:
    rules = tmp_path / "guard.nft"
    rules.write_text("old\n", encoding="utf-8")
    stubs.add("nft", "exit 0")
    stubs.add(
        "systemctl",
        f'case $1 in is-active) exit {0 if active else 3} ;; reload | start) echo "Job failed." >&2; exit 1 ;; esac',
    )
    script = host_script("load_guard.sh", {"FILE": str(rules), "UNIT": "triton-guard.service"})
    done = stubs.run(script, stdin="rules\n")
    assert done.returncode == 1
    assert done.stderr == (
        f"guard: {rules}: found Job failed., expected triton-guard.service to load it; the file before it is back; see "
        "journalctl --unit triton-guard.service\n"
    )
    assert rules.read_text("utf-8") == "old\n"
    assert [path.name for path in tmp_path.glob(".guard*")] == []


RULES = (
    "# Written by tritonhost\ntable inet x\ndelete table inet x\ntable inet x {\n    chain y {\n    }\n}\n"
)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("lines", range(7))
def test_load_guard_refuses_truncated_rules(stubs: Stubs, tmp_path: Path, lines: int, known: bool) -> None:
    (tmp_path / "guard.nft").write_text("old\n", encoding="utf-8")
    stubs.add("nft", "exit 0")
    stubs.add("systemctl", "exit 0")
    variables = {"FILE": str(tmp_path / "guard.nft"), "UNIT": "triton-guard.service"}
    if known:
        variables["SHA256"] = hashlib.sha256(RULES.encode()).hexdigest()
    script = host_script("load_guard.sh", variables)
    done = stubs.run(script, stdin="".join(RULES.splitlines(True)[:lines]))
    assert done.returncode == 1
    assert "found another text than was sent" in done.stderr
    assert (tmp_path / "guard.nft").read_text("utf-8") == "old\n"
    assert stubs.calls == []
    assert stubs.run(script, stdin=RULES).returncode == 0
    assert (tmp_path / "guard.nft").read_text("utf-8") == RULES


@pytest.mark.parametrize("code", [0, 1])
def test_guard_unit_records_only_loaded_rules(stubs: Stubs, tmp_path: Path, code: int) -> None:
    wanted = release()
    unit = host_files.rendered(wanted)["/etc/systemd/system/triton-guard.service"].text
    assert unit.count("=/usr/sbin/nft list table inet tritonhost_triton\n") == 2
    remember = next(line for line in unit.splitlines() if "sh -c" in line).partition("sh -c '")[2][:-1]
    remember = remember.replace("/etc/triton-guard.nft", "/dev/null").replace("/run/", f"{tmp_path}/")
    stubs.add("nft", f"exit {code}")
    assert stubs.run(remember).returncode == code
    assert (tmp_path / "triton-guard").exists() is (code == 0)


def test_guard_drops_traffic_to_the_loopback() -> None:
    data = {"bind_address": "10.0.0.11", "allowed_sources": ["10.0.0.0/16"]}
    chain = host_files.rendered(release(data))["/etc/triton-guard.nft"].text.split("chain to_server {")[1]
    assert chain.index("ct original ip daddr 127.0.0.0/8 counter drop") < chain.index("ct status dnat")


def test_rules_refused_by_nft_are_never_installed(stubs: Stubs, tmp_path: Path) -> None:
    (tmp_path / "guard.nft").write_text("old\n", encoding="utf-8")
    stubs.add("nft", "echo 'guard.nft:3:5-9: Error: syntax error' >&2; echo more >&2; exit 1")
    done = load(stubs, tmp_path, active=True)
    assert done.returncode == 1
    assert done.stderr == (
        f"guard: {tmp_path}/guard.nft: found guard.nft:3:5-9: Error: syntax error, expected rules that nft accepts; "
        "update nftables, or correct allowed_sources and egress, and run again; what was loaded was left as it is\n"
    )
    assert (tmp_path / "guard.nft").read_text("utf-8") == "old\n"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert not [call for call in stubs.calls if call.startswith("systemctl")]


@pytest.mark.parametrize(
    ("ask", "zone", "asked"),
    [
        ("yes", "", True),
        ("", "", False),
        ("", '<rule priority="-1">', True),
        ("", "<rule\n priority = '-1'>", True),
    ],
)
def test_firewalld_is_queried_only_for_wanted_or_leftover_rules(
    stubs: Stubs, tmp_path: Path, ask: str, zone: str, asked: bool
) -> None:
    for name in ("systemctl", "ip"):
        stubs.add(name, "exit 0")
    at = "/org/fedoraproject/FirewallD1/config/zone/7"
    stubs.add(
        "busctl",
        'case "$4 $5 $6" in\n'
        "*'.FirewallD1 getDefaultZone ') echo 's \"public\"' ;;\n"
        "*'.zone getActiveZones ') echo 'a{sa{sas}} 0' ;;\n"
        "*'.zone getZones ') echo 'as 2 \"public\" \"work\"' ;;\n"
        "*'.FirewallD1.zone getRichRules s') echo 'as 0' ;;\n"
        f"*'.config getZoneByName s') echo 'o \"{at}\"' ;;\n"
        f"*'.config.zone getRichRules ') [ \"$3\" = {at} ] && echo 'as 1 \"rule family\"' ;;\n"
        "esac",
    )
    (tmp_path / "public.xml").write_text(zone, encoding="utf-8")
    script = host_script("firewall_state.sh", {"MARK": 'priority="-1"', "ASK": ask})
    done = stubs.run(script.replace("/etc/firewalld/zones", str(tmp_path)))
    assert done.stdout.startswith("\x1frunning\n") and done.stderr == ""
    assert any("getRichRules s work" in call for call in stubs.calls) is asked
    found = read_firewall(done.stdout.splitlines())
    assert found.rules == ({("permanent", "public", "rule family")} if zone else frozenset())
