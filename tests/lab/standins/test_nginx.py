"""The gateway's image: a real nginx with a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.standins import nginx_image
from tests.lab.standins.chroot import CACHE, Container

pytestmark = pytest.mark.lab


def test_nginx_runs_with_the_modules_the_gateway_needs(tmp_path: Path) -> None:
    container = Container(tmp_path, nginx_image.layers(CACHE), settings=nginx_image.SETTINGS)
    done = container.attempt("nginx", "-V")
    assert done.returncode == 0, done.stderr
    assert f"nginx/{nginx_image.TAG}" in done.stderr
    for needed in ("--with-http_ssl_module", "--with-http_v2_module"):
        assert needed in done.stderr
    assert "--without-http_grpc_module" not in done.stderr
