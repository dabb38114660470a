"""The gateway: nginx in front of the server, with TLS and API keys; it lets only inference requests through."""

from __future__ import annotations

import shlex
from collections.abc import Generator

from pyinfra import host, logger
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State

from operations import etc_files, rollout, serving_image
from operations.facts.gateway import Gateway as Found
from operations.facts.gateway import GatewayState
from operations.intake import gateway_secrets
from operations.plan.errors import one_line
from operations.plan.exposure import gateway as plan
from operations.plan.exposure.gateway import Gateway, Secrets
from operations.plan.release import Release
from operations.remote import host_files
from operations.remote.detached import LOST, shell
from operations.remote.tls_request import OTHER_CERTIFICATE, status_of
from operations.remote.tunnel import forwarded
from operations.scripts import archive, host_script
from operations.systemd_units import keep, reloaded, restart_kept

START_SECONDS = 150  # the unit's start timeout, and its stop timeout without the drain


@deploy("Gateway")
def install(release: Release) -> None:
    """Before anything stops: pull the image, and let nginx test the configuration, the certificate and the keys."""
    gateway = release.gateway
    if gateway is None:
        return
    serving_image.made(release.data_root, gateway.image, "Pull the gateway's image")
    written(name="Test the gateway's files", release=release, only_tried=True)


@deploy("Gateway")
def lead(release: Release) -> None:
    """Last step: the gateway runs with its files, in front of the proven server. Without one, remove what is left of it."""
    gateway = release.gateway
    if gateway is None:
        gone(name="Remove the gateway", release=release)
        return
    unit = f"{gateway.service}.service"
    unit_file = host_files.rendered(release)[host_files.paths(release.settings).gateway_unit]
    kept(name="Keep what the gateway runs with", release=release)
    written(name="Write the gateway's files", release=release)
    etc_files.written(name="Install the gateway's unit", path=unit_file.path, text=unit_file.text)
    reloaded(name="Let systemd read the gateway's unit", unit=unit)
    running(name="Run the gateway", release=release)


@operation()
def written(release: Release, only_tried: bool = False) -> Generator[FunctionCommand, None, None]:
    """
    The gateway's files are in their directory, readable only by root and the container's user, and nginx accepts them.

    + release: whose gateway
    + only_tried: let nginx test the new files, and do not touch the existing ones
    """
    gateway, secrets = _wanted(release)
    if _differing(release, gateway, secrets):
        yield FunctionCommand(_put, (gateway, secrets, only_tried), {})
    else:
        host.noop("the gateway has its files")


@operation()
def kept(release: Release) -> Generator[StringCommand, None, None]:
    """
    Before another image or other options replace a running gateway, save its files until the new one runs.

    + release: whose gateway
    """
    gateway, _ = _wanted(release)
    found = _found(release)
    if found.loaded.key in ("", gateway.key):
        host.noop("no other one runs")
        return
    settings = release.settings
    paths = [*host_files.gateway_paths(settings), host_files.paths(settings).gateway_unit]
    yield keep(f"{gateway.service}.service", paths)


