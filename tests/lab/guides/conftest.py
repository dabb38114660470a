"""The host that every profile is deployed to."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.lab import machine
from tests.lab.e2e.one_host import OneHost
from tests.lab.settings import from_environment

NET = os.environ.get("LAB_GUIDES_NET", "10.93.0")
GPUS = "NVIDIA A100-SXM4-40GB:8"


@pytest.fixture(scope="session")
def host() -> Iterator[OneHost]:
    """A bare host with eight GPUs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_NET", NET)
        patch.setenv("LAB_GPUS", GPUS)
        for name in ("LAB_STATE", "LAB_OS"):
            patch.delenv(name, raising=False)
        settings = from_environment()
    if lacking := machine.missing(settings):
        pytest.fail("; ".join(lacking))
    ours = OneHost(settings)
    ours.environment |= {"LAB_GPUS": GPUS}
    ours.lab("down")
    ours.lab("up", "1")
    yield ours
    ours.lab("down")
