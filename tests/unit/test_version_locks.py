from collections.abc import Mapping

import pytest

from operations.plan.machine.version_locks import all_locks, is_of, tool_locks, with_locks
from tests.unit.builders import settings

DOCKER = {"docker-ce": "docker-ce-3:28.5.2-1.el9.*"}
RUNC = {"runc": "!runc"}
FOREIGN = ["# Added lock on Fri Nov 20 10:00:00 2026", "kernel-uek-5.15.0-312.el9uek.*", "!zsh-5.8-9.el9.*"]


def test_pinned_packages_are_locked_and_conflicts_blocked() -> None:
    locks = all_locks(settings(git_packages={"git": "2.47.3-1.el{os_major}", "git-lfs": None}), "9")
    assert locks["docker-ce"] == "docker-ce-3:28.5.2-1.el9.*"
    assert locks["nvidia-container-toolkit"] == "nvidia-container-toolkit-1.19.1-1.*"
    assert locks["git"] == "git-2.47.3-1.el9.*"
    assert "git-lfs" not in locks
    assert [locks[name] for name in ("runc", "podman", "buildah")] == ["!runc", "!podman", "!buildah"]
    assert tool_locks(settings(), "9") == {}
    assert all_locks(settings(version_lock=False), "9") == {}


@pytest.mark.parametrize(
    "found",
    [
        [],
        FOREIGN,
        # by hand, or by an older inventory
        ["docker-ce-3:27.0.0-1.el9.*", *FOREIGN],
        [*FOREIGN, "3:docker-ce-28.5.2-1.el9.x86_64", "!runc-4:1.2.4-1.el9.*", ""],
        with_locks(FOREIGN, {**RUNC, "docker-ce": "docker-ce-3:29.0.0-1.el9.*", "zip": "zip-3.0-1.*"}),
        # dnf versionlock delete takes the comments away
        [*FOREIGN, "docker-ce-3:29.0.0-1.el9.*", "!runc"],
        # cut in the middle
        with_locks(FOREIGN, {**RUNC, **DOCKER})[:-1],
    ],
)
def test_list_has_our_locks_once_and_keeps_foreign_ones(found: list[str]) -> None:
    lines = with_locks(found, {**RUNC, **DOCKER})
    rules = [line for line in lines if line and not line.startswith("#")]
    foreign = FOREIGN[1:] if set(FOREIGN) <= set(found) else []
    assert rules == [*foreign, "!runc", "docker-ce-3:28.5.2-1.el9.*"]
    assert with_locks(lines, {**RUNC, **DOCKER}) == lines


@pytest.mark.parametrize("locks", [{}, RUNC])
def test_package_without_a_pin_loses_its_lock(locks: Mapping[str, str]) -> None:
    lines = with_locks(with_locks(FOREIGN, {**RUNC, **DOCKER}), locks)
    assert [line for line in lines if line in (*FOREIGN, "!runc", *DOCKER.values())] == [
        *FOREIGN,
        *locks.values(),
    ]
    if not locks:
        assert lines == FOREIGN


def test_partial_change_keeps_our_other_locks() -> None:
    both = with_locks(FOREIGN, {**RUNC, **DOCKER})
    lines = with_locks(both, {"git": "git-2.47.3-1.el9.*"}, keep=True)
    assert set(lines) - set(both) == {"git-2.47.3-1.el9.*"}
    assert set(both) <= set(lines)
    assert with_locks(both, {}, keep=True) == both


@pytest.mark.parametrize(
    ("name", "line", "expected"),
    [
        ("docker-ce", "docker-ce", True),
        ("docker-ce", "docker-ce.x86_64", True),
        ("docker-ce", "docker-ce-*", True),
        ("docker-ce", "docker-ce-28.5.2", True),
        ("docker-ce", "docker-ce-3:28.5.2-1.el9.*", True),
        ("docker-ce", "3:docker-ce-28.5.2-1.el9.*", True),
        ("docker-ce", "!docker-ce-3:28.5.2-1.el9.x86_64", True),
        ("docker-ce", "docker-ce-cli-1:28.5.2-1.el9.*", False),
        ("git", "git-lfs-3.4.1-1.el9.*", False),
        ("git", "git-core-2.47.3-1.el9.*", False),
        ("libnvidia-container1", "libnvidia-container1-1.19.1-1.*", True),
        ("runc", "# runc-1.2", False),
        ("runc", "crun-1.2-1.*", False),
    ],
)
def test_lock_line_is_matched_by_its_package(name: str, line: str, expected: bool) -> None:
    assert is_of(name, line) is expected
