"""The scripts of files/host, with their variables set before them, and archives for their standard input."""

from __future__ import annotations

import base64
import io
import re
import shlex
import tarfile
from collections.abc import Mapping
from functools import cache

from operations.plan.paths import TREE

HOST_SCRIPTS = TREE / "files" / "host"
# the line with which a script takes the functions of another file of files/host
_INCLUDE = re.compile(r"\. \./([a-z_]+\.sh)")


@cache
def _text(name: str) -> str:
    lines = (HOST_SCRIPTS / name).read_text(encoding="utf-8").splitlines()
    # The comments stay in the file: they would only cross the network at each run.
    kept = (line for line in lines if not line.lstrip().startswith("#"))
    return "\n".join(_text(found[1]) if (found := _INCLUDE.fullmatch(line)) else line for line in kept)


def host_script(name: str, variables: Mapping[str, str], functions: str = "") -> str:
    """
    One script as shell text: its variables, quoted, then functions it calls, then the script itself.

    + name: a file of files/host
    + variables: shell variable -> value
    + functions: further shell text, already quoted
    """
    header = "".join(f"{key}={shlex.quote(value)}\n" for key, value in variables.items())
    return f"{header}{functions}\n{_text(name)}\n"


def host_functions(name: str) -> str:
    """A file of files/host that only defines functions, for scripts and facts that share them."""
    return _text(name)


def archive(files: Mapping[str, str]) -> str:
    """Files as a tar archive in base64: pyinfra's standard input takes text, and one round trip carries them all."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            data = content.encode()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o600
            tar.addfile(entry, io.BytesIO(data))
    return base64.encodebytes(buffer.getvalue()).decode()
