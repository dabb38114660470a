"""Files below /etc, each replaced atomically by one command."""

from __future__ import annotations

import hashlib
from collections.abc import Generator

from pyinfra import host
from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.operation import operation
from pyinfra.facts.files import Sha256File


@operation()
def written(path: str, text: str, mode: str = "644") -> Generator[StringCommand, None, None]:
    """
    The file has this text.

    + path: where
    + text: its whole content
    + mode: in octal digits

    Not `files.put`: pyinfra 3.10 overwrites the file in place, so a reader may see half of it; it needs sftp or scp;
    and if pyinfra is killed, its copy stays in /tmp (pyinfra/connectors/ssh.py, put_file).
    """
    if host.get_fact(Sha256File, path=path) == hashlib.sha256(text.encode()).hexdigest():
        host.noop(f"{path} is up to date")
        return
    yield replacing(path, text, mode)


def replacing(path: str, text: str, mode: str = "644") -> StringCommand:
    """
    The command that replaces the file with this text, atomically.

    The host verifies the hash of what it received: a lost connection also ends the text, without an error.
    """
    directory, _, name = path.rpartition("/")
    fresh = QuoteString(f"{directory}/.{name}.new")
    digest = hashlib.sha256(text.encode()).hexdigest()
    return StringCommand(
        *("install", "-D", "-m", mode, "/dev/stdin", fresh, "&&"),
        *(
            "echo",
            QuoteString(f"{digest}  {directory}/.{name}.new"),
            "|",
            "sha256sum",
            "--check",
            "--status",
            "-",
            "&&",
        ),
        *("mv", "-T", fresh, QuoteString(path)),
        _stdin=text,
    )
