"""OCI's GPU shapes, as data: the hardware of a host of each, before it is probed.

Source of OCPUs, memory, GPUs and local disks: the tables "GPU Shapes" of
https://docs.oracle.com/en-us/iaas/Content/Compute/References/computeshapes.htm (bare metal and virtual machines), as
of the edition that lists BM.GPU.GB300.4; a row from elsewhere says so. Its GB are the makers' round numbers: an A10 of
24 GB shows 23028 MiB.
Source of compute capabilities: https://developer.nvidia.com/cuda-gpus and, for what is no longer sold,
https://developer.nvidia.com/cuda-legacy-gpus.
HGX and DGX machines have an NVSwitch, and with it a fabric manager of the driver's own version:
https://docs.nvidia.com/datacenter/tesla/fabric-manager-user-guide/.

Not here: limited shapes, which some tenancies have and the public page does not list (BM.GPU.L40S-NC.4, VM.GPU.A100.80G.1 and
others; docs/how-to/oci.md says how to name such a host). Shapes with AMD's GPUs, which Triton's TensorRT-LLM backend does not run on, and those with Arm processors
(GB200, GB300): operations/plan/machine/packages.py refuses their architecture.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from operations.plan.errors import PlanError, suggestion

SOURCE = "https://docs.oracle.com/en-us/iaas/Content/Compute/References/computeshapes.htm"
# The part of the makers' round number that a driver reports: an A10 or L40S keeps a sixteenth for ECC, 16 GB may be GiB.
_LEAST_SHOWN, _MOST_SHOWN = 0.9, 1.05


@dataclass(frozen=True)
class LocalNvme:
    """Local disks: how many, and TB of all of them together; (0, 0.0) if there is only block storage."""

    count: int
    total_tb: float


@dataclass(frozen=True)
class Shape:
    """One shape: `gpu_memory_gib` is of one GPU, `memory_gib` of the host, both as the maker rounds them."""

    name: str
    gpu: str  # a whole word of nvidia-smi's name: NVIDIA A100-SXM4-40GB
    gpu_count: int
    gpu_memory_gib: int
    compute_capability: str
    memory_gib: int
    ocpus: int
    local_nvme: LocalNvme
    nvswitch: bool
    source: str = SOURCE

    def has_gpu(self, name: str, memory_mib: int) -> bool:
        """
        Whether a GPU can belong to this shape.

        + name: nvidia-smi's, such as `NVIDIA A100-SXM4-40GB`
        + memory_mib: nvidia-smi's memory.total; 0: not reported
        """
        # A10 is not a word of A100-SXM4-40GB
        if not re.search(rf"(?<![A-Za-z0-9]){re.escape(self.gpu)}(?![A-Za-z0-9])", name):
            return False
        return not memory_mib or _LEAST_SHOWN <= memory_mib / 1024 / self.gpu_memory_gib <= _MOST_SHOWN


_BLOCK_STORAGE_ONLY = LocalNvme(0, 0.0)

_ROWS = (
    # name, gpu, count, GB of each, compute capability, host GB, OCPUs, local NVMe, NVSwitch
    # B300 and RTX PRO: memory and OCPUs by two copies of Oracle's page, local disks by one.
    Shape("BM.GPU.B300.8", "B300", 8, 288, "10.3", 4096, 128, LocalNvme(8, 30.72), True),
    Shape("BM.GPU.B200.8", "B200", 8, 180, "10.0", 4096, 128, LocalNvme(8, 30.72), True),
    Shape("BM.GPU.H200.8", "H200", 8, 141, "9.0", 3072, 112, LocalNvme(8, 30.72), True),
    Shape("BM.GPU.H100.8", "H100", 8, 80, "9.0", 2048, 112, LocalNvme(16, 61.44), True),
    Shape("BM.GPU.A100-v2.8", "A100", 8, 80, "8.0", 2048, 128, LocalNvme(4, 27.2), True),
    Shape("BM.GPU4.8", "A100", 8, 40, "8.0", 2048, 64, LocalNvme(4, 27.2), True),
    # GPUs and OCPUs by oracle-quickstart/oci-hpc, which names it most often; host memory and local disks were not found anywhere,
    # and are those of BM.GPU.A100-v2.8.
    Shape("BM.GPU.B4.8", "A100", 8, 40, "8.0", 2048, 128, LocalNvme(4, 27.2), True),
    # eight GPUs that are linked only over PCIe
    Shape("BM.GPU.RTXPRO.8", "RTX PRO 6000", 8, 96, "12.0", 3072, 144, LocalNvme(8, 61.44), False),
    Shape("BM.GPU.L40S.4", "L40S", 4, 48, "8.9", 1024, 112, LocalNvme(2, 7.68), False),
    Shape("BM.GPU.A10.4", "A10", 4, 24, "8.6", 1024, 64, LocalNvme(2, 7.68), False),
    Shape("VM.GPU.A10.2", "A10", 2, 24, "8.6", 480, 30, _BLOCK_STORAGE_ONLY, False),
    Shape("VM.GPU.A10.1", "A10", 1, 24, "8.6", 240, 15, _BLOCK_STORAGE_ONLY, False),
    # eight V100 linked to one another (NVLink), without a switch
    Shape("BM.GPU3.8", "V100", 8, 16, "7.0", 768, 52, _BLOCK_STORAGE_ONLY, False),
    Shape("VM.GPU3.4", "V100", 4, 16, "7.0", 360, 24, _BLOCK_STORAGE_ONLY, False),
    Shape("VM.GPU3.2", "V100", 2, 16, "7.0", 180, 12, _BLOCK_STORAGE_ONLY, False),
    Shape("VM.GPU3.1", "V100", 1, 16, "7.0", 90, 6, _BLOCK_STORAGE_ONLY, False),
    Shape("BM.GPU2.2", "P100", 2, 16, "6.0", 192, 28, _BLOCK_STORAGE_ONLY, False),
    Shape("VM.GPU2.1", "P100", 1, 16, "6.0", 72, 12, _BLOCK_STORAGE_ONLY, False),
)

SHAPES = {row.name: row for row in _ROWS}


def expected(name: str) -> str:
    """What is expected instead of an unknown name: the nearest shape, and the list of known shapes."""
    known = f"known: {', '.join(SHAPES)}"
    near = suggestion(name, SHAPES)
    return f"an OCI shape with NVIDIA GPUs; {known if near.startswith('known') else f'{near} {known}'}"


def shape(name: str, key: str) -> Shape:
    """
    The shape of that name.

    + key: the key that has the name, for the error

    Raises PlanError, with the nearest name and the list of known shapes, for an unknown name.
    """
    if name not in SHAPES:
        raise PlanError(key, name, expected(name))
    return SHAPES[name]