@operation()
def running(release: Release) -> Generator[str | StringCommand | FunctionCommand, None, None]:
    """
    nginx runs from its image, has read its files, starts at boot, and was tested with and without a key.

    + release: whose gateway

    Compares what nginx has read, not what this run wrote: a run that is killed in between would otherwise leave an old
    certificate in use. A new certificate or key costs no connection; another image does.
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
        same = found.loaded.key == gateway.key
        # people have no other way to the server: what does not start leaves them the one before
        yield f"systemctl reload {unit}" if same else restart_kept(unit, START_SECONDS + gateway.drain_s)
    yield FunctionCommand(_asked, (gateway, secrets), {})


@operation()
def gone(release: Release) -> Generator[str, None, None]:
    """
    No gateway runs, and its files are removed: no private key stays on disk.

    + release: a release without a gateway
    """
    settings = release.settings
    found = _found(release)
    if not is_there(release):
        host.noop("there is no gateway")
        return
    unit = f"{plan.service(settings.service_name)}.service"
    if found.active or found.enabled:
        yield f"systemctl disable --quiet --now {unit}"
    yield f"rm -rf {shlex.quote(plan.directory(settings.state_root))}"


def is_there(release: Release) -> bool:
    """Whether the host has any part of a gateway: then a run has reached the stage that starts it."""
    found = _found(release)
    return bool(found.digests or found.modes or found.active or found.enabled)


def _wanted(release: Release) -> tuple[Gateway, Secrets]:
    assert release.gateway is not None and release.settings.gateway is not None
    return release.gateway, gateway_secrets.load(release.settings.gateway, host.name)


def _found(release: Release) -> Found:
    service = plan.service(release.settings.service_name)
    found: Found = host.get_fact(
        GatewayState,
        service=service,
        directory=plan.directory(release.settings.state_root),
        paths=host_files.gateway_paths(release.settings),
        record=plan.record(service),
    )
    return found


def _differing(release: Release, gateway: Gateway, secrets: Secrets) -> bool:
    files = host_files.gateway_expected(gateway, host_files.gateway_files(gateway, secrets))
    found = _found(release)
    modes = plan.modes(gateway.directory)
    return (
        found.digests != {file.path: file.digest for file in files}
        or modes != {path: found.modes.get(path) for path in modes}
        or f"{gateway.directory}/{plan.FRESH}" in found.modes
    )


def _put(state: State, host: Host, gateway: Gateway, secrets: Secrets, only_test: bool) -> bool:
    """Install the files, or only test them. Takes the secrets themselves, which their repr hides."""
    variables = {
        "TEST": "yes" if only_test else "",
        "DIRECTORY": gateway.directory,
        "FRESH": plan.FRESH,
        "USER_ID": str(plan.USER),
        "NGINX_FILES": " ".join(plan.FILES),
        "IMAGE_RECORD": gateway.image_record,
        "RECORD": gateway.record,
    }
    script = host_script("write_gateway.sh", variables, host_files.shell_function("test_it", gateway.test))
    try:
        ok, output = shell(host, script, stdin=archive(host_files.gateway_files(gateway, secrets)))
    except LOST as error:
        ok, output = False, [f"gateway: connection lost ({error}); run the same command again"]
    if not ok:
        lines = (line for line in reversed(output) if line.startswith("gateway: "))
        said = one_line(next(lines, "gateway: no answer"))
        logger.error(f"{host.print_prefix}{said}")
        rollout.failed(host, said)
    return ok


def _asked(state: State, host: Host, gateway: Gateway, secrets: Secrets) -> bool:
    """Whether it presents the certificate, rejects a request without a key, and accepts the first key."""
    try:
        with forwarded(host, gateway.local_address, gateway.port) as endpoint:
            problem = asked(endpoint, secrets)
    except LOST as error:
        problem = f"no answer: {error}"
    if problem:
        problem = one_line(f"{gateway.local_url}: {problem}")
        said = f"gateway: {problem}; see: journalctl --unit {gateway.service}"
        logger.error(f"{host.print_prefix}{said}")
        rollout.failed(host, said)
    return not problem


def asked(endpoint: str, secrets: Secrets) -> str:
    """
    Test the gateway at host:port as a client would. Returns the problem, or an empty string.

    It does not test the server behind the gateway: the swap has done that.
    """
    statuses = []
    for header in ({}, {"Authorization": f"Bearer {secrets.keys[0][1]}"}):
        status = status_of(endpoint, secrets.certificate, "/", header)
        if not status:
            return OTHER_CERTIFICATE
        statuses.append(status)
    if statuses != [401, 404]:
        return f"found HTTP {statuses[0]} without a key and {statuses[1]} with one, expected 401 and 404"
    return ""
