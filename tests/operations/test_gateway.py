"""The gateway: when its files are written, when nginx is told, and what is left of one that nobody wants."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.command import FunctionCommand

from operations import release as release_operations
from operations.facts.gateway import Gateway, GatewayState
from operations.gateway import gone, kept, running, written
from operations.intake import gateway_secrets
from operations.plan.exposure import gateway as plan
from operations.plan.exposure import network
from operations.plan.observed.observed import LoadedGateway
from operations.plan.permissions import Permissions
from operations.plan.release import Release
from operations.remote import detached, host_files
from operations.remote.refusal import Failed
from tests.operations.harness import Host, commands_of, text_of
from tests.unit.builders import release as plain_release
from tests.unit.certificates import API_KEY, gateway_files, pair
from tests.unit.stubs import Stubs
from tests.unit.test_gateway import release_of


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return release_of(gateway_files(tmp_path_factory.mktemp("gateway"), pair()))


def as_wanted(release: Release) -> Gateway:
    assert release.gateway and release.settings.gateway
    files = host_files.gateway_files(release.gateway, gateway_secrets.load(release.settings.gateway, "h1"))
    digests = {file.path: file.digest for file in host_files.gateway_expected(release.gateway, files)}
    modes = plan.modes(release.gateway.directory)
    return Gateway(
        digests, modes, host_files.gateway_loaded(release.gateway, files), active=True, enabled=True
    )


def ran(operation: Any, found: Gateway, release: Release) -> list[str]:
    """The commands, a function's by its name."""
    commands = commands_of(operation, Host({GatewayState: found}), release=release)
    return [c.function.__name__ if isinstance(c, FunctionCommand) else text(c) for c in commands]


def text(command: Any) -> str:
    return command if isinstance(command, str) else text_of(command)


def test_gateway_that_matches_its_plan_is_not_changed(release: Release) -> None:
    for operation in (written, running):
        assert ran(operation, as_wanted(release), release) == []


def test_files_are_tested_before_anything_is_stopped(release: Release) -> None:
    assert release.gateway
    found = replace(as_wanted(release), digests={})
    [command] = commands_of(written, Host({GatewayState: found}), release=release, only_tried=True)
    gateway, _, only_test = command.args
    assert gateway == release.gateway and only_test
    # pyinfra prints its commands in some modes
    assert API_KEY not in repr(command) and "PRIVATE" not in repr(command)
    [command] = commands_of(written, Host({GatewayState: found}), release=release)
    assert not command.args[2]


def test_files_with_wrong_modes_are_rewritten(release: Release) -> None:
    wanted = as_wanted(release)
    found = replace(wanted, modes={**wanted.modes, next(iter(wanted.digests)): Permissions("444", "0", "0")})
    assert ran(written, found, release) == ["_put"]
    assert ran(running, found, release) == []


def test_changed_files_are_loaded_without_a_restart(release: Release) -> None:
    assert release.gateway
    found = replace(as_wanted(release), loaded=LoadedGateway(release.gateway.key, "0" * 64))
    assert ran(running, found, release) == ["systemctl reload triton-gateway.service", "_asked"]


def test_changed_image_or_stopped_gateway_is_restarted(release: Release) -> None:
    for loaded in (LoadedGateway("other", "0"), LoadedGateway()):
        found = replace(as_wanted(release), loaded=loaded)
        restart, asked = ran(running, found, release)
        assert 'systemctl restart "$UNIT"' in restart
        assert "UNIT=triton-gateway.service\nKEPT=/run/triton-gateway.service.kept\n" in restart
        assert asked == "_asked"


def test_old_files_are_kept_until_the_new_gateway_starts(release: Release) -> None:
    [keep] = ran(kept, replace(as_wanted(release), loaded=LoadedGateway("other", "0")), release)
    for path in (
        *host_files.gateway_paths(release.settings),
        host_files.paths(release.settings).gateway_unit,
    ):
        assert path in keep
    assert "KEPT=/run/triton-gateway.service.kept\n" in keep
    assert release.gateway
    # other files alone are read without a restart, and nginx goes on with the old ones where it cannot
    other_files = LoadedGateway(release.gateway.key, "0" * 64)
    for loaded in (LoadedGateway(), other_files, as_wanted(release).loaded):
        assert ran(kept, replace(as_wanted(release), loaded=loaded), release) == []


def test_gateway_is_enabled_at_boot(release: Release) -> None:
    found = replace(as_wanted(release), enabled=False)
    assert ran(running, found, release) == ["systemctl enable --quiet triton-gateway.service", "_asked"]


