"""What an inventory says of the door: OpenAI's interface in front of the server."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from operations.plan.catalog.known_values import Whole
from operations.plan.wording import Form

# Python 3.11: the requirements of files/image/door have wheels for it, and the lab has it
PYTHON = "3.11"
IMAGE = "library/python:3.11.15-slim-bookworm"


def _port(value: object) -> object:
    if expected := Whole(1024, 65535).complaint(value):
        raise ValueError(f"{expected}, and not one that root alone may listen on")
    return value


def _python(value: object) -> object:
    """An image of the Python that the wheels are for."""
    if not isinstance(value, str) or not re.fullmatch(
        r"([a-z0-9_-]+/)*[a-z0-9._-]*python[a-z0-9-]*:3\.11[A-Za-z0-9._-]*", value
    ):
        raise ValueError(f"an image of Python 3.11 as name:version without registry, such as {IMAGE}")
    return value


class DoorSettings(BaseModel):
    """
    What the inventory says of the door.

    + name: the model's name for clients; None: the name of its profile
    + also: other services of the host, whose models this door offers too
    + port: where it listens, on the host's loopback; clients reach it through the gateway
    + image: Python, name:version; its digest is in image_digests
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: (
        Annotated[
            str,
            Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$"),
            Form("a name of letters, digits and . _ -, 96 at most"),
        ]
        | None
    ) = None
    also: list[Annotated[str, Field(min_length=1, max_length=32)]] = []
    port: Annotated[int, BeforeValidator(_port)] = 9000
    image: Annotated[str, BeforeValidator(_python)] = IMAGE
