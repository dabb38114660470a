"""nginx before the server: TLS, API keys, and inference alone let through. Where the inventory has no gateway, there is none."""

from __future__ import annotations

import http.client
import shlex
import socket
import ssl
from collections.abc import Generator

from pyinfra import host, logger
from pyinfra.api.command import FunctionCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State

from operations import etc_files, gateway_secrets, host_files, rollout, serving_image
from operations.detached import LOST, shell
from operations.facts.gateway import Gateway as Found
from operations.facts.gateway import GatewayState
from operations.plan import gateway as plan
from operations.plan.gateway import Gateway, Secrets
from operations.plan.release import Release
from operations.scripts import archive, host_script
from operations.systemd_units import reloaded
from operations.tunnel import forwarded

ASKED_SECONDS = 10


@deploy("Gateway")
def install(release: Release) -> None:
    """Before anything is stopped: its image is here, and nginx takes the configuration, the certificate and the keys."""
    gateway = release.gateway
    if gateway is None:
        return
    serving_image.made(release, gateway.image, "Pull the gateway's image")
    written(name="Try the gateway's files", release=release, only_tried=True)


@deploy("Gateway")
def lead(release: Release) -> None:
    """Last of all: it runs with its files, before the server that was proven; without a gateway, nothing is left of one."""
    gateway = release.gateway
    if gateway is None:
        gone(name="Remove the gateway", release=release)
        return
    unit = f"{gateway.service}.service"
    path = host_files.gateway_unit_path(release.settings)
    written(name="Write the gateway's files", release=release)
    etc_files.written(name="Install the gateway's unit", path=path, text=host_files.rendered(release)[path])
    reloaded(name="Let systemd read the gateway's unit", unit=unit)
    running(name="Run the gateway", release=release)


@operation()
def written(release: Release, only_tried: bool = False) -> Generator[FunctionCommand, None, None]:
    """
    The gateway's files are in their directory, readable by root and by its container's user alone; nginx takes them.

    + release: whose gateway
    + only_tried: nginx would take them, and those that are there are not touched
    """
    gateway, secrets = _wanted(release)
    if _differing(release, gateway, secrets):
        yield FunctionCommand(_put, (gateway, secrets, only_tried), {})
    else:
        host.noop("the gateway has its files")


@operation()
def running(release: Release) -> Generator[str | FunctionCommand, None, None]:
    """
    nginx runs from its image, has read its files, starts at boot, and was asked: with a key and without.

    + release: whose gateway

    What it has read is compared, and not what this run wrote: a run that was killed in between would otherwise leave an
    old certificate in use. A certificate or a key that changes costs no connection; another image does.
    """
    gateway, secrets = _wanted(release)
    unit = f"{gateway.service}.service"
    wanted = host_files.gateway_loaded(gateway, host_files.gateway_files(gateway, secrets))
    found = _found(release)
    if found.loaded == wanted and found.enabled:
        host.noop("nginx has read its files")
        return
    if not found.enabled:
        yield f"systemctl enable --quiet {unit}"
    if found.loaded != wanted:
        same = found.loaded.split(" ")[0] == gateway.key
        yield f"systemctl {'reload' if same else 'restart'} {unit}"
    yield FunctionCommand(_asked, (gateway, secrets), {})


@operation()
def gone(release: Release) -> Generator[str, None, None]:
    """
    No gateway runs, and none of its files is there: its key is nobody's to find.

    + release: a release without a gateway
    """
    settings = release.settings
    found = _found(release)
    if not (found.digests or found.modes or found.active or found.enabled):
        host.noop("there is no gateway")
        return
    unit = f"{plan.service(settings.service_name)}.service"
    if found.active or found.enabled:
        yield f"systemctl disable --quiet --now {unit}"
    yield f"rm -rf {shlex.quote(plan.directory(settings.data_root))}"


def _wanted(release: Release) -> tuple[Gateway, Secrets]:
    assert release.gateway is not None and release.settings.gateway is not None
    return release.gateway, gateway_secrets.load(release.settings.gateway, host.name)


def _found(release: Release) -> Found:
    service = plan.service(release.settings.service_name)
    found: Found = host.get_fact(
        GatewayState,
        service=service,
        directory=plan.directory(release.settings.data_root),
        paths=host_files.gateway_paths(release.settings),
        record=plan.record(service),
    )
    return found


def _differing(release: Release, gateway: Gateway, secrets: Secrets) -> bool:
    wanted = host_files.gateway_digests(gateway, host_files.gateway_files(gateway, secrets))
    found = _found(release)
    modes = plan.modes(gateway.directory)
    return (
        wanted != found.digests
        or modes != {path: found.modes.get(path) for path in modes}
        or f"{gateway.directory}/{plan.FRESH}" in found.modes
    )


def _put(state: State, host: Host, gateway: Gateway, secrets: Secrets, only_test: bool) -> bool:
    """Its files are in place, or only tried out. Given the secrets themselves, which no representation shows."""
    variables = {
        "TEST": "yes" if only_test else "",
        "DIRECTORY": gateway.directory,
        "FRESH": plan.FRESH,
        "USER_ID": str(plan.USER),
        "NGINX_FILES": " ".join(plan.FILES),
        "IMAGE_RECORD": gateway.image_record,
    }
    script = host_script("write_gateway.sh", variables, host_files.shell_function("test_it", gateway.test))
    try:
        ok, output = shell(host, script, stdin=archive(host_files.gateway_files(gateway, secrets)))
    except LOST as error:
        ok, output = False, [f"gateway: connection lost ({error}); run the same command again"]
    if not ok:
        said = next((line for line in reversed(output) if line.startswith("gateway: ")), "gateway: no answer")
        logger.error(f"{host.print_prefix}{said}")
        rollout.failed(host, said)
    return ok


def _asked(state: State, host: Host, gateway: Gateway, secrets: Secrets) -> bool:
    """Whether it shows the certificate, refuses who has no key, and knows the first key."""
    try:
        with forwarded(host, gateway.local_address, gateway.port) as endpoint:
            problem = asked(endpoint, secrets)
    except LOST as error:
        problem = f"no answer: {error}"
    if problem:
        said = f"gateway: {gateway.local_url}: {problem}; see: journalctl --unit {gateway.service}"
        logger.error(f"{host.print_prefix}{said}")
        rollout.failed(host, said)
    return not problem


def asked(endpoint: str, secrets: Secrets) -> str:
    """
    What is wrong with the gateway at host:port, as a client sees it; nothing: it is as it should be.

    Whether the server behind it answers is no question here: the swap has asked.
    """
    # its certificate is compared with the one that was given, whoever signed it
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    name, _, port = endpoint.rpartition(":")
    statuses = []
    for header in ({}, {"Authorization": f"Bearer {secrets.keys[0][1]}"}):
        with (
            socket.create_connection((name, int(port)), timeout=ASKED_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname="gateway") as encrypted,
        ):
            if encrypted.getpeercert(binary_form=True) != secrets.certificate:
                return "found another certificate, expected the inventory's"
            connection = http.client.HTTPConnection(name, int(port))
            connection.sock = encrypted
            connection.request("GET", "/", headers=header)
            statuses.append(connection.getresponse().status)
    if statuses != [401, 404]:
        return f"found HTTP {statuses[0]} without a key and {statuses[1]} with one, expected 401 and 404"
    return ""
