"""A door over a Triton that says what it is asked to, for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.door.fake_triton import FakeTriton
from tests.door.running import Running, data_root, start


@pytest.fixture(scope="module")
def triton() -> Iterator[FakeTriton]:
    made = FakeTriton().start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_root(tmp_path_factory.mktemp("door"))


@pytest.fixture(scope="module")
def door(triton: FakeTriton, root: Path) -> Iterator[Running]:
    made = start(root, triton.port)
    yield made
    made.stop()


@pytest.fixture
def client(door: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=door.url, api_key="x", max_retries=0, timeout=30)


@pytest.fixture(autouse=True)
def _as_at_first(triton: FakeTriton) -> Iterator[None]:
    """Each test begins with a Triton that answers, and has seen nothing."""
    before = FakeTriton()
    yield
    for name in ("decoupled", "seconds", "end", "refused", "code", "after", "together"):
        setattr(triton, name, getattr(before, name))
    triton.seen.clear()
    triton.most = 0
