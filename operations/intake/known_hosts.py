"""ssh's file of known hosts: which key the machine at an address has."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from operations.plan.errors import PlanError, one_line


def entry(address: str, port: int) -> str:
    """How the file names a machine."""
    return address if port == 22 else f"[{address}]:{port}"


def lines_of(file: Path, name: str) -> list[str]:
    """
    The lines of the file about a machine, hashed ones among them.

    + name: of entry()

    Raises PlanError without ssh's program.
    """
    found = _ssh_keygen("-F", name, "-f", str(file))
    return [line for line in found.stdout.splitlines() if line and not line.startswith("#")]


def remember(file: Path, name: str, keys: Sequence[str], comment: str) -> None:
    """
    The file has these keys for a machine, and no others.

    + keys: `TYPE BASE64`
    + comment: whose keys they are

    Raises PlanError where it cannot be written, and where a line is about other machines too: a person decides about it.
    """
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if before := lines_of(file, name):
            if shared := [
                line for line in before if line.startswith("@") or set(",*?!") & {*line.split()[0]}
            ]:
                found = f"a line for {name} and others: {shared[0][:60]}"
                raise PlanError(
                    str(file), found, "lines of one machine each", "remove the line, and run it again"
                )
            if (done := _ssh_keygen("-R", name, "-f", str(file))).returncode:
                raise PlanError(str(file), one_line(done.stderr), "a file that ssh-keygen -R can change")
        text = file.read_bytes() if file.exists() else b""
        with file.open("ab") as opened:
            opened.write(b"\n" if text and not text.endswith(b"\n") else b"")
            opened.write("".join(f"{name} {key} {comment}\n" for key in keys).encode())
    except OSError as error:
        raise PlanError(str(file), error.strerror or "an error", "a file that can be written") from None


def _ssh_keygen(*words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["ssh-keygen", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        then = "install openssh-client"
        raise PlanError("ssh-keygen", "no such program", "ssh's own", then, reference="no-program") from None
