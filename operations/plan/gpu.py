"""The GPUs of a host, from the text of nvidia-smi."""

from __future__ import annotations

import csv
from dataclasses import dataclass

QUERY_FIELDS = (
    *("index", "name", "uuid", "compute_cap"),
    *("memory.total", "memory.free", "driver_version", "mig.mode.current"),
)
QUERY = f"nvidia-smi --query-gpu={','.join(QUERY_FIELDS)} --format=csv,noheader,nounits"


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
    mig: bool = False  # partitioned: what sees it sees a part of it, or nothing


def parse_query(text: str) -> tuple[Gpu, ...]:
    """
    The GPUs in the output of `QUERY`.

    Raises ValueError for a line that is not one: nvidia-smi reports a broken driver on standard output too.
    """
    gpus = []
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if not row:
            continue
        if len(row) != len(QUERY_FIELDS) or not row[0].strip().isdigit():
            raise ValueError(f"nvidia-smi printed {', '.join(row)!r} instead of a GPU")
        index, name, uuid, capability, total, free, driver, mig = (field.strip() for field in row)
        # Memory reads "[N/A]" or "[Insufficient Permissions]" on some platforms.
        memory = [int(field) if field.isdigit() else 0 for field in (total, free)]
        gpus.append(Gpu(int(index), name, uuid, capability, memory[0], memory[1], driver, mig == "Enabled"))
    return tuple(gpus)
