"""What an inventory says of a driver and a kernel that are changed host by host, with a reboot. Off unless it is written."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from operations.plan.inventory.field_types import PackageName, RpmVersion, whole
from operations.plan.wording import Form, complaint

KEY = "wave"


def _driver(value: str) -> str:
    if not re.fullmatch(r"[0-9]{3}\.[0-9]{2,3}(\.[0-9]{2})?", value):
        raise ValueError("a version as nvidia-smi prints it, such as 580.178.04")
    return value


def _kernel(value: str) -> str:
    if not re.fullmatch(r"[0-9][A-Za-z0-9._+-]{3,100}", value):
        raise ValueError("a kernel as uname -r prints it, such as 5.15.0-320.202.5.el9uek.x86_64")
    return value


class WaveSettings(BaseModel):
    """
    Packages of the driver, the fabric manager and the kernel, at exact versions, and what the host says of itself after its reboot.

    + packages: name -> `[epoch:]version-release`, all of one driver together
    + driver: as nvidia-smi prints it afterwards; None: it stays
    + kernel: as uname -r prints it afterwards; None: it stays
    + reboot_timeout_s: how long the host may be away
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    packages: Annotated[
        dict[PackageName, RpmVersion],
        Field(min_length=1),
        Form("a table of at least one package with its version"),
    ]
    driver: Annotated[str, AfterValidator(_driver)] | None = None
    kernel: Annotated[str, AfterValidator(_kernel)] | None = None
    reboot_timeout_s: Annotated[int, whole(60, 7200, "seconds")] = 1800

    def check(self) -> None:
        """It is said what the reboot is for. Raises a ValidationError."""
        if self.driver is None and self.kernel is None:
            raise complaint(
                "driver",
                None,
                "the driver, the kernel or both, as the host says them after its reboot",
                within=(KEY,),
                then="what nobody has said cannot be proven",
            )
