"""A load balancer: what haproxy reads, who reaches it, and that every host of the inventory takes its requests."""

from __future__ import annotations

import http.client
import json
import shlex
import socket
import ssl
import time
from typing import Any

import pytest

from operations.intake import load_balancer_secrets
from operations.plan.balancing import load_balancer as plan
from operations.plan.balancing.load_balancer import LoadBalancerPlan
from operations.plan.balancing.members import Serving, members
from operations.plan.exposure.host_program import unit_path
from operations.remote import host_files, load_balancer_files
from operations.remote.rendering import HostFile
from tests.verify.connection import Connection

UP_SECONDS = 20  # a start, and some checks


@pytest.fixture(scope="module")
def wanted(settings: Any, host: Any, os_major: str, serving: list[Serving]) -> LoadBalancerPlan:
    """What the host should be: the plan of the inventory's data."""
    confined = settings.selinux == "auto" and host.file("/sys/fs/selinux/enforce").exists
    own = settings.load_balancer
    secrets = load_balancer_secrets.load(own, "this host")
    return plan.planned(settings, os_major, confined, members(own, serving), secrets)


@pytest.fixture(scope="module")
def files(wanted: LoadBalancerPlan) -> dict[str, HostFile]:
    return load_balancer_files.files(wanted)


def test_haproxy_runs_with_its_files_and_at_boot(
    host: Any, wanted: LoadBalancerPlan, files: dict[str, HostFile]
) -> None:
    path = unit_path(plan.NAME)
    assert host.file(path).sha256sum == host_files.digest(files[path].text)
    unit = host.service(f"{plan.NAME}.service")
    assert unit.is_enabled
    assert unit.is_running
    for name, text in load_balancer_files.read(wanted).items():
        file = host.file(f"{plan.DIRECTORY}/{name}")
        assert file.sha256sum == host_files.digest(text), name
        # one of them has the private key
        assert (file.uid, file.mode & 0o077) == (0, 0), name
    said = host.check_output(f"cat {plan.DIRECTORY}/{' '.join(plan.FILES[:1])}")
    assert said.startswith("# Written by tritonhost")


def test_every_host_takes_requests(host: Any, wanted: LoadBalancerPlan) -> None:
    program = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('" + plan.SOCKET + "'); "
        "s.sendall(b'show stat json\\n'); print(b''.join(iter(lambda: s.recv(65536), b'')).decode())"
    )
    python = "$(command -v /usr/libexec/platform-python || command -v python3)"
    end = time.monotonic() + UP_SECONDS
    while True:
        rows = json.loads(host.check_output(f"{python} -c {shlex.quote(program)}"))
        servers = [{field["field"]["name"]: field["value"]["value"] for field in row} for row in rows]
        found = {
            (server["pxname"], server["svname"]): server["status"]
            for server in servers
            if server["pxname"] in ("http", "grpc") and server["svname"] != "BACKEND"
        }
        if all(status.startswith(("UP", "no check")) for status in found.values()) or time.monotonic() > end:
            break
        time.sleep(1)
    names = {(backend, member.name) for backend in ("http", "grpc") for member in wanted.members}
    assert found.keys() == names
    down = {name: status for name, status in found.items() if not status.startswith(("UP", "no check"))}
    assert down == {}


def test_clients_are_shown_the_inventory_s_certificate(
    connection: Connection, wanted: LoadBalancerPlan
) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    own = wanted.own
    with connection.tunnel(own.bind, own.port) as endpoint:
        name, _, port = endpoint.rpartition(":")
        with (
            socket.create_connection((name, int(port)), timeout=15) as plain,
            context.wrap_socket(plain, server_hostname="front") as wrapped,
        ):
            assert wrapped.getpeercert(binary_form=True) == wanted.secrets.certificate
            asking = http.client.HTTPConnection("front")
            asking.sock = wrapped
            asking.request("GET", "/v2/models/ensemble")
            # a host's gateway wants a key
            assert asking.getresponse().status == 401


def test_haproxy_listens_where_the_inventory_says(host: Any, wanted: LoadBalancerPlan) -> None:
    own = wanted.own
    for address, port in ((own.bind, own.port), (own.metrics_bind, own.metrics_port)):
        if port:
            command = f"ss --listening --tcp --numeric --no-header 'sport = :{port}'"
            listening = {line.split()[3] for line in host.check_output(command).splitlines()}
            assert listening == {f"{address}:{port}"}


def test_guard_of_haproxy_is_loaded_and_at_boot(
    host: Any, wanted: LoadBalancerPlan, files: dict[str, HostFile]
) -> None:
    guard = wanted.guard
    assert host.file(guard.rules_path).sha256sum == host_files.digest(files[guard.rules_path].text)
    assert host.service(guard.unit).is_enabled
    listed = host.check_output(f"nft list table inet {guard.table}")
    assert f"tcp dport {wanted.own.port} jump published" in listed
    for network in guard.sources:
        assert network.removesuffix("/32") in listed


def test_metrics_are_those_of_haproxy(host: Any, wanted: LoadBalancerPlan) -> None:
    own = wanted.own
    if not own.metrics_port:
        pytest.skip("metrics_port is 0")
    text = host.check_output(f"curl --silent --fail http://{own.metrics_bind}:{own.metrics_port}/metrics")
    assert 'haproxy_server_status{proxy="http"' in text


def test_packages_are_at_their_versions(host: Any, wanted: LoadBalancerPlan) -> None:
    for name, version in wanted.packages.items():
        query = "%{EPOCHNUM}:%{VERSION}-%{RELEASE}"
        found = host.check_output(f"rpm --query --queryformat '{query}' {shlex.quote(name)}")
        assert version is None or found == version or found.partition(":")[2] == version, name
