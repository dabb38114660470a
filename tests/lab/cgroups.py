"""Every process of a lab lives in a control group named after the lab.

So a lab can be found, frozen and ended completely, even if the command that started it was killed.
The unified hierarchy (cgroup v2, alone or beside v1) does that; v1 controllers only add limits where they exist.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.lab.shell import LabError

MOUNT = Path("/sys/fs/cgroup")

# Joins the groups named in $0, then becomes the program: no process is ever outside its group.
JOIN = 'for group in $0; do echo $$ >"$group/cgroup.procs" || exit 125; done; exec "$@"'


def unified() -> Path | None:
    """Root of the v2 hierarchy, or None on a machine without one."""
    return next(
        (
            root
            for root in (MOUNT, MOUNT / "unified")
            if (root / "cgroup.procs").exists() and (root / "cgroup.controllers").exists()
        ),
        None,
    )


def _v1_hierarchies() -> list[Path]:
    root = unified()
    if root == MOUNT:
        return []
    return [
        path
        for path in sorted(MOUNT.iterdir())
        if path != root and path.is_dir() and not path.is_symlink() and (path / "cgroup.procs").exists()
    ]


class Group:
    """The group `<tag>/<name>`: in the unified hierarchy, and in every v1 hierarchy too when `limits` is set."""

    def __init__(self, tag: str, name: str, *, limits: bool = False) -> None:
        root = unified()
        if root is None:
            raise LabError(
                "no cgroup v2 hierarchy under /sys/fs/cgroup: mount one, at /sys/fs/cgroup/unified for example"
            )
        self.name = name
        self.path = root / tag / name
        self.paths = [self.path, *(path / tag / name for path in _v1_hierarchies() if limits)]

    def create(self) -> None:
        for path in self.paths:
            path.mkdir(parents=True, exist_ok=True)
            for level in (path.parent, path):
                for setting in ("cpuset.cpus", "cpuset.mems"):
                    file = level / setting
                    # A v1 cpuset starts empty and refuses processes until it has its parent's share.
                    if file.exists() and not file.read_text().strip() and (level.parent / setting).exists():
                        file.write_text((level.parent / setting).read_text())

    def limit(self, controller: str, setting: str, value: str) -> None:
        """Set a v1 controller's limit where this machine has that controller."""
        for path in self.paths:
            if path.parts[len(MOUNT.parts)] == controller and (path / setting).exists():
                (path / setting).write_text(value)

    def joining(self, argv: Sequence[str | Path]) -> list[str]:
        """argv of a program that enters the group first."""
        return ["sh", "-c", JOIN, " ".join(str(path) for path in self.paths), *(str(part) for part in argv)]

    def add(self, pid: int) -> None:
        for path in self.paths:
            (path / "cgroup.procs").write_text(str(pid))

    def pids(self) -> list[int]:
        """Every process in the group and the groups inside it."""
        found: list[int] = []
        for file in self.path.rglob("cgroup.procs"):
            with suppress(OSError):
                found += [int(line) for line in file.read_text().split()]
        return found

    def populated(self) -> bool:
        try:
            return "populated 1" in (self.path / "cgroup.events").read_text()
        except FileNotFoundError:
            return False

    def frozen(self) -> bool:
        try:
            return "frozen 1" in (self.path / "cgroup.events").read_text()
        except FileNotFoundError:
            return False

    def freeze(self, on: bool) -> None:
        with suppress(FileNotFoundError):
            (self.path / "cgroup.freeze").write_text("1" if on else "0")

    def kill(self, *, timeout: float = 20) -> None:
        """End every process in the group at once, frozen ones too, and wait until they are gone."""
        with suppress(FileNotFoundError):
            (self.path / "cgroup.kill").write_text("1")
        deadline = time.monotonic() + timeout
        while self.populated():
            if time.monotonic() > deadline:
                raise LabError(
                    f"processes of {self.path} survive kill -9: {self.pids()}; look for uninterruptible I/O"
                )
            time.sleep(0.02)

    def remove(self) -> None:
        """Remove the group and the groups inside it, which must have no processes."""
        for path in self.paths:
            remove_tree(path)


def remove_tree(path: Path) -> None:
    """Remove a cgroup and all groups inside it, deepest first."""
    if not path.is_dir():
        return
    inside = sorted(
        (found for found in path.rglob("*") if found.is_dir()), key=lambda found: len(found.parts)
    )
    for group in [*reversed(inside), path]:
        for _ in range(100):
            try:
                group.rmdir()
            except FileNotFoundError:
                break
            except OSError:  # a process that just ended is still being accounted for
                time.sleep(0.02)
            else:
                break


def existing(tag: str) -> list[str]:
    """Names of the groups under `tag` that exist in any hierarchy."""
    root = unified()
    roots = [*([root] if root else []), *_v1_hierarchies()]
    return sorted({path.name for base in roots for path in (base / tag).glob("*/")})


def remove_all(tag: str) -> None:
    """Remove all groups of the lab in every hierarchy; they must have no processes."""
    root = unified()
    for base in [*([root] if root else []), *_v1_hierarchies()]:
        remove_tree(base / tag)
