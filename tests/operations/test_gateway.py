"""The gateway: when its files are written, when nginx is told, and what is left of one that nobody wants."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.command import FunctionCommand

from operations import gateway_secrets, host_files
from operations import release as release_operations
from operations.facts.gateway import Gateway, GatewayState
from operations.gateway import gone, running, written
from operations.plan import gateway as plan
from operations.plan.release import Release
from tests.operations.harness import Host, commands_of
from tests.unit.builders import release as plain_release
from tests.unit.certificates import API_KEY, gateway_files, pair
from tests.unit.test_gateway import release_of


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return release_of(gateway_files(tmp_path_factory.mktemp("gateway"), pair()))


def as_wanted(release: Release) -> Gateway:
    assert release.gateway and release.settings.gateway
    files = host_files.gateway_files(release.gateway, gateway_secrets.load(release.settings.gateway, "h1"))
    digests = host_files.digests({f"{release.gateway.directory}/{n}": t for n, t in files.items()})
    modes = plan.modes(release.gateway.directory)
    return Gateway(
        digests, modes, host_files.gateway_loaded(release.gateway, files), active=True, enabled=True
    )


def ran(operation: Any, found: Gateway, release: Release) -> list[str]:
    """The commands, a function's by its name."""
    commands = commands_of(operation, Host({GatewayState: found}), release=release)
    return [c.function.__name__ if isinstance(c, FunctionCommand) else str(c) for c in commands]


def test_a_gateway_that_is_as_it_should_be_is_left(release: Release) -> None:
    for operation in (written, running):
        assert ran(operation, as_wanted(release), release) == []


def test_files_are_tried_out_before_anything_is_stopped(release: Release) -> None:
    assert release.gateway
    found = replace(as_wanted(release), digests={})
    [command] = commands_of(written, Host({GatewayState: found}), release=release, only_tried=True)
    gateway, _, only_test = command.args
    assert gateway == release.gateway and only_test
    # pyinfra prints its commands in some modes
    assert API_KEY not in repr(command) and "PRIVATE" not in repr(command)
    [command] = commands_of(written, Host({GatewayState: found}), release=release)
    assert not command.args[2]


def test_files_with_other_modes_are_written_again(release: Release) -> None:
    wanted = as_wanted(release)
    found = replace(wanted, modes={**wanted.modes, next(iter(wanted.digests)): "444:0:0"})
    assert ran(written, found, release) == ["_put"]
    assert ran(running, found, release) == []


def test_other_files_are_read_without_a_restart(release: Release) -> None:
    assert release.gateway
    found = replace(as_wanted(release), loaded=f"{release.gateway.key} {'0' * 64}")
    assert ran(running, found, release) == ["systemctl reload triton-gateway.service", "_asked"]


def test_another_image_or_none_that_runs_takes_a_start(release: Release) -> None:
    for loaded in ("other 0", ""):
        found = replace(as_wanted(release), loaded=loaded)
        assert ran(running, found, release) == ["systemctl restart triton-gateway.service", "_asked"]


def test_it_starts_at_boot(release: Release) -> None:
    found = replace(as_wanted(release), enabled=False)
    assert ran(running, found, release) == ["systemctl enable --quiet triton-gateway.service", "_asked"]


def test_nothing_is_left_of_a_gateway_that_nobody_wants(release: Release) -> None:
    without = plain_release()
    assert ran(gone, Gateway(), without) == []
    stop = ["systemctl disable --quiet --now triton-gateway.service"]
    for found, before in (
        (as_wanted(release), stop),
        (Gateway(enabled=True), stop),
        # of a run that was killed before it had a unit
        (Gateway(digests={"x": "0"}), []),
        (Gateway(modes={"/var/lib/tritonhost/gateway": "750:0:60601"}), []),
    ):
        assert ran(gone, found, without) == [*before, "rm -rf /var/lib/tritonhost/gateway"]


def test_its_state_is_read_as_it_is() -> None:
    digest = "a" * 64
    fact = GatewayState()
    output = ["active", "enabled", f"key {digest}", f"{digest}  /x/tls.pem", "/x\t750:0:60601"]
    assert fact.process(output) == Gateway(
        {"/x/tls.pem": digest}, {"/x": "750:0:60601"}, f"key {digest}", True, True
    )
    # what a unit wrote that does not run any more says nothing
    assert fact.process(["failed", "disabled", f"key {digest}"]) == Gateway()
    assert fact.process(["inactive", "", ""]) == Gateway()


def test_its_state_is_asked_for_with_words_a_shell_can_read(tmp_path: Path) -> None:
    command = GatewayState().command(
        "triton-gateway", "/var/lib/a b", ["/var/lib/a b/tls.pem"], "/run/triton-gateway"
    )
    assert "'/var/lib/a b/tls.pem'" in command
    assert "systemctl is-active triton-gateway.service" in command


@pytest.mark.parametrize(
    ("published", "open_to"),
    [
        (["--publish=127.0.0.1"], ""),
        (["--publish=10.0.0.5"], "10.0.0.5"),
        (["--publish=0.0.0.0"], "0.0.0.0"),
        ([], ""),
    ],
)
def test_a_release_that_people_would_reach_past_the_gateway_is_known(
    release: Release, monkeypatch: pytest.MonkeyPatch, published: list[str], open_to: str
) -> None:
    asked: list[str] = []

    def answer(host: object, script: str) -> tuple[bool, list[str]]:
        asked.append(script)
        return True, published

    monkeypatch.setattr(release_operations, "shell", answer)
    host: Any = Host({})
    assert release_operations._past_the_gateway(host, release.settings, "abc") == open_to
    assert "/var/lib/tritonhost/releases/abc/serve" in asked[0]
    assert release_operations._past_the_gateway(host, plain_release().settings, "abc") == ""
    assert len(asked) == 1
