"""Docker with NVIDIA's runtime: settings are compared by meaning, and docker restarts only if one of them changes."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping
from typing import Any

from pyinfra import host
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.operation import operation
from pyinfra.operations import systemd

from operations.facts.docker import DaemonConfiguration
from operations.plan import PlanError
from operations.plan.machine import daemon_json
from operations.plan.release import Release
from operations.remote.refusal import refuse
from operations.scripts import host_script

# two starts of docker, and the stop of its containers
RESTART_SECONDS = 600


@deploy("Container runtime")
def configure(release: Release) -> None:
    """Docker runs, starts at boot, and knows NVIDIA's runtime."""
    configured(
        name="Configure docker",
        settings=release.docker_settings,
        start_timeout_s=release.settings.start_timeout_s,
    )
    systemd.service(name="Enable and start docker", service="docker.service", running=True, enabled=True)


@operation()
def configured(
    settings: Mapping[str, Any], start_timeout_s: int, nvidia: bool = True
) -> Generator[StringCommand | FunctionCommand, None, None]:
    """
    /etc/docker/daemon.json has these settings and NVIDIA's runtime, and the engine runs and knows the runtime.

    + settings: top-level key -> value; other keys of the file stay as they are
    + start_timeout_s: seconds that the servers may take to start again after docker failed to start with the new file
    + nvidia: False for a host without GPUs, whose docker does without that runtime

    nvidia-ctk writes into a copy, which then replaces the file atomically: it would truncate the file itself while it
    writes (NVIDIA/nvidia-container-toolkit, pkg/config/raw.go). Docker restarts only here, and not if the file already
    means the same. A file that docker rejects is never installed. If docker cannot start with the new file, the old
    file is restored.
    """
    found = host.get_fact(DaemonConfiguration)
    try:
        present = daemon_json.parse(found.text)
        wanted = daemon_json.merged(found.text, settings)
    except PlanError as error:
        yield refuse(f"{error}; the file was left as it is")
        return
    complete = not daemon_json.missing(present, settings)
    if nvidia:
        complete = complete and daemon_json.has_nvidia_runtime(present) and found.engine_knows_nvidia
    if complete and found.running and not found.unread:
        host.noop("daemon.json already has these settings, and docker uses them")
        return
    sent = {
        "FILE": daemon_json.PATH,
        "UNREAD": daemon_json.UNREAD,
        "NEW": daemon_json.NEW,
        "BEFORE": daemon_json.BEFORE,
        "SHA256": hashlib.sha256(wanted.encode()).hexdigest(),
        "START_SECONDS": str(start_timeout_s),
        "NVIDIA": "yes" if nvidia else "",
    }
    script = host_script("configure_docker.sh", sent)
    yield StringCommand(script, _stdin=wanted, _timeout=RESTART_SECONDS + start_timeout_s)
