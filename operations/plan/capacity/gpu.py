"""The GPUs of a host, from the text of nvidia-smi."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass

from operations.plan.errors import PlanError, Said

QUERY_FIELDS = (
    *("index", "name", "uuid", "compute_cap"),
    *("memory.total", "memory.free", "driver_version", "mig.mode.current"),
)
# Without these a release cannot be planned.
_NEEDED = ("name", "uuid", "compute_cap", "driver_version")
QUERY = f"nvidia-smi --query-gpu={','.join(QUERY_FIELDS)} --format=csv,noheader,nounits"
# compute_cap: drivers of the branches 460 and 470 do not know it (https://github.com/huggingface/candle/issues/733:
# 470.182.03; https://github.com/NVIDIA/TensorRT-LLM/pull/735: 470.82.01). That 510 is the first is concluded from reports,
# not from a page of NVIDIA.
FIRST_DRIVER = 510
DRIVER_TOO_OLD = (
    "the driver is too old, or nvidia-smi is an older one's: install the driver that the release needs, which "
    "`python -m operations.plan explain` names"
)
# What nvidia-smi prints for a GPU or a driver that does not work, in a line of its own or in a field
FAULT = re.compile(
    r"is lost|fallen off the bus|requires reset|unknown error|unable to|\bfail(ed|ure)?\b|could ?n.t|cannot|"
    r"no devices were found|not found|mismatch|\berror:",
    re.IGNORECASE,
)
_NO_FIELD = re.compile(r"""Field ["']?([\w.]+)["']? is not a valid field""")


@dataclass(frozen=True)
class Gpu:
    """One GPU: `compute_capability` such as 8.6, memory in MiB."""

    index: int
    name: str
    uuid: str
    compute_capability: str
    memory_total_mib: int
    memory_free_mib: int
    driver: str
    mig: bool = False  # partitioned: a process sees a part of it, or nothing


@dataclass(frozen=True)
class Answer:
    """What nvidia-smi answered: its GPUs, the problem if they cannot be used, and its other lines."""

    gpus: tuple[Gpu, ...] = ()
    problem: str = ""
    remarks: tuple[str, ...] = ()


def read_query(text: str) -> Answer:
    """
    Parses the output of `QUERY`, or its standard error if there is no other output.

    nvidia-smi prints faults of a driver or a GPU on standard output, and warnings too. A line that reports a fault is a
    problem, however many GPUs answer: a GPU that fell off the bus is missing among them. Any other line beside GPUs is a
    remark.
    """
    gpus, others, problem = [], [], ""
    for line in filter(str.strip, text.splitlines()):
        [row] = csv.reader([line], skipinitialspace=True)
        fields = [field.strip() for field in row]
        if len(fields) != len(QUERY_FIELDS) or not fields[0].isdecimal():
            others.append(" ".join(line.split()))
            continue
        problem = problem or _unusable(fields)
        index, name, uuid, capability, total, free, driver, mig = fields
        memory = [int(field) if field.isdecimal() else 0 for field in (total, free)]
        gpus.append(Gpu(int(index), name, uuid, capability, memory[0], memory[1], driver, mig == "Enabled"))
    faults = [line for line in others if not gpus or FAULT.search(line)]
    if faults:
        problem = f"nvidia-smi printed {' '.join(faults)!r} instead of a GPU"
    if problem:
        return Answer(problem=problem)
    return Answer(tuple(gpus), remarks=tuple(others))


def _unusable(fields: list[str]) -> str:
    """The field of one GPU that is needed for a plan and that nvidia-smi does not tell; empty if there is none."""
    for field, value in zip(QUERY_FIELDS, fields, strict=True):
        # memory and MIG read "[N/A]" or "[Insufficient Permissions]" on some platforms
        untold = field in _NEEDED and (not value or value.startswith("["))
        if untold or FAULT.search(value):
            return f"GPU {fields[0]}: nvidia-smi says {value or 'nothing'} for {field}"
    return ""


def parse_query(text: str) -> tuple[Gpu, ...]:
    """The GPUs in the output of `QUERY`. Raises ValueError if they cannot be used: `refusal` makes the error of it."""
    answer = read_query(text)
    if answer.problem:
        raise ValueError(answer.problem)
    return answer.gpus


def refusal(problem: str) -> PlanError:
    """
    Why a host with this problem of nvidia-smi cannot be deployed.

    + problem: as an Answer has it
    """
    if found := _NO_FIELD.search(problem):
        return PlanError(
            "GPU driver",
            f"an nvidia-smi that does not know {found[1]}",
            f"that of a driver of about {FIRST_DRIVER} or later",
            DRIVER_TOO_OLD,
            reference="driver-too-old",
        )
    mismatch = "version mismatch" in problem
    then = "the driver was updated and the old one is still loaded: reboot the host" if mismatch else ""
    return PlanError("GPUs", Said(problem), "a working NVIDIA driver", then, reference="driver-not-working")
