"""What tritonserver is told about who may ask it what: data, by Triton's version, with sources.

All of it was read in triton-inference-server/server at its tags v2.45.0 (24.04) to v2.71.0 (26.07):
src/command_line_parser.cc for the flags and their defaults, src/restricted_features.h for the categories,
src/http_server.cc and src/grpc/grpc_server.cc for what a category closes.
"""

from __future__ import annotations

from operations.plan.errors import PlanError
from operations.plan.support_matrix import version_tuple

# What the serve script calls the key that it makes at each start.
KEY = "$key"
HEADER = "tritonhost-key"

# Categories of APIs that no client of a model needs, and that change the server for everybody else: loading and
# unloading models, registering memory of the server's own machine, tracing requests into files, logging. The other
# five (health, metadata, inference, model-config, statistics) only read, or are what the server is for. All nine are
# the same from v2.45.0 to v2.71.0; a name that a version does not know ends its start.
CLOSED = ("model-repository", "shared-memory", "trace", "logging")

# Flags that some versions do not know, which end the start of those: flag -> the first version that has it
SINCE = {
    "http-max-input-size": "2.59.0",  # 25.06; before, nothing bounds a request's size
    "allow-client-shm": "2.68.0",  # 26.04, false there by default; before, clients always may
}
MIB = 2**20
DEFAULT_REQUEST_MIB = 64  # HTTP_DEFAULT_MAX_INPUT_SIZE of src/http_server.h

# What is left at its default, which is off: --log-verbose (its lines may hold parts of requests), --trace-config.
# --allow-sagemaker and --allow-vertex-ai are off too, unless the environment has AIP_MODE; a build without these
# endpoints does not know the flags, so that they are not said but refused (operations/plan/server_options.py).


def knows(triton: str, flag: str) -> bool:
    """Whether tritonserver of that version has the flag, of those in SINCE."""
    return version_tuple(triton) >= version_tuple(SINCE[flag])


def exposure(
    *, triton: str, admin_apis: bool, max_request_mib: int, stop_timeout_s: int, explicit: bool
) -> list[str]:
    """
    The options that bound what a client can do to the server.

    + triton: its version, such as 2.50.0
    + admin_apis: whether the categories in CLOSED are open to everyone who reaches the port
    + max_request_mib: the largest HTTP request, in MiB; gRPC has no such bound in any version
    + stop_timeout_s: after how many seconds docker kills a server that was asked to stop
    + explicit: whether models are loaded by name, which says the model control mode already

    Raises PlanError for a bound that the version cannot keep.
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
    # requests in flight end before docker loses its patience, which would be a kill
    return [*options, f"--exit-timeout-secs={max(1, stop_timeout_s * 3 // 4)}"]
