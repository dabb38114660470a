"""What is installed and what runs on a host, of which a security bulletin may speak: files/host/exposure.sh, in one round trip."""

from __future__ import annotations

import json
import re

from operations.facts.parse import sections, tabbed
from operations.plan.audit.fleet import Found, of_packages, of_release
from operations.plan.errors import one_line
from operations.plan.exposure import door, gateway
from operations.plan.inventory.settings import Settings
from operations.scripts import host_script

# The loaded module of the driver, open or not
MODULE = "/sys/module/nvidia/version"
PACKAGES = (
    "docker-ce",
    "docker-ce-cli",
    "containerd.io",
    "nvidia-container-toolkit",
    "libnvidia-container1",
    "haproxy",
)
_PART = "\x1f"
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)+")


def script(settings: Settings) -> str:
    """The shell text that reads it."""
    return host_script(
        "exposure.sh",
        {
            "DATA_ROOT": settings.data_root,
            "STATE_ROOT": settings.state_root,
            "SERVICE": settings.service_name,
            "MODULE": MODULE,
            "PACKAGES": "\n".join(PACKAGES),
        },
    )


def versions(output: list[str], service: str) -> tuple[list[Found], str, str]:
    """
    The components that were found, the id of the running release, and what could not be read.

    + service: the server's container

    Raises ValueError where the output ends early.
    """
    part = sections(output)
    if "end" not in part:
        raise ValueError("the output ends early")
    found = of_packages(tabbed(part["packages"]))
    installed = {one.version for one in found if one.component == "docker-ce"}
    engine = "".join(part["engine"]).strip()
    if _NUMBER.match(engine) and engine not in installed:
        # the package was updated, and the engine not started again
        found.append(Found(component="docker-ce", version=engine, where="running"))
    problems = []
    # a line for each GPU
    driver = next((line.strip() for line in part["driver"] if line.strip()), "")
    if _NUMBER.fullmatch(driver):
        found.append(Found(component="driver", version=driver, where="loaded"))
    else:
        problems.append(f"driver: {one_line(driver)[:200] or 'none is loaded, and nvidia-smi says nothing'}")
    running = _containers(part["containers"], service)
    found += [one for containers in running.values() for one in containers]
    if running.get(gateway.service(service)) == []:
        problems.append("gateway: its image does not say NGINX_VERSION")
    release = "\n".join(part["release"]).strip()
    identity = ""
    if release:
        try:
            document = json.loads(release)
            found += of_release(document)
            identity = one_line(str(document["release"]))[:200]
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            problems.append(f"release.json: {type(error).__name__}: {one_line(str(error))[:200]}")
    return found, identity, "; ".join(problems)


def _containers(lines: list[str], service: str) -> dict[str, list[Found]]:
    """What the images of the running containers say of themselves, by container."""
    # container -> the variable of its official image, and what that is the version of; others may have Python's as well
    known = {
        gateway.service(service): ("NGINX_VERSION", "nginx"),
        f"{service}-database": ("PG_VERSION", "postgresql"),
        door.service(service): ("PYTHON_VERSION", "python"),
    }
    found: dict[str, list[Found]] = {}
    for chunk in "\n".join(lines).split(_PART)[1:]:
        name, _, text = chunk.partition("\n")
        said = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        variable, component = known.get(name, ("", ""))
        version = said.get(variable, "")[:40]
        numbered = _NUMBER.match(version)
        found[name] = [Found(component=component, version=version, where="running")] if numbered else []
    return found
