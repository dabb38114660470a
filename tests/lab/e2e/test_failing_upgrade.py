"""An upgrade whose server does not start is taken back and not tried again; a person may go back, and look."""

from __future__ import annotations

from tests.lab.e2e.one_host import INVENTORY, PYINFRA, OneHost

BROKEN = {"server": {"arguments": ["--no-such-option=1"]}}
OTHER = {"repository": {"parameters": {"max_queue_delay_microseconds": 200}}}


def test_release_that_does_not_start_is_taken_back_and_remembered(converged: OneHost) -> None:
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
    assert converged.container()["State"]["StartedAt"] == started, "what serves was left alone"
    retried = converged.deploy("--data", "retry_failed=true", overrides=BROKEN)
    assert f"previous release {before} was put back and serves" in retried.output
    assert f"converged: release {before}" in converged.converge().output
    converged.verified("test_release or test_service")


def test_a_person_goes_back_and_looks(converged: OneHost) -> None:
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


def test_old_releases_are_removed_and_what_nothing_refers_to(converged: OneHost) -> None:
    for delay in (301, 302, 303, 304):
        converged.converge({"repository": {"parameters": {"max_queue_delay_microseconds": delay}}})
    kept = converged.root("ls /var/lib/tritonhost/releases").split()
    assert len(kept) == 3
    assert converged.running_release() in kept
    assert len(converged.root("ls /var/lib/tritonhost/engines").split()) == 1
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
    # looking needs no lock
    assert "converged: release" in converged.converge().output
    converged.root("systemctl stop lab-lock")
    converged.converge(changed)
    # freed by the kernel when the run ended
    converged.root("flock --nonblock /run/tritonhost/lock true")
    converged.converge()


def test_a_server_that_ends_soon_after_its_answer_is_taken_back(converged: OneHost) -> None:
    before = converged.running_release()
    changed = {"repository": {"parameters": {"max_queue_delay_microseconds": 500}}}
    # the crash: once the soak watches the server, which is when all its answers have been found right
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
