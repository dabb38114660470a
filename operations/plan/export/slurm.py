"""A release as a batch job of Slurm, with pyxis and enroot for its container.

Sources: triton-inference-server/tensorrtllm_backend, README, "Launch Triton server within Slurm based clusters"; NVIDIA/pyxis,
README; NVIDIA/enroot, doc/cmd/import.md. One rank of an engine is one task; the ranks find each other through PMIx.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from operations.plan.catalog.nccl import NCCL
from operations.plan.errors import PlanError
from operations.plan.export.served import Served
from operations.plan.serving.serve import NEW_KEY, shell_word


def batch_job(
    one: Served, ranks: int, leader: list[str], worker: list[str], options: dict[str, str], nccl: bool = False
) -> str:
    """
    The script for sbatch.

    + ranks: of the engine; each is a task
    + leader, worker: the command of rank 0 and of the others; `$key` stands for a key that each start makes
    + options: further directives of sbatch, such as partition

    One node serves one copy: more of them are an array of jobs (--array), because the tasks of one step are one MPI world.
    """
    mounts = [f"{one.data_root}/{path}:{target}:ro" for path, target in one.mounts.items()]
    if bad := [each for each in mounts if "," in each or each.count(":") != 2]:
        raise PlanError("data_root", bad[0], "paths without commas and colons, which pyxis cannot mount")
    directives = {
        "job-name": one.name,
        "nodes": "1",
        "ntasks-per-node": str(ranks),
        # some clusters know GPUs only as generic resources
        **({} if "gres" in options else {"gpus-per-node": str(one.gpus)}),
        "exclusive": "",
        "output": "%x-%A_%a.out" if "array" in options else "%x-%j.out",
        **options,
    }
    given = one.without_cache
    if bad := [name for name in options if name == "nodes" or name.startswith("ntasks")]:
        then = "an array of jobs has several copies: --sbatch array=0-3"
        raise PlanError("--sbatch", bad[0], "other directives: one job has one copy on one node", then)
    spanning = NCCL.get(one.shape, {}) if nccl else {}
    lines = [
        "#!/bin/bash",
        f"# Release {one.release} of {one.model}, written by tritonhost export: changes are overwritten.",
        "# An engine runs only on the GPU that it was made for, and only in this image. The node has, from a host of tritonhost:",
        *(f"#     {one.data_root}/{path}" for path in one.mounts),
        *(
            f"#SBATCH --{name}={value}" if value else f"#SBATCH --{name}"
            for name, value in directives.items()
        ),
        "",
        *(["# For engines that span hosts; within one host they are not needed:"] if spanning else []),
        *(f"#     export {name}={shlex.quote(value)}" for name, value in spanning.items()),
        "set -eu",
        "# the key of the closed APIs: a new one at each start, the same for all ranks",
        NEW_KEY,
        "export key",
        "",
        f"srun --mpi={'pmix' if ranks > 1 else 'none'} \\",
        f"    --container-image={shlex.quote(_enroot(one.image))} \\",
        f"    --container-mounts={shlex.quote(','.join(mounts))} \\",
        "    --container-env=key \\",
        "    --container-workdir=/tmp --no-container-mount-home --container-readonly \\",
        f"    sh -c {shlex.quote(_task(ranks, leader, worker, given))}",
    ]
    return "\n".join(lines) + "\n"


def _task(ranks: int, leader: list[str], worker: list[str], environment: Mapping[str, str]) -> str:
    # in the container: outside, HOME is where enroot finds the registry's password
    given = "".join(f"export {name}={shlex.quote(value)}; " for name, value in environment.items())
    first = " ".join(map(shell_word, leader))
    if ranks == 1:
        return f"{given}exec {first}"
    other = " ".join(map(shell_word, worker))
    region = '--backend-config=python,shm-region-prefix-name=prefix"$SLURM_PROCID"_'
    return f'{given}if [ "$SLURM_PROCID" = 0 ]; then exec {first} {region}; else exec {other} {region}; fi'


def _enroot(image: str) -> str:
    """As enroot names a registry: REGISTRY#NAME. A digest needs enroot 4."""
    registry, _, rest = image.partition("/")
    return f"{registry}#{rest}" if re.search(r"[.:]", registry) else image