def test_removed_gateway_leaves_no_files(release: Release) -> None:
    without = plain_release()
    assert ran(gone, Gateway(), without) == []
    stop = ["systemctl disable --quiet --now triton-gateway.service"]
    for found, before in (
        (as_wanted(release), stop),
        (Gateway(enabled=True), stop),
        # of a run that was killed before it had a unit
        (Gateway(digests={"x": "0"}), []),
        (Gateway(modes={"/var/lib/tritonhost/gateway": Permissions("750", "0", "60601")}), []),
    ):
        assert ran(gone, found, without) == [*before, "rm -rf /var/lib/tritonhost/gateway"]


def test_gateway_state_is_parsed() -> None:
    digest = "a" * 64
    fact = GatewayState()
    output = ["active", "enabled", f"key {digest}", f"{digest}  /x/tls.pem", "/x\t750:0:60601"]
    assert fact.process(output) == Gateway(
        {"/x/tls.pem": digest},
        {"/x": Permissions("750", "0", "60601")},
        LoadedGateway("key", digest),
        True,
        True,
    )
    # what a unit wrote that does not run any more says nothing
    assert fact.process(["failed", "disabled", f"key {digest}"]) == Gateway()
    assert fact.process(["inactive", "", ""]) == Gateway()


def test_gateway_state_command_quotes_paths(tmp_path: Path) -> None:
    command = GatewayState().command(
        "triton-gateway", "/var/lib/a b", ["/var/lib/a b/tls.pem"], "/run/triton-gateway"
    )
    assert "'/var/lib/a b/tls.pem'" in command
    assert "systemctl is-active triton-gateway.service" in command


@pytest.mark.parametrize(
    ("published", "open_to"),
    [
        (["--publish=127.0.0.1:8000"], ""),
        (["--publish=10.0.0.5:8000", "--publish=10.0.0.5:8001"], "10.0.0.5"),
        (["--publish=0.0.0.0:8000"], "0.0.0.0"),
        ([], ""),
    ],
)
def test_release_reachable_past_the_gateway_is_detected(
    release: Release, monkeypatch: pytest.MonkeyPatch, published: list[str], open_to: str
) -> None:
    asked: list[str] = []

    def answer(host: object, script: str) -> tuple[bool, list[str]]:
        asked.append(script)
        return True, published

    monkeypatch.setattr(release_operations, "shell", answer)
    host: Any = Host({})
    assert release_operations.open_past_the_gateway(host, release.settings, "abc") == open_to
    assert "/var/lib/tritonhost/releases/abc/serve" in asked[0]
    assert release_operations.open_past_the_gateway(host, plain_release().settings, "abc") == ""
    assert len(asked) == 1


THREE = [f"--publish=10.0.0.5:{port}" for port in (8000, 8001, 8002)]


@pytest.mark.parametrize(
    ("published", "led", "loads"),
    [(THREE, True, True), (THREE, False, False), (["--publish=127.0.0.1:8000"], True, False)],
)
def test_rollback_past_a_removed_gateway_is_allowed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, published: list[str], led: bool, loads: bool
) -> None:
    stubs = Stubs(tmp_path / "stubs")
    rules = tmp_path / "triton-guard.nft"
    rules.write_text(f"{network.LED}\n" if led else "table inet x\n", "utf-8")
    stubs.add("nft", ":")
    stubs.add("systemctl", ":")

    def answer(host: object, script: str, stdin: str = "", **_: object) -> tuple[bool, list[str]]:
        if script.startswith("grep -o "):
            return True, published
        done = stubs.run(script.replace("/etc/triton-guard.nft", str(rules)), stdin)
        return done.returncode == 0, done.stderr.splitlines()

    for module in (release_operations, detached):
        monkeypatch.setattr(module, "shell", answer)
    open_to = plain_release({"bind_address": "10.0.0.5", "allowed_sources": ["10.0.0.0/24"]}).settings
    host: Any = Host({})
    release_operations._led_past(host, open_to, "abc")
    assert ("ct status dnat ip saddr { 10.0.0.0/24 } accept" in rules.read_text("utf-8")) is loads
    # where it cannot be, that is said
    stubs.add("nft", "echo bad rules; exit 1")
    rules.write_text(f"{network.LED}\n", "utf-8")
    fails = pytest.raises(Failed, match="found bad rules") if published == THREE else nullcontext()
    with fails:
        release_operations._led_past(host, open_to, "abc")
