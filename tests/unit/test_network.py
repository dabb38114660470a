"""The guard and firewalld's doors: what is rendered from settings, what is read of a host, and what differs."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from operations import host_files
from operations.facts.firewall import firewall as read_firewall
from operations.facts.firewall import guard_command
from operations.plan import firewall, network
from operations.plan.difference import difference
from operations.plan.firewall import Firewall
from operations.plan.observed import Observed
from operations.plan.release import Release
from operations.scripts import host_script
from tests.unit.builders import DATA, DIGEST, FILE_DIGESTS, UNIT, converged, release
from tests.unit.stubs import Stubs

CAPTURES = Path(__file__).parent / "captures"
REACHED = {"bind_address": "10.0.0.11", "allowed_sources": ["10.0.0.0/16", "10.0.1.0/24", "192.168.0.7/32"]}
FRONTED = {**REACHED, "front": "haproxy"}
BEHIND_GATEWAY: dict[str, Any] = {
    "gateway": {"certificate": "chain.pem", "private_key": "key.pem", "api_keys": "keys"},
    "image_digests": {**DATA["image_digests"], "library/nginx:1.30.7": DIGEST},
}


def rules(**data: Any) -> str:
    wanted = release(data)
    return host_files.rendered(wanted)[host_files.guard_path(wanted.settings)]


def chain(text: str, name: str) -> list[str]:
    """The rules of one chain, without comments."""
    body = text.split(f"chain {name} {{\n", 1)[1].split("\n    }", 1)[0]
    return [line.strip() for line in body.splitlines() if not line.strip().startswith("#")]


ANSWERS = ["ct direction reply ct state established accept", "ct state related accept"]


def test_a_server_on_loopback_is_reached_by_nobody_and_reaches_nobody() -> None:
    text = rules()
    assert chain(text, "from_server") == [*ANSWERS, "ip daddr 169.254.0.0/16 counter drop", "counter drop"]
    assert chain(text, "to_server") == [*ANSWERS, "counter drop"]
    assert chain(text, "to_host") == [*ANSWERS, "counter drop"]
    assert "published" not in text


def test_published_ports_are_open_to_the_declared_sources_alone() -> None:
    text = rules(**REACHED)
    assert chain(text, "to_server")[2:] == [
        "ct status dnat ip saddr { 10.0.0.0/16, 192.168.0.7/32 } accept",
        "counter drop",
    ]
    assert chain(text, "published") == [
        'iifname "lo" accept',
        "ip saddr { 10.0.0.0/16, 192.168.0.7/32 } accept",
        "counter drop",
    ]


def test_behind_a_front_a_release_that_is_put_back_without_one_is_reached() -> None:
    text = rules(**FRONTED)
    # servers behind a front are published on the loopback, which nobody is forwarded from
    assert chain(text, "to_server")[2:] == chain(rules(**REACHED), "to_server")[2:]
    assert "tcp dport { 8000, 8001, 8002 } jump published" in text
    assert chain(rules(allowed_sources=["10.0.0.0/16"]), "to_server") == [*ANSWERS, "counter drop"]


def test_egress_is_opened_after_the_metadata_service_was_closed() -> None:
    lines = chain(rules(egress=["0.0.0.0/0"]), "from_server")
    assert lines[2:] == [
        "ip daddr 169.254.0.0/16 counter drop",
        "ip daddr { 0.0.0.0/0 } accept",
        "counter drop",
    ]
    assert "--dns" not in release({"egress": ["10.9.0.0/24"]}).files["serve"]
    assert "--dns" in release().files["serve"]


def test_the_table_is_replaced_in_one_transaction_and_is_the_only_one_named() -> None:
    text = rules(service_name="my-llm")
    named = [line for line in text.splitlines() if "table" in line and not line.startswith("#")]
    assert named == [
        "table inet tritonhost_my_llm",
        "delete table inet tritonhost_my_llm",
        "table inet tritonhost_my_llm {",
    ]
    assert "flush" not in text


@pytest.mark.parametrize("service", ["triton", "a", "a-service-14chr", "a" * 32, "triton-inference-server"])
def test_a_bridge_has_a_name_that_the_kernel_takes(service: str) -> None:
    assert 0 < len(network.bridge(service)) <= 15
    assert network.bridge(service) != network.bridge(service[:-1] + "z")


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("nft"), reason="needs root and nft")
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
def test_nft_takes_the_rules_twice_and_the_record_tells_when_they_are_changed(
    data: dict[str, Any], tmp_path: Path
) -> None:
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
    digest = host_files.digests({"": rules(**data)})[""]
    assert done.stdout.split() == [digest, "changed", "changed"]


def test_rules_that_were_never_loaded_have_no_digest(stubs: Stubs) -> None:
    stubs.add("nft", "exit 1")
    done = stubs.run(guard_command("no-such-service"))
    assert (done.stdout, done.stderr) == ("", "")


# --- what differs


WANTED = release(FRONTED)
HOST = replace(converged(WANTED), units={**converged(WANTED).units, "triton-front.service": UNIT})


def rows(wanted: Release, observed: Observed) -> list[tuple[str, str, str]]:
    return [(row.what, row.found, row.wanted) for row in difference(wanted, observed, FILE_DIGESTS)]


@pytest.mark.parametrize(
    ("guard", "found"),
    [("", "absent"), ("changed", "changed since it was loaded"), ("9" * 64, "sha256 999999999999")],
)
def test_rules_that_are_not_loaded_are_a_difference(guard: str, found: str) -> None:
    wanted = release()
    assert rows(wanted, replace(converged(wanted), guard=guard)) == [
        ("nftables table tritonhost_triton", found, "/etc/triton-guard.nft, loaded")
    ]


def test_a_container_on_another_network_beside_its_own_is_a_difference() -> None:
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


def test_only_a_front_that_is_reached_over_the_network_needs_firewalld() -> None:
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
def test_rules_belong_into_the_zone_of_the_address(address: str, zones: set[str]) -> None:
    wanted = release({**FRONTED, "bind_address": address, "expose": True})
    host = Firewall(True, "public", {"10.0.0.11": "internal", "10.0.0.12": "public", "172.17.0.1": "docker"})
    found = firewall.wanted(wanted.settings, wanted.ports, host)
    assert {zone for _, zone, _ in found} == zones
    assert {scope for scope, _, _ in found} == {"runtime", "permanent"}


def test_where_firewalld_does_not_run_nothing_is_wanted_of_it() -> None:
    assert rows(WANTED, replace(HOST, firewall=Firewall())) == []


def test_missing_and_outdated_rules_of_ours_are_differences_and_foreign_ones_are_not() -> None:
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


def test_what_firewalld_prints_is_read() -> None:
    found = read_firewall((CAPTURES / "firewalld.txt").read_text("utf-8").splitlines())
    assert found.running
    assert found.default == "public"
    assert found.zones == {"10.65.0.11": "public", "172.17.0.1": "docker", "172.18.0.1": "docker"}
    assert ("runtime", "public", RULE) in found.rules
    assert ("permanent", "public", FOREIGN) in found.rules
    assert read_firewall([]) == Firewall()
    assert read_firewall(["\x1frunning"]) == Firewall(True)


# --- the scripts


def load(stubs: Stubs, tmp_path: Path, active: bool) -> Any:
    stubs.add("systemctl", f'[ "$1" != is-active ] || exit {0 if active else 3}')
    script = host_script(
        "load_guard.sh", {"FILE": str(tmp_path / "guard.nft"), "UNIT": "triton-guard.service"}
    )
    return stubs.run(script, stdin="rules\n")


def test_rules_are_checked_then_in_place_and_a_guard_at_work_is_reloaded(
    stubs: Stubs, tmp_path: Path
) -> None:
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


def test_a_guard_that_does_not_run_is_started(stubs: Stubs, tmp_path: Path) -> None:
    stubs.add("nft", "exit 0")
    assert load(stubs, tmp_path, active=False).returncode == 0
    assert stubs.calls[-1] == "systemctl start triton-guard.service"


def test_rules_that_nft_refuses_never_reach_their_place(stubs: Stubs, tmp_path: Path) -> None:
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
    ("ask", "zone", "asked"), [("yes", "", True), ("", "", False), ("", '<rule priority="-1">', True)]
)
def test_firewalld_is_only_asked_where_rules_are_wanted_or_left(
    stubs: Stubs, tmp_path: Path, ask: str, zone: str, asked: bool
) -> None:
    for name in ("systemctl", "ip", "firewall-cmd"):
        stubs.add(name, "exit 0")
    (tmp_path / "public.xml").write_text(zone, encoding="utf-8")
    script = host_script("firewall_state.sh", {"MARK": 'priority="-1"', "ASK": ask})
    done = stubs.run(script.replace("/etc/firewalld/zones", str(tmp_path)))
    assert done.stdout.startswith("\x1frunning\n")
    assert ("firewall-cmd --list-all-zones" in stubs.calls) is asked
