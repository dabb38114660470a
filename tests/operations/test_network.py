"""The guard and firewalld's rules: the commands that are run on a host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.command import FunctionCommand
from pyinfra.facts.files import Sha256File
from pyinfra.facts.selinux import FileContext
from pyinfra.facts.systemd import SystemdEnabled, SystemdStatus

from operations import host_files
from operations.facts.docker import NetworkOwner
from operations.facts.firewall import FirewallState, LoadedGuard
from operations.facts.selinux import Booleans, LocalRule
from operations.network import closed, loaded, opened, own
from operations.plan import firewall
from operations.plan.firewall import Firewall
from operations.plan.release import Release
from operations.selinux import labelled, mapped, switched_on
from tests.operations.harness import Host, commands_of, refusal_of, text_of
from tests.unit.builders import DATA, release, settings
from tests.unit.builders import DIGEST as IMAGE_DIGEST
from tests.unit.stubs import Stubs

WANTED = release()
PATH = "/etc/triton-guard.nft"
RULES = host_files.rendered(WANTED)[PATH]
DIGEST = host_files.digests({PATH: RULES})[PATH]
REACHED = {"bind_address": "10.0.0.11", "allowed_sources": ["10.0.0.0/16"]}
FRONTED = release({**REACHED, "front": "haproxy"})
BEHIND_GATEWAY = release(
    {
        **REACHED,
        "gateway": {"certificate": "tls/chain.pem", "private_key": "tls/key.pem", "api_keys": "tls/api-keys"},
        "image_digests": {**DATA["image_digests"], "library/nginx:1.30.7": IMAGE_DIGEST},
    }
)


def guarded(**changed: Any) -> Host:
    """A host whose guard is as it should be, but for what is changed."""
    facts = {"loaded": DIGEST, "enabled": True, "active": True, "written": DIGEST, **changed}
    unit = "triton-guard.service"
    return Host(
        {
            LoadedGuard: facts["loaded"],
            SystemdEnabled: {unit: facts["enabled"]},
            SystemdStatus: {unit: facts["active"]},
            Sha256File: facts["written"],
        }
    )


def test_a_guard_that_is_loaded_is_left() -> None:
    host = guarded()
    assert commands_of(loaded, host, release=WANTED) == []
    assert host.noop_description


@pytest.mark.parametrize(
    "changed",
    [
        {"loaded": ""},
        {"loaded": "changed"},
        {"loaded": "0" * 64},
        {"written": None},
        {"written": "0" * 64},
        {"enabled": False},
        {"active": False},
    ],
    ids=str,
)
def test_any_other_is_written_and_loaded(changed: dict[str, Any]) -> None:
    [command] = commands_of(loaded, guarded(**changed), release=WANTED)
    assert text_of(command).startswith(f"FILE={PATH}\nUNIT=triton-guard.service\n")
    assert command.connector_arguments == {"_stdin": RULES}


# --- firewalld


def on(found: Firewall, wanted: Release = FRONTED) -> list[str]:
    return [text_of(c) for c in commands_of(opened, Host({FirewallState: found}), release=wanted)]


def after(found: Firewall, wanted: Release = FRONTED) -> list[str]:
    return [text_of(c) for c in commands_of(closed, Host({FirewallState: found}), release=wanted)]


def test_missing_rules_are_added_now_and_for_good_and_nothing_is_reloaded() -> None:
    commands = on(Firewall(True, "public"))
    assert len(commands) == 6
    assert commands[0].startswith(
        "firewall-cmd --quiet --permanent --zone=public '--add-rich-rule=rule priority="
    )
    assert commands[3].startswith("firewall-cmd --quiet --zone=public '--add-rich-rule=rule priority=")
    assert not [command for command in commands if "reload" in command]


def test_who_may_come_is_let_in_before_who_may_not_is_shut_out() -> None:
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


def test_rules_of_a_front_that_is_gone_are_removed_and_nobody_else_s() -> None:
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


def test_rules_that_are_as_they_should_be_are_left() -> None:
    complete = firewall.wanted(FRONTED.settings, FRONTED.ports, Firewall(True, "public"))
    assert on(Firewall(True, "public", {}, complete)) == []
    assert after(Firewall(True, "public", {}, complete)) == []


@pytest.mark.parametrize(
    ("wanted", "server"), [(FRONTED, "a front"), (BEHIND_GATEWAY, "a gateway")], ids=["front", "gateway"]
)
def test_firewalld_that_does_not_run_is_not_started_but_said(
    caplog: pytest.LogCaptureFixture, wanted: Release, server: str
) -> None:
    [warning] = commands_of(opened, Host({FirewallState: Firewall()}), release=wanted)
    assert isinstance(warning, FunctionCommand)
    assert warning.function(None, Host({}), *warning.args)
    [said] = caplog.messages
    assert said.startswith(
        f"firewalld: found it not running, expected it active where {server} serves people; the guard alone says"
    )
    assert said.endswith("; start it as python -m operations.preflight says")


def test_firewalld_is_no_matter_where_docker_s_ports_are_reached() -> None:
    host = Host({FirewallState: Firewall()})
    assert commands_of(opened, host, release=WANTED) == []
    assert host.noop_description == "firewalld does not run"


# --- SELinux


def test_a_labelled_data_root_is_left_and_another_is_relabelled_once() -> None:
    host = Host({FileContext: {"type": "container_file_t"}})
    assert commands_of(labelled, host, path="/var/lib/tritonhost") == []
    for found in (None, {"type": "var_lib_t"}):
        [command] = commands_of(labelled, Host({FileContext: found}), path="/var/lib/tritonhost")
        assert text_of(command) == "mkdir -p /var/lib/tritonhost && restorecon -R /var/lib/tritonhost"


def test_booleans_that_are_off_are_switched_on_together_and_for_good() -> None:
    found = {
        "boolean:container_use_xserver_devices": "0",
        "boolean:container_use_devices": "0",
        "boolean:haproxy_connect_any": "0",
    }
    [command] = commands_of(switched_on, Host({Booleans: found}), settings=settings(front="haproxy"))
    assert text_of(command) == "setsebool -P container_use_xserver_devices=on haproxy_connect_any=on"
    assert commands_of(switched_on, Host({Booleans: {}}), settings=settings()) == []


@pytest.mark.parametrize("found", [None, "triton0 triton-network"])
def test_a_network_of_ours_or_none_is_left(found: str | None) -> None:
    assert commands_of(own, Host({NetworkOwner: found}), service="triton") == []


@pytest.mark.parametrize("found", ["br0 triton-network", " ", "triton0 "])
def test_somebody_else_s_network_is_refused_before_anything_is_stopped(found: str) -> None:
    message = refusal_of(commands_of(own, Host({NetworkOwner: found}), service="triton"))
    assert message.startswith("docker network triton-network: found one that is not ours, expected none")
    assert message.endswith("nothing was stopped")


def test_a_plain_network_of_that_name_is_told_from_none() -> None:
    fact = NetworkOwner()
    # what docker prints of one without options and labels
    assert fact.process(["network  "]) == " "
    assert fact.process(["network triton0 triton-network"]) == "triton0 triton-network"
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


def test_a_rule_is_found_by_its_own_text() -> None:
    target = "/data/v1\\.2(/.*)?"
    fact = LocalRule()
    assert f"'{target}'" in fact.command(target)
    assert fact.process(["all files          system_u:object_r:container_file_t:s0 "]) == "container_file_t"
    assert fact.process([]) == ""


def test_a_rule_of_a_longer_path_is_another_rule(tmp_path: Path) -> None:
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
