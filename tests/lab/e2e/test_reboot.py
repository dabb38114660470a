"""A host that was rebooted serves again by itself."""

from __future__ import annotations

import time

import pytest

from tests.lab.e2e.one_host import OneHost

SECONDS = 60
READY = "curl --silent --output /dev/null --write-out '%{http_code}' http://127.0.0.1:8000/v2/models/ensemble/ready"


@pytest.mark.requirement("R20")
def test_rebooted_host_serves_the_same_release(converged: OneHost) -> None:
    release = converged.running_release()
    converged.lab("reboot", "1")
    deadline = time.monotonic() + SECONDS
    while converged.try_root(READY)[1] != "200":
        assert time.monotonic() < deadline, f"not ready {SECONDS} s after the reboot"
        time.sleep(0.5)
    assert converged.running_release() == release
    assert f"converged: release {release}" in converged.converge().output
