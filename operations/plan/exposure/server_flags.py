"""tritonserver's options that limit what clients may do: data, by Triton's version, with sources.

All of it was read in triton-inference-server/server at its tags v2.43.0 (24.02, the base of builds) to v2.71.0 (26.07):
src/command_line_parser.cc for the flags and their defaults, src/restricted_features.h for the categories,
src/http_server.cc and src/grpc/grpc_server.cc for what a category closes.
"""

from __future__ import annotations

from operations.plan.catalog.support_matrix import version_tuple
from operations.plan.errors import PlanError
from operations.plan.units import MIB

# The serve script's name of the key that it makes at each start.
KEY = "$key"
HEADER = "tritonhost-key"

# Categories of APIs that clients of a model do not need, and that change the server for all clients: loading and unloading
# models, registering memory of the server's own machine, tracing requests into files, logging. The other five (health,
# metadata, inference, model-config, statistics) only read, or are the server's purpose. All nine are the same from v2.43.0
# to v2.71.0; with an unknown name, a version does not start.
CLOSED = ("model-repository", "shared-memory", "trace", "logging")

# Flags that some versions do not know, and do not start with: flag -> the first version that has it
SINCE = {
    "http-max-input-size": "2.59.0",  # 25.06; before, nothing limits a request's size
    "allow-client-shm": "2.68.0",  # 26.04, false there by default; before, clients always may
}
DEFAULT_REQUEST_MIB = 64  # HTTP_DEFAULT_MAX_INPUT_SIZE of src/http_server.h

# Left at their default, which is off: --log-verbose (its lines may contain parts of requests), --trace-config.
# --allow-sagemaker and --allow-vertex-ai are off too, unless the environment has AIP_MODE; a build without these
# endpoints does not know the flags, so they are refused instead of passed (operations/plan/catalog/server_options.py).


def knows(triton: str, flag: str) -> bool:
    """Whether tritonserver of that version has a flag of SINCE; an unknown version is that of a new image."""
    return not triton or version_tuple(triton) >= version_tuple(SINCE[flag])


def exposure(
    *, triton: str, admin_apis: bool, max_request_mib: int, stop_timeout_s: int, explicit: bool
) -> list[str]:
    """
    The options that limit what a client can do to the server.

    + triton: its version, such as 2.50.0
    + admin_apis: whether the categories in CLOSED are open to everyone who reaches the port
    + max_request_mib: the largest HTTP request, in MiB; gRPC has no such limit in any version
    + stop_timeout_s: the seconds after which docker kills a server that was told to stop
    + explicit: whether models are loaded by name, which already sets the model control mode

    Raises PlanError for a limit that the version does not support.
    """
    options = [] if explicit else ["--model-control-mode=none"]
    if not admin_apis:
        closed = f"{','.join(CLOSED)}:{HEADER}={KEY}"
        options += [f"--http-restricted-api={closed}", f"--grpc-restricted-protocol={closed}"]
    if knows(triton, "allow-client-shm"):
        options.append(f"--allow-client-shm={str(admin_apis).lower()}")
    if knows(triton, "http-max-input-size"):
        options.append(f"--http-max-input-size={max_request_mib * MIB}")
    elif max_request_mib != DEFAULT_REQUEST_MIB:
        raise PlanError(
            "server.max_request_mib",
            max_request_mib,
            f"nothing with Triton {triton}, which cannot bound a request",
            "Triton can from 25.06 on: use a newer image.release, or a proxy in front",
        )
    # requests in flight end before docker kills the server
    return [*options, f"--exit-timeout-secs={max(1, stop_timeout_s * 3 // 4)}"]
