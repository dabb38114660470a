"""Docker with NVIDIA's runtime: configured by meaning, restarted only when what it must know changed."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from pyinfra import host
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.operation import operation
from pyinfra.operations import systemd

from operations.facts.docker import DaemonConfiguration
from operations.plan import PlanError, daemon_json
from operations.plan.release import Release
from operations.refusal import refuse
from operations.scripts import host_script


@deploy("Container runtime")
def configure(release: Release) -> None:
    """The docker engine runs, at boot too, and knows NVIDIA's runtime."""
    configured(name="Configure docker", settings=release.docker_settings)
    systemd.service(name="Enable and start docker", service="docker.service", running=True, enabled=True)


@operation()
def configured(settings: Mapping[str, Any]) -> Generator[StringCommand | FunctionCommand, None, None]:
    """
    /etc/docker/daemon.json has these settings and NVIDIA's runtime, and the running engine knows the runtime.

    + settings: top-level key -> value; other keys of the file stay as they are

    nvidia-ctk writes its part into a copy that then replaces the file at once: it would truncate the file itself
    while it writes (NVIDIA/nvidia-container-toolkit, pkg/config/raw.go). docker is restarted only here, and not
    when the file says all this already in other words.
    """
    found = host.get_fact(DaemonConfiguration)
    try:
        present = daemon_json.parse(found.text)
        wanted = daemon_json.merged(found.text, settings)
    except PlanError as error:
        yield refuse(f"{error}; the file was left as it is")
        return
    complete = daemon_json.has_nvidia_runtime(present) and not daemon_json.missing(present, settings)
    if complete and found.engine_knows_nvidia and not found.unread:
        host.noop("daemon.json means this already, and the engine knows it")
        return
    yield StringCommand(
        host_script("configure_docker.sh", {"UNREAD": daemon_json.UNREAD}), _stdin=wanted, _timeout=300
    )
