"""ssh's file of known hosts: which key the machine at an address has."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from operations.plan.errors import PlanError, one_line


def knows(file: Path, address: str) -> bool:
    """Whether the file has a key for the address, hashed entries among them."""
    command = ["ssh-keygen", "-F", address, "-f", str(file)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def remember(file: Path, address: str, keys: Sequence[str]) -> None:
    """
    The file has these keys for the address, and no others.

    + keys: `TYPE BASE64`

    Raises PlanError where it cannot be written.
    """
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if knows(file, address):
            subprocess.run(["ssh-keygen", "-R", address, "-f", str(file)], capture_output=True, check=True)
        before = file.read_bytes() if file.exists() else b""
        with file.open("ab") as opened:
            opened.write(b"\n" if before and not before.endswith(b"\n") else b"")
            opened.write("".join(f"{address} {key}\n" for key in keys).encode())
    except (OSError, subprocess.CalledProcessError) as error:
        raise PlanError(str(file), one_line(str(error)), "a file that can be written") from None
