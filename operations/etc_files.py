"""Files below /etc: replaced at once, by one command."""

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
    The file holds this text.

    + path: where
    + text: the whole of it
    + mode: in octal digits

    `files.put` of pyinfra 3.10 copies over the file in place, so that a reader may see half of it; it needs sftp or scp; and
    a client that is killed leaves its copy in /tmp (pyinfra/connectors/ssh.py, put_file).
    """
    if host.get_fact(Sha256File, path=path) == hashlib.sha256(text.encode()).hexdigest():
        host.noop(f"{path} is as it should be")
        return
    yield replacing(path, text, mode)


def replacing(path: str, text: str, mode: str = "644") -> StringCommand:
    """The command that replaces the file by this text, whole at every instant."""
    directory, _, name = path.rpartition("/")
    fresh = QuoteString(f"{directory}/.{name}.new")
    return StringCommand(
        *("install", "-D", "-m", mode, "/dev/stdin", fresh, "&&", "mv", "-T", fresh, QuoteString(path)),
        _stdin=text,
    )
