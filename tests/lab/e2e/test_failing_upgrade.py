"""An upgrade whose server does not start is rolled back and not repeated; rollback and status work."""

from __future__ import annotations

import pytest

from tests.lab.e2e.one_host import DATA_ROOT, INVENTORY, PYINFRA, OneHost

BROKEN = {"server": {"arguments": ["--no-such-option=1"]}}
# NGC's image of the same release instead of a built one, and another batch size
OTHER_ENGINE_AND_IMAGE = {
    "engine": {"max_batch_size": 4},
    "repository": {"parameters": {"triton_max_batch_size": 4}},
    "image": {"source": "pull"},
}
OTHER = {"repository": {"parameters": {"max_queue_delay_microseconds": 200}}}


@pytest.mark.requirement("R38")
def test_previous_release_is_put_back_and_failure_remembered(converged: OneHost) -> None:
    before = converged.running_release()
    done = converged.deploy(overrides=BROKEN)
    assert done.code != 0
    assert "--no-such-option" in done.output, "the server's own words say why"
    assert f"previous release {before} was put back and serves" in done.output
    assert "Traceback" not in done.output
    assert converged.running_release() == before
    started = converged.container()["State"]["StartedAt"]
    again = converged.deploy(overrides=BROKEN)
    assert again.code != 0
    assert "found failed" in again.output
    assert "retry_failed" in again.output
    assert converged.container()["State"]["StartedAt"] == started, "the server was restarted"
    retried = converged.deploy("--data", "retry_failed=true", overrides=BROKEN)
    assert f"previous release {before} was put back and serves" in retried.output
    assert f"converged: release {before}" in converged.converge().output
    converged.verified("test_release or test_service")


def test_operator_reads_the_status_and_rolls_back(converged: OneHost) -> None:
    first = converged.running_release()
    converged.converge(OTHER)
    second = converged.running_release()
    assert second != first
    status = converged.run(*PYINFRA, "-y", INVENTORY, "operations.release.status")
    assert status.code == 0, status.output
    assert f"{second}  current" in status.output
    assert f"{first}  previous" in status.output
    done = converged.run(*PYINFRA, "-y", INVENTORY, "operations.release.rollback")
    assert done.code == 0, done.output
    assert "ensemble gives the golden answer" in done.output
    assert converged.running_release() == first
    assert f"converged: release {first}" in converged.converge().output
    refused = converged.deploy(overrides=OTHER)
    assert refused.code != 0
    assert "rolled back by hand" in refused.output


def made_of(site: OneHost) -> tuple[set[str], set[str]]:
    """The engines and the serving images on the host."""
    engines = site.root(f"ls {DATA_ROOT}/engines").split()
    return set(engines), set(
        site.root("docker image ls --format '{{.Repository}}:{{.Tag}}' tritonhost/serving").split()
    )


@pytest.mark.requirement("R41")
def test_old_releases_and_unreferenced_artifacts_are_removed(converged: OneHost) -> None:
    usual = converged.artifact("engine"), converged.current()["image"]["tag"]
    converged.converge(OTHER_ENGINE_AND_IMAGE)
    other = converged.artifact("engine"), converged.current()["image"]["tag"]
    assert not set(usual) & set(other)
    both = {usual[0], other[0]}, {usual[1], other[1]}
    for delay in (301, 302, 303):
        # as long as one of the kept releases needs them
        assert (both[0] <= made_of(converged)[0], both[1] <= made_of(converged)[1]) == (True, True), delay
        converged.converge({"repository": {"parameters": {"max_queue_delay_microseconds": delay}}})
    kept = converged.root(f"ls {DATA_ROOT}/releases").split()
    assert len(kept) == 3
    assert converged.running_release() in kept
    assert made_of(converged) == ({usual[0]}, {usual[1]})
    assert converged.try_root(f"docker image inspect {other[1]}")[0] != 0
    converged.converge()
    converged.verified()


def test_two_operators_do_not_work_on_one_host_at_a_time(converged: OneHost) -> None:
    changed = {"repository": {"parameters": {"max_queue_delay_microseconds": 400}}}
    converged.root("mkdir -p /run/tritonhost; echo somebody else >/run/tritonhost/lock.holder")
    converged.root("systemd-run --quiet --unit=lab-lock flock /run/tritonhost/lock sleep 300; sleep 1")
    refused = converged.deploy(overrides=changed)
    assert refused.code != 0
    assert "lock: held by somebody else; expected nobody else at work" in refused.output
    assert "Traceback" not in refused.output
    # a run that only reads needs no lock
    assert "converged: release" in converged.converge().output
    converged.root("systemctl stop lab-lock")
    converged.converge(changed)
    # freed by the kernel when the run ended
    converged.root("flock --nonblock /run/tritonhost/lock true")
    converged.converge()


def test_server_crash_during_soak_puts_the_old_release_back(converged: OneHost) -> None:
    before = converged.running_release()
    changed = {"repository": {"parameters": {"max_queue_delay_microseconds": 500}}}
    # the crash: during the soak, which begins after all golden answers were right
    converged.root(
        "systemd-run --quiet --unit=lab-crash sh -c "
        "'until pgrep -f \"the server ended [$]second\"; do sleep 0.5; done; sleep 4; docker kill triton'"
    )
    done = converged.deploy("--data", "soak_s=25", overrides=changed)
    assert done.code != 0, done.output
    assert "gives the golden answer" in done.output
    assert "s after its golden answer" in done.output
    assert f"previous release {before} was put back and serves" in done.output
    assert f"converged: release {before}" in converged.deploy().output
