"""Who owns the files that root runs or the server reads: which are checked, and which of them a run repairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from operations.plan.artifacts.artifact import DIRECTORIES
from operations.plan.machine import daemon_json
from operations.plan.machine.local_disks import ARRAY_FILE, mount_unit
from operations.plan.machine.version_locks import LOCK_LIST
from operations.plan.permissions import LINK, Permissions

WANTED = "owner root, no write permission for others, readable for the server"
DEEP = "100"  # levels of a checkout; the probe reads the first two
ROWS = 12  # of one stage; more would hide the other rows

# Files that root reads and a site may have written, and the directories above what we write: never changed by a run.
SITE = (
    *("/etc", "/etc/systemd", "/etc/systemd/system", "/etc/yum.repos.d", "/etc/pki", "/etc/pki/rpm-gpg"),
    *("/etc/docker", daemon_json.PATH, "/etc/dnf", "/etc/dnf/plugins", LOCK_LIST),
    *(ARRAY_FILE.rpartition("/")[0], ARRAY_FILE, "/run/tritonhost"),
)


def variables(data_root: str, files: Iterable[str], unit_files: Iterable[str]) -> dict[str, str]:
    """
    The input of files/host/ownership.sh.

    + files: those that the tool writes outside its own directories
    + unit_files: those of them that are units, to which a site may add directories of its own
    """
    return {
        "OWNED": "\n".join(files),
        "SITE": "\n".join((*SITE, f"/etc/systemd/system/{mount_unit(data_root)}")),
        "DROPINS": "\n".join(f"{path}.d" for path in unit_files),
        "SEALED": "\n".join(DIRECTORIES.values()),
    }


def repaired(
    data_root: str, files: Iterable[str], exposed: Mapping[str, Permissions]
) -> tuple[list[str], list[str]]:
    """Of what is exposed: what a run takes back, and what a person has to look at first."""
    ours = {*files, data_root}
    mine = [path for path in exposed if path in ours or path.startswith(f"{data_root}/")]
    return mine, [path for path in exposed if path not in mine]


def said(found: Permissions) -> str:
    """Permissions in words."""
    return "a link" if found.mode == LINK else f"mode {found.mode} of user {found.user}, group {found.group}"


def shown(path: str) -> str:
    """A path for the table: an account that may write there could give it any name."""
    return "".join(letter if letter.isprintable() else "?" for letter in path)
