"""What an inventory says of an upgrade that real requests decide about."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from operations.plan.inventory.field_types import whole


def _share(value: object) -> object:
    found = re.fullmatch(r"([0-9]{1,2}(?:\.[0-9]{1,2})?) ?%", value) if isinstance(value, str) else None
    if found is None or not 0.01 <= float(found[1]) <= 50:
        raise ValueError('a share of all requests from "0.01 %" to "50 %", such as "5 %"')
    return round(float(found[1]) * 100)


class RolloutSettings(BaseModel):
    """
    The first host of an upgrade gets a share of the requests of its load balancers, and is compared with the others.

    + canary: the share, in ten-thousandths; the inventory writes "5 %"
    + minutes: how long
    + least_requests: with fewer, nothing is decided
    + slower: how many times the others' median time to the first byte the canary's may be
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    canary: Annotated[int, BeforeValidator(_share)]
    minutes: Annotated[float, Field(gt=0, le=1440)] = 10
    least_requests: Annotated[int, whole(1, 1_000_000, "requests")] = 50
    slower: Annotated[float, Field(ge=1, le=100)] = 1.5
