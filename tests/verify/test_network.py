"""Who may reach the server, and whom it may reach: the guard, docker's network, firewalld."""

from __future__ import annotations

import re
from typing import Any

import pytest

from operations.plan import Release
from operations.plan.exposure import firewall, network
from operations.remote import host_files
from operations.remote.rendering import HostFile


def test_guard_is_as_rendered_and_active(host: Any, release: Release, etc_files: dict[str, HostFile]) -> None:
    for path in (release.guard.rules_path, host_files.paths(release.settings).guard_unit):
        assert host.file(path).content_string == etc_files[path].text, path
    guard = host.service(release.guard.unit)
    assert guard.is_enabled
    assert guard.is_running
    required = host.check_output(
        f"systemctl show --property=Requires --value {release.settings.service_name}"
    )
    assert release.guard.unit in required.split(), "no server without it"


def test_guard_s_rules_are_in_the_kernel(host: Any, release: Release, etc_files: dict[str, HostFile]) -> None:
    """Rule by rule, in nft's own words: the file is loaded beside it under another name, and both are listed."""
    table = release.guard.table
    text = etc_files[release.guard.rules_path].text
    # in a network of its own, where it guards nothing
    loaded = f"nft -f - && nft --stateless list table inet {table}"
    fresh = host.run(f"printf %s '{_quoted(text)}' | unshare --net sh -c '{loaded}'")
    assert fresh.rc == 0, fresh.stderr
    assert host.check_output(f"nft --stateless list table inet {table}") == fresh.stdout.strip()


def _quoted(text: str) -> str:
    return text.replace("'", "'\\''")


def test_guard_matches_the_server_s_only_network(
    host: Any, container: dict[str, Any], release: Release
) -> None:
    name = network.network(release.settings.service_name)
    assert list(container["NetworkSettings"]["Networks"]) == [name]
    options = "{{json .Options}} {{.EnableIPv6}}"
    found = host.check_output(f"docker network inspect --format '{options}' {name}")
    assert f'"com.docker.network.bridge.name":"{release.guard.bridge}"' in found
    assert found.endswith(" false"), "no IPv6"


def test_no_port_is_published_on_ipv6(container: dict[str, Any]) -> None:
    bindings = [each for found in container["NetworkSettings"]["Ports"].values() for each in found or ()]
    assert bindings
    assert [each for each in bindings if ":" in each["HostIp"] or not each["HostIp"]] == []


def test_firewalld_has_exactly_the_declared_rules(host: Any, release: Release) -> None:
    if host.run("systemctl is-active --quiet firewalld").rc != 0:
        pytest.skip("firewalld does not run on this host")
    mark = firewall.mark(release.settings.service_name)
    wanted = set(firewall.rules(release.settings, release.ports))
    for scope in ("", "--permanent"):
        zones = host.check_output(f"firewall-cmd {scope} --list-all-zones")
        ours = {line.strip() for line in zones.splitlines() if re.match(rf"\s+rule {mark} ", line)}
        assert ours == wanted, scope or "runtime"
