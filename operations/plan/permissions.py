"""Who may use a file or a directory, as find prints it."""

from __future__ import annotations

from dataclasses import dataclass

LINK = "link"


@dataclass(frozen=True)
class Permissions:
    """Mode in octal digits, or LINK for a symbolic link in the place of a file; ids of the user and the group."""

    mode: str
    user: str
    group: str

    def __str__(self) -> str:
        return f"{self.mode}:{self.user}:{self.group}"
