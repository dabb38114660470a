"""What the scripts and the tools of a host print, as tables and records: readers that several facts share."""

from __future__ import annotations

import re
from collections.abc import Iterable

from operations.plan.observed.observed import LoadedGateway, Outcome, ReleaseVerdict
from operations.plan.permissions import Permissions

SECTION = "\x1e"


def sections(output: list[str]) -> dict[str, list[str]]:
    """The output of a script of files/host, section by section."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in output:
        if line.startswith(SECTION):
            lines = found.setdefault(line[1:].strip(), [])
        else:
            lines.append(line)
    return found


def tabbed(lines: Iterable[str]) -> dict[str, str]:
    """Lines of a name, a tab and a value; other lines are skipped."""
    return dict(line.split("\t", 1) for line in lines if "\t" in line)


def assignments(lines: Iterable[str]) -> dict[str, str]:
    """Lines of a name, = and a value, which may be quoted."""
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, value in pairs}


def unit_properties(lines: Iterable[str]) -> dict[str, dict[str, str]]:
    """systemctl show's blocks, one a unit, parted by empty lines."""
    blocks = (assignments(block.splitlines()) for block in "\n".join(lines).split("\n\n"))
    return {block["Id"]: block for block in blocks if "Id" in block}


def digest_pairs(lines: Iterable[str]) -> list[tuple[str, str]]:
    """sha256sum's lines: digest, two spaces, path."""
    return [(m.group(1), m.group(2)) for line in lines if (m := re.match(r"([0-9a-f]{64}) [ *](.+)$", line))]


def permissions(lines: Iterable[str]) -> dict[str, Permissions]:
    """find's lines of path, a tab and mode:user:group."""
    found = {}
    for path, text in tabbed(lines).items():
        # a path may have a tab in it, and the rest of it stands before the mode
        mode, user, group = [*text.split(":"), "?", "?"][:3]
        found[path] = Permissions(mode, user, group)
    return found


def verdict(text: str) -> ReleaseVerdict | None:
    """The line that files/host/judge.sh writes; None of an empty one."""
    if not text:
        return None
    word = text.partition(" ")[0]
    return ReleaseVerdict(next((outcome for outcome in Outcome if outcome.value == word), None), text)


def loaded_gateway(text: str) -> LoadedGateway:
    """The line that the gateway's unit writes: the key of its container, a space, the digest of what nginx has read."""
    key, _, digest = text.partition(" ")
    return LoadedGateway(key, digest)
