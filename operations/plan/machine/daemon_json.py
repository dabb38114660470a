"""/etc/docker/daemon.json by its meaning, not by its text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from operations.plan.errors import PlanError

# exists from before the file is replaced until docker has restarted
UNREAD = "/etc/docker/.daemon.json.unread"
# the new file, and the file that docker has read last, until it has read the new one
NEW = "/etc/docker/.daemon.json.new"
BEFORE = "/etc/docker/.daemon.json.before"
PATH = "/etc/docker/daemon.json"
NVIDIA_RUNTIME = "nvidia-container-runtime"


def parse(text: str) -> dict[str, Any]:
    """
    The file's settings; an absent or empty file has none.

    Raises PlanError for a file that is not a JSON object: it is then left unchanged.
    """
    if not text.strip():
        return {}
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise PlanError(PATH, f"{error.msg} at line {error.lineno}", "valid JSON", "fix it by hand") from None
    if not isinstance(value, dict):
        raise PlanError(PATH, value, "a JSON object", "fix it by hand")
    return value


def has_nvidia_runtime(settings: Mapping[str, Any]) -> bool:
    """Whether docker knows NVIDIA's runtime: `runtimes.nvidia.path` names its binary, with or without a directory."""
    runtimes = settings.get("runtimes")
    runtime = runtimes.get("nvidia") if isinstance(runtimes, dict) else None
    return isinstance(runtime, dict) and str(runtime.get("path", "")).rsplit("/", 1)[-1] == NVIDIA_RUNTIME


def missing(settings: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The wanted keys that the file lacks, or has with another value."""
    return sorted(key for key, value in wanted.items() if settings.get(key) != value)


def merged(text: str, wanted: Mapping[str, Any]) -> str:
    """The file with the wanted keys in it and every other key as it was."""
    return json.dumps({**parse(text), **wanted}, indent=4) + "\n"
