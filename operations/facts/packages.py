"""What rpm has installed and trusts."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from pyinfra.api.facts import FactBase

from operations.facts.host_state import list_lines, package_versions
from operations.plan.machine.version_locks import LOCK_LIST


class InstalledVersions(FactBase[dict[str, tuple[str, ...]]]):
    """
    name -> every installed `epoch:version-release`, for the names that are installed.

    pyinfra's rpm facts carry no epoch, and its dnf operations ask the repositories once per package.

    + names: exact package names
    """

    default = dict

    def command(self, names: list[str]) -> str:
        return (
            f"rpm -q --qf '%{{NAME}}\\t%{{EPOCHNUM}}:%{{VERSION}}-%{{RELEASE}}\\n' {shlex.join(names)} || :"
        )

    def process(self, output: list[str]) -> dict[str, tuple[str, ...]]:
        return package_versions(output)


class InstalledLike(FactBase[list[str]]):
    """
    The names of installed packages that fit a pattern.

    + patterns: rpm's own, such as `moby-*`
    """

    default = list

    def command(self, patterns: list[str]) -> str:
        return f"rpm -qa --qf '%{{NAME}}\\n' {shlex.join(patterns)}"

    def process(self, output: list[str]) -> list[str]:
        # a name, and not what rpm says of its database
        return sorted({line.strip() for line in output if re.fullmatch(r"[A-Za-z0-9._+-]+", line.strip())})


class VersionLocks(FactBase[list[str]]):
    """The lines of dnf's version locks; none where there is no list."""

    default = list

    def command(self) -> str:
        return f"! test -e {LOCK_LIST} || cat {LOCK_LIST}"

    def process(self, output: list[str]) -> list[str]:
        return list(list_lines(output))


@dataclass(frozen=True)
class Keys:
    """A key file's text, and the short ids of the keys rpm trusts."""

    text: str
    short_ids: frozenset[str]


class TrustedKeys(FactBase[Keys]):
    """
    The package key at `path`, and the short ids (8 hexadecimal digits) of all keys rpm trusts.

    + path: of the key file
    """

    @staticmethod
    def default() -> Keys:
        return Keys("", frozenset())

    def command(self, path: str) -> str:
        place = shlex.quote(path)
        return f"rpm -q --qf '%{{VERSION}}\\n' gpg-pubkey | sed 's/^/trusted /'; ! test -e {place} || cat {place}"

    def process(self, output: list[str]) -> Keys:
        trusted = frozenset(line.split()[1].lower() for line in output if line.startswith("trusted "))
        return Keys("\n".join(line for line in output if not line.startswith("trusted ")), trusted)


class RemoteText(FactBase[str]):
    """
    A small text the host fetches; where it cannot, what curl says: `curl: (60) SSL certificate problem …`.

    + url: http(s) or file URL
    """

    default = str

    def command(self, url: str) -> str:
        return f"curl --fail --silent --show-error --location --max-time 30 {shlex.quote(url)} 2>&1 || :"
