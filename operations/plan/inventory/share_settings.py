"""What an inventory says of hosts that hand finished artifacts to each other."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

from operations.plan.inventory.field_types import whole
from operations.plan.inventory.monitoring_settings import Reachable, unprivileged_port

PORT = 8470


class ShareSettings(BaseModel):
    """
    How the host hands what it has made to the other hosts of a run.

    + port: where it serves them while a run needs it
    + address: where they reach it; None: where pyinfra reaches it
    + transfer_mbit: the most that one transfer may take of the network, in megabits a second; 0: no limit
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    port: Annotated[int, BeforeValidator(unprivileged_port)] = PORT
    address: Reachable | None = None
    transfer_mbit: Annotated[int, whole(0, 1_000_000, "megabits a second")] = 0
