"""An upgrade whose server does not start ends with an error, and the release before it serves again."""

from __future__ import annotations

from tests.lab.e2e.one_host import OneHost

BROKEN = {"server": {"arguments": ["--no-such-option=1"]}}


def test_release_that_does_not_start_is_taken_back(converged: OneHost) -> None:
    before = converged.running_release()
    done = converged.deploy(overrides=BROKEN)
    assert done.code != 0
    assert "--no-such-option" in done.output, "the server's own words say why"
    assert f"previous release {before} was put back and serves" in done.output
    assert "Traceback" not in done.output
    assert converged.running_release() == before
    assert f"converged: release {before}" in converged.converge().output
    converged.verified("test_release or test_service")
