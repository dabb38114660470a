"""The guard and firewalld's rules: the commands that are run on a host."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.command import FunctionCommand
from pyinfra.facts.files import Sha256File
from pyinfra.facts.selinux import FileContext
from pyinfra.facts.systemd import SystemdEnabled, SystemdStatus

from operations import network
from operations.facts.docker import Network, NetworkOwner
from operations.facts.firewall import FirewallState, LoadedGuard
from operations.facts.gateway import Gateway, GatewayState
from operations.facts.selinux import Booleans, LocalRule
from operations.network import closed, loaded, opened, own
from operations.plan.exposure import firewall
from operations.plan.observed.firewall import Firewall
from operations.plan.observed.observed import GuardRules
from operations.plan.release import Release
from operations.remote import host_files
from operations.selinux import labelled, mapped, switched_on
from tests.operations.harness import Host, commands_of, refusal_of, text_of
from tests.unit.builders import DATA, release, settings
from tests.unit.builders import DIGEST as IMAGE_DIGEST
from tests.unit.stubs import Stubs

WANTED = release()
PATH = "/etc/triton-guard.nft"
RULES = host_files.rendered(WANTED)[PATH].text
DIGEST = host_files.digest(RULES)
REACHED = {"bind_address": "10.0.0.11", "allowed_sources": ["10.0.0.0/16"]}
FRONTED = release({**REACHED, "front": "haproxy"})
BEHIND_GATEWAY = release(
    {
        **REACHED,
        "gateway": {"certificate": "tls/chain.pem", "private_key": "tls/key.pem", "api_keys": "tls/api-keys"},
        "image_digests": {**DATA["image_digests"], "library/nginx:1.30.7": IMAGE_DIGEST},
    }
)


def guarded(gateway: Gateway | None = None, **changed: Any) -> Host:
    """A host whose guard is as it should be, but for what is changed."""
    facts = {"loaded": GuardRules(DIGEST), "enabled": True, "active": True, "written": DIGEST, **changed}
    unit = "triton-guard.service"
    return Host(
        {
            LoadedGuard: facts["loaded"],
            SystemdEnabled: {unit: facts["enabled"]},
            SystemdStatus: {unit: facts["active"]},
            Sha256File: facts["written"],
            GatewayState: gateway or Gateway(),
        }
    )


def test_loaded_guard_is_not_changed() -> None:
    host = guarded()
    assert commands_of(loaded, host, release=WANTED) == []
    assert host.noop_description


@pytest.mark.parametrize(
    "changed",
    [
        {"loaded": GuardRules()},
        {"loaded": GuardRules(changed=True)},
        {"loaded": GuardRules("0" * 64)},
        {"written": None},
        {"written": "0" * 64},
        {"enabled": False},
        {"active": False},
    ],
    ids=str,
)
def test_changed_guard_is_written_and_loaded(changed: dict[str, Any]) -> None:
    [command] = commands_of(loaded, guarded(**changed), release=WANTED)
    assert text_of(command).startswith(f"FILE={PATH}\nUNIT=triton-guard.service\n")
    assert command.connector_arguments == {"_stdin": RULES}


CLOSED = host_files.rendered(BEHIND_GATEWAY)[PATH].text
STILL_OPEN = host_files.guard_rules(replace(BEHIND_GATEWAY.guard, closed=()))


def guard_of(host: Host, **arguments: Any) -> str:
    """The rules that are loaded."""
    [command] = commands_of(loaded, host, release=BEHIND_GATEWAY, **arguments)
    return str(command.connector_arguments["_stdin"])


def test_guard_closes_bypass_ports_once_the_gateway_leads() -> None:
    assert guard_of(guarded(), leads=False) == STILL_OPEN
    assert guard_of(guarded(), leads=True) == CLOSED
    # as a later run finds it, whatever has become of its unit
    for there in (Gateway(enabled=True), Gateway(active=True), Gateway(digests={"/x/tls.pem": "0"})):
        assert guard_of(guarded(gateway=there), leads=False) == CLOSED
    digest = host_files.digest(CLOSED)
    converged = guarded(gateway=Gateway(active=True, enabled=True), loaded=GuardRules(digest), written=digest)
    for leads in (False, True):
        assert commands_of(loaded, converged, release=BEHIND_GATEWAY, leads=leads) == []
    # and open again before a gateway is taken away
    taken_away = guarded(gateway=Gateway(active=True), loaded=GuardRules(digest), written=digest)
    [command] = commands_of(loaded, taken_away, release=release(REACHED), leads=False)
    assert "ct status dnat ip saddr { 10.0.0.0/16 } accept" in command.connector_arguments["_stdin"]


def test_guard_closes_after_gateway_and_opens_before_removal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[tuple[str, object]] = []
    for name in ("own", "reloaded", "opened", "closed"):
        monkeypatch.setattr(network, name, lambda **_: None)
    monkeypatch.setattr(network.etc_files, "written", lambda **_: None)
    monkeypatch.setattr(network, "loaded", lambda **given: steps.append((given["name"], given.get("leads"))))
    for stage in (network.guard, network.close):
        stage._inner(BEHIND_GATEWAY)
    assert steps == [("Load the guard", False), ("Close the ways around the gateway", None)]
    steps.clear()
    for stage in (network.guard, network.close):
        stage._inner(WANTED)
    assert steps == [("Load the guard", False)]
    text = (Path(__file__).parents[2] / "deploy.py").read_text("utf-8")
    order = [text.index(f"            {step},\n") for step in ORDER]
    assert order == sorted(order)


ORDER = ("network.guard", "swap.serve", "gateway.lead", "network.close")


# --- firewalld


def on(found: Firewall, wanted: Release = FRONTED) -> list[str]:
    return [text_of(c) for c in commands_of(opened, Host({FirewallState: found}), release=wanted)]


def after(found: Firewall, wanted: Release = FRONTED) -> list[str]:
    return [text_of(c) for c in commands_of(closed, Host({FirewallState: found}), release=wanted)]


def test_missing_rules_are_added_permanently_without_a_reload() -> None:
    commands = on(Firewall(True, "public"))
    assert len(commands) == 6
    assert commands[0].startswith(
        "firewall-cmd --quiet --permanent --zone=public '--add-rich-rule=rule priority="
    )
    assert commands[3].startswith("firewall-cmd --quiet --zone=public '--add-rich-rule=rule priority=")
    assert not [command for command in commands if "reload" in command]


def test_new_rules_are_added_before_old_ones_are_removed() -> None:
    complete = firewall.wanted(FRONTED.settings, FRONTED.ports, Firewall(True, "public"))
    old = frozenset(
        (scope, zone, rule.replace("10.0.0.0/16", "10.4.0.0/16")) for scope, zone, rule in complete
    )
    found = Firewall(True, "public", {}, old)

    def changes(commands: list[str]) -> list[str]:
        return [command.split("--")[-1].split("-")[0] for command in commands]

    # the swap is in between: a release that is put back is reached as before
    assert changes(on(found)) == ["add"] * 6
    assert changes(after(found)) == ["remove"] * 6


def test_only_rules_of_a_removed_proxy_are_removed() -> None:
    complete = firewall.wanted(FRONTED.settings, FRONTED.ports, Firewall(True, "public"))
    foreign = (
        "permanent",
        "public",
        'rule family="ipv4" source address="10.0.0.0/8" service name="ssh" accept',
    )
    found = Firewall(True, "public", {}, complete | {foreign})
    assert on(found, WANTED) == []
    commands = after(found, WANTED)
    assert len(commands) == 6
    assert not [command for command in commands if "--remove-rich-rule" not in command or "ssh" in command]


def test_complete_rules_are_not_changed() -> None:
    complete = firewall.wanted(FRONTED.settings, FRONTED.ports, Firewall(True, "public"))
    assert on(Firewall(True, "public", {}, complete)) == []
    assert after(Firewall(True, "public", {}, complete)) == []


@pytest.mark.parametrize(
    ("wanted", "server"), [(FRONTED, "a proxy"), (BEHIND_GATEWAY, "a gateway")], ids=["front", "gateway"]
)
def test_stopped_firewalld_is_a_warning_and_not_started(
    caplog: pytest.LogCaptureFixture, wanted: Release, server: str
) -> None:
    [warning] = commands_of(opened, Host({FirewallState: Firewall()}), release=wanted)
    assert isinstance(warning, FunctionCommand)
    assert warning.function(None, Host({}), *warning.args)
    [said] = caplog.messages
    assert said.startswith(
        f"firewalld: found it not running, expected it active where {server} serves clients; only the guard limits"
    )
    assert said.endswith("; start it as python -m operations.preflight says")


def test_stopped_firewalld_is_ignored_for_docker_ports() -> None:
    host = Host({FirewallState: Firewall()})
    assert commands_of(opened, host, release=WANTED) == []
    assert host.noop_description == "firewalld does not run"


# --- SELinux


def test_data_root_is_relabelled_only_with_a_wrong_label() -> None:
    host = Host({FileContext: {"type": "container_file_t"}})
    assert commands_of(labelled, host, path="/var/lib/tritonhost") == []
    for found in (None, {"type": "var_lib_t"}):
        [command] = commands_of(labelled, Host({FileContext: found}), path="/var/lib/tritonhost")
        assert text_of(command) == "mkdir -p /var/lib/tritonhost && restorecon -R /var/lib/tritonhost"


def test_disabled_booleans_are_set_in_one_permanent_command() -> None:
    found = {
        "container_use_xserver_devices": False,
        "container_use_devices": False,
        "haproxy_connect_any": False,
    }
    noted, command = commands_of(switched_on, Host({Booleans: found}), settings=settings(front="haproxy"))
    assert text_of(noted).endswith(
        "printf '%s\\n' container_use_xserver_devices haproxy_connect_any >>/etc/tritonhost/booleans"
    )
    assert text_of(command) == "setsebool -P container_use_xserver_devices=on haproxy_connect_any=on"
    assert commands_of(switched_on, Host({Booleans: {}}), settings=settings()) == []


@pytest.mark.parametrize("found", [None, Network("triton0", "triton-network")])
def test_own_or_missing_network_is_not_changed(found: Network | None) -> None:
    assert commands_of(own, Host({NetworkOwner: found}), service="triton") == []


@pytest.mark.parametrize("found", [Network("br0", "triton-network"), Network(), Network("triton0")], ids=str)
def test_foreign_network_is_refused_before_anything_is_stopped(found: Network) -> None:
    message = refusal_of(commands_of(own, Host({NetworkOwner: found}), service="triton"))
    assert message.startswith("docker network triton-network: found one that is not ours, expected none")
    assert message.endswith("nothing was stopped")


def test_plain_network_differs_from_a_missing_one() -> None:
    fact = NetworkOwner()
    # what docker prints of one without options and labels
    assert fact.process(["network  "]) == Network()
    assert fact.process(["network triton0 triton-network"]) == Network("triton0", "triton-network")
    assert fact.process([]) is None
    assert fact.process([""]) is None


@pytest.mark.parametrize(
    ("found", "change"), [("", "--add"), ("container_file_t", ""), ("default_t", "--modify")]
)
def test_a_rule_for_a_path_with_a_dot_is_added_once(found: str, change: str) -> None:
    target = "/data/v1\\.2(/.*)?"
    commands = [text_of(c) for c in commands_of(mapped, Host({LocalRule: found}), target=target)]
    wanted = f"semanage fcontext {change} --type container_file_t '{target}'"
    assert commands == ([wanted] if change else [])


def test_rule_is_found_by_its_exact_text() -> None:
    target = "/data/v1\\.2(/.*)?"
    fact = LocalRule()
    assert f"'{target}'" in fact.command(target)
    assert fact.process(["all files          system_u:object_r:container_file_t:s0 "]) == "container_file_t"
    assert fact.process([]) == ""


def test_rule_of_a_longer_path_does_not_match(tmp_path: Path) -> None:
    listed = (
        "/opt/data(/.*)?                  all files          system_u:object_r:container_file_t:s0 \n"
        "/data(/.*)?                      all files          system_u:object_r:default_t:s0 \n"
        "/data(/.*)?/more                 all files          system_u:object_r:etc_t:s0 \n"
        "/data/v1\\.2(/.*)?                all files          system_u:object_r:var_t:s0 \n"
    )
    stubs = Stubs(tmp_path / "bin")
    (tmp_path / "list").write_text(listed)
    stubs.add("semanage", f"cat {tmp_path}/list")
    found = {}
    for target in ("/data(/.*)?", "/data/v1\\.2(/.*)?", "/opt(/.*)?"):
        done = stubs.run(LocalRule().command(target))
        assert done.returncode == 0
        found[target] = LocalRule().process(done.stdout.splitlines())
    assert list(found.values()) == ["default_t", "var_t", ""]
