from pathlib import Path

import pytest

from tests.unit.stubs import Stubs


@pytest.fixture
def stubs(tmp_path: Path) -> Stubs:
    """An empty directory in front of PATH."""
    return Stubs(tmp_path / "stubs")
