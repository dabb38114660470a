"""The host that every profile is deployed to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.e2e.one_host import OneHost, settings_of_lab
from tests.lab.settings import network_of

NET = network_of("LAB_GUIDES_NET")
GPUS = "NVIDIA A100-SXM4-40GB:8"


@pytest.fixture(scope="session")
def host() -> Iterator[OneHost]:
    """A bare host with eight GPUs."""
    ours = OneHost(settings_of_lab(NET, LAB_GPUS=GPUS))
    ours.environment |= {"LAB_GPUS": GPUS}
    ours.lab("down")
    ours.lab("up", "1")
    yield ours
    ours.lab("down")
