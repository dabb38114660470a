"""Which NVIDIA driver a serving image's CUDA runs on."""

from __future__ import annotations

import re

from operations.plan.capacity.gpu import Gpu
from operations.plan.errors import PlanError

# CUDA's major version -> the least driver of Linux that every CUDA of that major runs on (minor version compatibility):
# https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html names the branches, table 2 of
# https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/ the versions. The support matrix's column `driver` is the
# one that was made with the image's CUDA, not a minimum.
MINIMUM_DRIVER = {12: "525.60.13", 13: "580.65.06"}

_VERSION = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6}){1,3}", re.ASCII)


def check_driver(driver: str, cuda: str) -> None:
    """
    Refuse a driver that is too old for the image's CUDA.

    + driver: as nvidia-smi prints it, such as 580.95.05
    + cuda: the image's CUDA, such as 12.5.1

    A data-centre GPU may run a newer CUDA on an older branch, with the compatibility libraries that NVIDIA's images
    carry (https://docs.nvidia.com/deploy/cuda-compatibility/forward-compatibility.html). Which branches, changes with
    every release and was not read for each image, so this check assumes none.

    Raises PlanError for a driver below the minimum, and for a text that is not a version.
    """
    if not isinstance(cuda, str) or not _VERSION.fullmatch(cuda) or _numbers(cuda)[0] not in MINIMUM_DRIVER:
        majors = " or ".join(map(str, MINIMUM_DRIVER))
        raise PlanError("CUDA", cuda, f"a version of CUDA {majors}, such as 12.5.1")
    minimum = MINIMUM_DRIVER[_numbers(cuda)[0]]
    if not isinstance(driver, str) or not _VERSION.fullmatch(driver):
        raise PlanError(
            "GPU driver", driver, "a version such as 580.95.05", "see what nvidia-smi prints on the host"
        )
    if _numbers(driver) < _numbers(minimum):
        raise PlanError(
            "GPU driver",
            driver,
            f"at least {minimum} for CUDA {cuda}",
            "update the driver or choose an older release",
            reference="driver-too-old",
        )


# Forward compatibility is for data-centre GPUs; these are not: https://docs.nvidia.com/deploy/cuda-compatibility/
_WITHOUT_FORWARD_COMPATIBILITY = ("GeForce", "TITAN")


def driver_warnings(gpu: Gpu, cuda: str) -> tuple[str, ...]:
    """
    Warnings about a driver that is by itself too old for the image's CUDA.

    A warning on data-centre GPUs, which may run it with the image's compatibility libraries; Triton's release notes
    name the branches for each image (R535 for 25.08 and 25.10, for one). Raises PlanError, as check_driver, on others.
    """
    try:
        check_driver(gpu.driver, cuda)
    except PlanError as error:
        if any(word in gpu.name for word in _WITHOUT_FORWARD_COMPATIBILITY):
            raise
        return (f"{error}; it may still run, with the image's CUDA compatibility libraries",)
    return ()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
