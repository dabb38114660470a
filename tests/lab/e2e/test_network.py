"""Which addresses reach the server and which it reaches, tested over the network: with firewalld and docker running, and
after each of them was restarted."""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.lab import shell
from tests.lab.e2e.one_host import OneHost, difference_rows

METADATA = "169.254.169.254"
# a port of the host that is in no inventory, on which a program listens
UNDECLARED = 9999
PATIENCE_SECONDS = 90
# as in Oracle's images: only root may reach the boot volume
OWNER_RULE = (
    "ipv4 filter OUTPUT 0 -d 169.254.0.2/32 -p tcp -m owner --uid-owner 0 -m tcp --dport 3260 -j ACCEPT"
)


def places(host: OneHost) -> tuple[str, str]:
    """Two addresses of this machine's side of the bridge: an allowed one, and another one."""
    return host.settings.gateway, f"{host.settings.net}.200"


@pytest.fixture
def stranger(site: OneHost) -> Iterator[str]:
    """An address beside the gateway's, in the same network as the host."""
    address = places(site)[1]
    shell.run("ip", "addr", "replace", f"{address}/32", "dev", site.settings.bridge)
    yield address
    shell.run("ip", "addr", "del", f"{address}/32", "dev", site.settings.bridge)


def reaches(source: str, address: str, port: int) -> bool:
    """Whether a connection from that address of this machine is accepted."""
    try:
        socket.create_connection((address, port), timeout=2, source_address=(source, 0)).close()
    except OSError:
        return False
    return True


@contextmanager
def listeners(host: OneHost) -> Iterator[None]:
    """Let the host answer at the metadata service's address and on an undeclared port."""
    host.root(
        f"ip addr replace {METADATA}/32 dev lo; "
        f"systemd-run --quiet --unit=lab-metadata python3 -m http.server --bind {METADATA} 80; "
        f"systemd-run --quiet --unit=lab-undeclared python3 -m http.server {UNDECLARED}; "
        f"until curl -sf http://{METADATA}/ >/dev/null && curl -sf http://127.0.0.1:{UNDECLARED}/ >/dev/null; "
        "do sleep 0.2; done"
    )
    try:
        yield
    finally:
        host.root(
            f"systemctl stop lab-metadata lab-undeclared 2>/dev/null; ip addr del {METADATA}/32 dev lo || :"
        )


def reached_by_the_server(host: OneHost) -> list[str]:
    """The addresses outside that are reachable from inside the server's network."""
    settings = host.settings
    bridge = host.root("ip -oneline -4 address show dev triton0 | awk '{ print $4 }'").split("/")[0]
    wanted = [
        f"{METADATA}:80",
        f"{settings.gateway}:8000",
        f"{settings.address(1)}:22",
        f"{bridge}:22",
        f"{bridge}:{UNDECLARED}",
    ]
    script = (
        "import socket, sys\n"
        "for place in sys.argv[1:]:\n"
        "    host, port = place.split(':')\n"
        "    try:\n"
        "        socket.create_connection((host, int(port)), timeout=1).close()\n"
        "        print(place)\n"
        "    except OSError:\n"
        "        pass\n"
    )
    inside = "nsenter --net --target $(docker inspect --format '{{.State.Pid}}' triton)"
    found = host.root(f"{inside} python3 - {' '.join(wanted)}", stdin=script).split()
    return [place.replace(bridge, "bridge") for place in found]


@pytest.mark.requirement("R15")
def test_guard_blocks_every_connection_the_server_opens(converged: OneHost) -> None:
    converged.root("systemctl is-active --quiet firewalld")
    container = converged.container()["Id"]
    with listeners(converged):
        assert reached_by_the_server(converged) == []
        converged.root("nft delete table inet tritonhost_triton")
        without = reached_by_the_server(converged)
        assert f"{METADATA}:80" in without
        assert f"{converged.settings.gateway}:8000" in without
        assert "bridge:22" in without
        seen = converged.verify("test_guard")
        assert seen.names("test_guard_s_rules_are_in_the_kernel"), seen.output

        repaired = converged.deploy()
        assert repaired.code == 0, repaired.output
        assert [row.split("  ")[1] for row in difference_rows(repaired.output)] == [
            "nftables table tritonhost_triton"
        ]
        assert reached_by_the_server(converged) == []
    # the same container still runs
    assert converged.container()["Id"] == container
    assert "converged: release" in converged.converge().output
    converged.verified("test_guard")


def answers(address: str) -> bool:
    """Whether the server reports over the network that its model is ready."""
    with suppress(OSError):
        request = f"http://{address}:8000/v2/models/ensemble/ready"
        return bool(urllib.request.urlopen(request, timeout=2).status == 200)
    return False


def exposure(host: OneHost) -> dict[str, list[int]]:
    """Address -> the ports it reaches: of all that are in use on the host, and the second server's."""
    listening = host.root("ss --listening --tcp --numeric --no-header | awk '{ print $4 }'").split()
    ports = {int(place.rpartition(":")[2]) for place in listening}
    ports |= {8000, 8001, 8002, 18000, 28000, UNDECLARED}
    address = host.settings.address(1)
    return {
        source: [port for port in sorted(ports) if reaches(source, address, port)] for source in places(host)
    }


@pytest.mark.requirement("R15")
@pytest.mark.parametrize("front", ["none", "haproxy"])
def test_only_declared_ports_answer_and_only_declared_sources(
    site: OneHost, stranger: str, front: str
) -> None:
    address, friend = site.settings.address(1), places(site)[0]
    options = [
        *("--data", f"bind_address={address}", "--data", f"front={front}"),
        *("--data", f"allowed_sources={json.dumps([f'{friend}/32'])}"),
    ]
    for scope in ("--permanent", ""):
        site.root(f"firewall-cmd --quiet {scope} --direct --add-rule {OWNER_RULE}")
    done = site.deploy(*options)
    assert done.code == 0, done.output
    wanted = {friend: [22, 8000, 8001, 8002], stranger: [22]}
    try:
        for event in ("", "firewall-cmd --reload", "systemctl restart docker", "reboot"):
            if event == "reboot":
                site.lab("reboot", "1")
            elif event:
                site.root(event)
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not answers(address):
                assert time.monotonic() < deadline, f"not ready {PATIENCE_SECONDS} s after {event}"
                time.sleep(0.5)
            with listeners(site):
                assert exposure(site) == wanted, event
                assert reached_by_the_server(site) == [], event
            site.root("systemctl is-active --quiet firewalld")
            assert OWNER_RULE in site.root("firewall-cmd --direct --get-all-rules"), event
        again = site.deploy(*options)
        assert "converged: release" in again.output, again.output

        # another source is allowed and the earlier one is not, without a restart
        container = site.container()["Id"]
        other = [*options[:-1], f"allowed_sources={json.dumps([f'{stranger}/32'])}"]
        assert site.deploy(*other).code == 0
        with listeners(site):
            assert exposure(site) == {friend: [22], stranger: [22, 8000, 8001, 8002]}
        assert site.container()["Id"] == container
    finally:
        for scope in ("--permanent", ""):
            site.root(f"firewall-cmd --quiet {scope} --direct --remove-rule {OWNER_RULE}")
    # back to the inventory: no port is open, and no rule of this tool is left
    site.converge()
    with listeners(site):
        assert exposure(site) == {friend: [22], stranger: [22]}
    listed = "firewall-cmd --zone=public --list-rich-rules"
    assert site.root(f"{listed}; {listed} --permanent") == ""
