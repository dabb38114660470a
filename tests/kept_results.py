"""Parts of `make test-all` that passed before, on these files and on this machine: with RESUME=1 a run goes on with the others.

A part counts again only where every file that git does not ignore, the part's command and variables, the processor, the kernel
and Python are what they were. Anything else is another proof.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.report import Outcome


@dataclass(frozen=True)
class Kept:
    """
    A part that passed.

    + ended: when, as people read it
    """

    ended: str
    seconds: float
    outcomes: list[Outcome]


def tree(repository: Path) -> str:
    """The id that git gives to the files as they are now, committed or not; ignored files are left out.

    Empty where this is no checkout of git.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "GIT_INDEX_FILE": str(Path(folder, "index"))}
        for words in (["add", "--all"], ["write-tree"]):
            done = subprocess.run(
                ["git", "-C", str(repository), *words],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
    return done.stdout.strip()


def machine() -> str:
    """What else decides a result: the processor's name and flags, the kernel, Python."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    processor = [
        line for line in lines if line.startswith(("model name", "flags", "Features", "CPU implementer"))
    ]
    return "\n".join([*sorted(set(processor)), platform.release(), platform.python_version()])


class Results:
    """The parts that passed on one tree and one machine, in a file of their own under `folder`."""

    def __init__(self, folder: Path, repository: Path) -> None:
        self.folder = folder
        self.repository = repository
        self.tree = tree(repository)

    def find(self, command: Sequence[str], environment: Mapping[str, str]) -> Kept | None:
        """How a part passed; none where it did not, or where its record cannot be read."""
        if not self.tree:
            return None
        try:
            row = json.loads(self._path(command, environment).read_text("utf-8"))
            return Kept(row["ended"], row["seconds"], [Outcome(**one) for one in row["outcomes"]])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, command: Sequence[str], environment: Mapping[str, str], kept: Kept) -> bool:
        """Keep a part that passed; not where a file changed since this run began."""
        if not self.tree or tree(self.repository) != self.tree:
            return False
        path = self._path(command, environment)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(asdict(kept)), "utf-8")
        beside.replace(path)
        return True

    def _path(self, command: Sequence[str], environment: Mapping[str, str]) -> Path:
        what = json.dumps([list(command), sorted(environment.items()), machine()])
        return self.folder / self.tree / f"{hashlib.sha256(what.encode()).hexdigest()}.json"
