"""Which options and variables a profile may give to tritonserver, in addition to those that the plan sets."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from operations.plan.errors import TOKEN
from operations.plan.wording import Form

# tritonserver's options that the plan sets -> where to set them instead. tritonserver reads its options with getopt_long,
# which accepts a shortened name if only one fits.
PLANNED_OPTIONS = {
    "model-repository": "nothing: it is the release's own",
    "model-store": "nothing: it is the release's own",
    "http-port": "server.http_port or the inventory's http_port",
    "grpc-port": "server.grpc_port or the inventory's grpc_port",
    "metrics-port": "server.metrics_port or the inventory's metrics_port",
    "model-control-mode": "server.load_models",
    "repository-poll-secs": "nothing: a release never changes while it serves",
    "load-model": "server.load_models",
    # an operator's own key would be in the inventory, the release's files and the process list
    "http-restricted-api": "server.admin_apis, which opens them; a key of your own is not supported",
    "grpc-restricted-protocol": "server.admin_apis, which opens them; a key of your own is not supported",
    "allow-client-shm": "server.admin_apis",
    "http-max-input-size": "server.max_request_mib",
    "exit-timeout-secs": "the inventory's stop_timeout_s",
    "http-address": "the inventory's bind_address",
    "grpc-address": "the inventory's bind_address",
    "metrics-address": "the inventory's bind_address",
    "reuse-http-port": "nothing: no other process may answer on the server's port",
    "reuse-grpc-port": "nothing: no other process may answer on the server's port",
    "allow-sagemaker": "nothing: its API has no restrictions",
    "sagemaker-port": "nothing: its API has no restrictions",
    "allow-vertex-ai": "nothing: its API has no restrictions",
    "vertex-ai-port": "nothing: its API has no restrictions",
    "disable-auto-complete-config": "nothing: the profile's kind decides it",
    "strict-model-config": "nothing: the profile's kind decides it",
    **dict.fromkeys(
        ("grpc-use-ssl", "grpc-use-ssl-mutual", "grpc-server-cert", "grpc-server-key", "grpc-root-cert"),
        "the inventory's gateway, which has TLS: the checks of a deploy ask the server without it",
    ),
    "log-file": "nothing: the log is the unit's journal, which says why a start failed",
    **dict.fromkeys(
        ("backend-directory", "repoagent-directory", "cache-directory"),
        "nothing: they are those of the image",
    ),
    **dict.fromkeys(("help", "version"), "nothing: the server would print and end"),
}
# Options that a deploy's own checks need -> why they stay on
NEEDED_OPTIONS = {
    "allow-http": "whether a model is ready is asked there",
    "allow-grpc": "the golden requests are sent there",
    "allow-metrics": "the gates of a rollout read them",
    "exit-on-error": "a server that lacks one of its models must end, and not serve the others",
    "strict-readiness": "ready must mean that every model is",
    **dict.fromkeys(("log-error", "log-warning"), "the log is what says why a start failed"),
}
_OFF = ("false", "0", "off", "no")
_SHARED_MEMORY = re.compile(r"python,\s*shm-region-prefix-name\b")

_CONTAINER = (
    "privileged net network network-alias pid ipc uts userns cgroupns cgroup-parent cap-add cap-drop device "
    "device-cgroup-rule volume volumes-from v mount tmpfs user group-add security-opt entrypoint runtime restart "
    "add-host init rm name p"
)
# Options of `docker run`, which are not tritonserver's -> where to set them instead
DOCKER_OPTIONS = {
    "publish": "server.http_port and bind_address",
    "gpus": "gpu_ids",
    "shm-size": "server.shm_size",
    "ulimit": "server.memlock and server.stack_bytes",
    "env": "server.environment",
    "env-file": "server.environment",
    **dict.fromkeys(_CONTAINER.split(), "nothing: the container is made by the plan"),
}

# The serve script replaces these in every argument with the release's own directory and id, the image's id, or a key.
_SCRIPT_VARIABLE = re.compile(r"\$(?:release|id|image|key)(?![A-Za-z0-9_])")

# Variables that the plan sets -> where to set them instead
_LOADER = "nothing: it changes which code runs"
PLANNED_VARIABLES = {
    "NVIDIA_VISIBLE_DEVICES": "gpu_ids in the inventory",
    "CUDA_VISIBLE_DEVICES": "gpu_ids in the inventory",
    "NVIDIA_DRIVER_CAPABILITIES": "nothing: the plan sets it",
    "HF_HUB_OFFLINE": "nothing: a server downloads nothing",
    "HOME": "nothing: it is /tmp, the one place that the server can write to",
    "USER": "nothing: the plan sets it",
    "AIP_MODE": "nothing: it opens Vertex AI's API, which has no restrictions",
    **dict.fromkeys(
        ("PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "BASH_ENV", "ENV", "IFS", "GCONV_PATH"), _LOADER
    ),
}
# A server's environment is in its release's files, and in `docker inspect`.
_SECRET_NAME = re.compile(r"TOKEN|(.*_)?(TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY)")


def check_option(option: str) -> str:
    """
    One option of tritonserver, `--name=value`.

    The value belongs to the same word: otherwise all of its options except two take the next word as their value
    (Option::GetLongOption of triton-inference-server/server, src/command_line_parser.h).
    Raises ValueError for an invalid option, for one that the plan sets, and for an option of docker.
    """
    name, _, value = option.removeprefix("--").partition("=")
    if option.startswith("-") and (docker := DOCKER_OPTIONS.get(name.lstrip("-"))):
        raise ValueError(f"an option of tritonserver: --{name.lstrip('-')} is docker's; say {docker}")
    if not option.startswith("--"):
        raise ValueError(
            "an option of tritonserver in the form --name=value: one with a single - is docker's"
        )
    for planned, instead in PLANNED_OPTIONS.items():
        if name and planned.startswith(name):
            raise ValueError(f"an option that the plan does not set, as it sets --{planned}; say {instead}")
    for needed, why in NEEDED_OPTIONS.items():
        if name and needed.startswith(name) and value.lower() in _OFF:
            raise ValueError(f"--{needed} left on: {why}")
    if not re.fullmatch(r"--[a-z][a-z0-9-]*=\S+", option) or not option.isprintable():
        raise ValueError("tritonserver options in the form --name=value, without spaces")
    if name.startswith("backend-c") and _SHARED_MEMORY.match(value):
        raise ValueError("an option that the plan does not set: each rank has its own shm-region-prefix-name")
    if "docker.sock" in value:
        raise ValueError("no socket of the docker engine: a process that has it is root on the host")
    return _as_it_is(option)


def check_variable(name: str) -> str:
    """The name of one variable of the server's environment. Raises ValueError for one that must not be set."""
    if not re.fullmatch(r"[A-Z][A-Z0-9_]{0,127}", name):
        raise ValueError("a name of capital letters, digits and _")
    if instead := _LOADER if name.startswith("LD_") else PLANNED_VARIABLES.get(name):
        raise ValueError(f"a variable other than {name}; say {instead}")
    if _SECRET_NAME.fullmatch(name):
        raise ValueError("no secret: a server needs none, and its environment can be read by many")
    return name


def check_value(value: str) -> str:
    """The value of one variable. Raises ValueError for more than one line, and for a secret."""
    if TOKEN.search(value):
        raise ValueError("no secret: a server needs none, and its environment can be read by many")
    if not value.isprintable() or len(value) > 4096:
        raise ValueError("one line of text")
    return _as_it_is(value)


def _as_it_is(text: str) -> str:
    if _SCRIPT_VARIABLE.search(text):
        raise ValueError("text without $release, $id, $image and $key, which the release's script replaces")
    return text


ServerOption = Annotated[
    str,
    AfterValidator(check_option),
    Form('an option of tritonserver as "--name=value", such as "--log-verbose=1"'),
]
VariableName = Annotated[str, AfterValidator(check_variable)]
VariableValue = Annotated[str, AfterValidator(check_value)]
