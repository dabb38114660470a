"""Makes the OCI instances that the inventory names and OCI does not have, and ends those that it no longer names.

python -m operations.provision                 # shows what would be made, asks, makes it, waits until ssh can reach it
python -m operations.provision --plan          # only shows it
python -m operations.provision --yes           # does not ask
python -m operations.provision --terminate     # ends the instances of the fleet that the inventory does not name

What the hosts are made of is in the table [provision] of inventories/oci.toml. A run that was ended at any moment is run again: an
instance is never made twice, and one whose name the inventory does not have is shown.
Exit codes: 0 every host runs and its key is known, 1 one does not or one has no name in the inventory, 2 bad input or refused.
"""

from __future__ import annotations

import argparse
import base64
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from operations.intake import oci_launch
from operations.intake.asking import answer
from operations.intake.oci_instances import compartments_of
from operations.intake.oci_session import open_session
from operations.intake.refusing import refusing
from operations.new_instances import LOOK_SECONDS, Coming, Work, found_coming, keys_known, launched, settled
from operations.plan.errors import PlanError, one_line
from operations.plan.inventory.hosts import read_group_data, tables_from_toml
from operations.plan.inventory.oci import Instance, from_table
from operations.plan.inventory.provision import Provision, compartment_of, known_names, provision_from
from operations.plan.provisioning import GONE, THEN, Row, is_ours, rows

PROGRAM = "python -m operations.provision"
FILE = Path("inventories/oci.toml")
NOT_ALL, BAD_INPUT, INTERRUPTED = 1, 2, 130
GONE_SECONDS = 3600  # an instance that is being made cannot be ended before it runs
LARGEST_METADATA = 32_000  # bytes: user data in base64, and the key


def parser(prog: str = PROGRAM) -> argparse.ArgumentParser:
    """The program's options. + prog: the name that its messages use"""
    parser = argparse.ArgumentParser(
        prog=prog, description="make the OCI instances that the inventory names, and end those that it no longer names"
    )  # fmt: skip
    parser.add_argument("--file", type=Path, default=FILE, metavar="FILE", help=f"default: {FILE}")
    parser.add_argument("--plan", action="store_true", help="show what would be done, and do nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--terminate",
        action="store_true",
        help="end the fleet's instances that the inventory does not name; make none",
    )
    parser.add_argument(
        "--keep-boot-volume",
        action="store_true",
        help="with --terminate: keep their disks, which are paid for",
    )
    return parser


def main(
    arguments: Sequence[str] | None = None, prog: str = PROGRAM, sleep: Callable[[float], None] = time.sleep
) -> int:
    """The command; see the exit codes at the top of this file."""
    given = parser(prog).parse_args(arguments)
    with refusing():
        try:
            work = _work(given.file)
            work.sleep = sleep
            found = _rows(work)
            print("\n".join(shown(work.wanted, found)), flush=True)
            if given.plan:
                _complain(complaints(found))
                return 0
            return _ended(work, found, given) if given.terminate else _made(work, found, given)
        except KeyboardInterrupt:
            then = "what OCI has accepted goes on and is paid for; run the command again"
            print(f"tritonhost: interrupted; {then}", file=sys.stderr)
            return INTERRUPTED


def _rows(work: Work) -> list[Row]:
    return rows(work.wanted, work.inventory, work.seen(), work.names)


def _work(file: Path) -> Work:
    """What the file says, checked; the way to OCI, checked. Raises PlanError."""
    where = str(file)
    tables = tables_from_toml(file)
    if "oci" not in tables:
        then = "docs/how-to/provision.md has an example"
        raise PlanError("[oci]", "no table", "one that finds the instances", then, where=where)
    inventory = from_table(tables["oci"], where)
    wanted = provision_from(tables, inventory, where)
    keys, data = {}, {}
    for name, profile in wanted.instances.items():
        at = f"[provision.instances.{name}]"
        keys[name] = _public_key(profile.ssh_public_key, f"{at} ssh_public_key", where)
        if profile.user_data:
            data[name] = _user_data(profile.user_data, keys[name], f"{at} user_data", where)
    known, port = _of_ssh(file.parent / "group_data")
    session = open_session(inventory, f"{where} [oci]")
    compartments = compartments_of(session, inventory)
    for name, profile in wanted.instances.items():
        compartment = compartment_of(profile, inventory, "", where)
        if compartment not in compartments:
            raise PlanError(
                f"[provision.instances.{name}] compartment", compartment, "one that [oci] searches",
                "or no instance of it is found", where=where, reference="not-found-by-oci",
            )  # fmt: skip
    names = known_names(tables, wanted)
    return Work(
        wanted, inventory, names, where, session, compartments, known, port, public_keys=keys, user_data=data
    )


def _of_ssh(group_data: Path) -> tuple[Path, int]:
    """The file of known hosts that deploys read, and the port: what the settings of all hosts name, or ssh's own."""
    data = read_group_data(group_data / "all.py")
    if (group_data / "oci.py").exists():
        data = {**data, **read_group_data(group_data / "oci.py")}
    named = str(data.get("ssh_known_hosts_file") or "~/.ssh/known_hosts")
    return _expanded(named, "ssh_known_hosts_file", str(group_data)), int(data.get("ssh_port") or 22)


def _expanded(path: str, key: str, where: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise PlanError(key, path, "a path whose user exists", where=where, reference="no-file") from None


def _public_key(path: str, key: str, where: str) -> str:
    text = _read(path, key, where).decode("utf-8", "replace").strip()
    if len(text.splitlines()) != 1 or not text.startswith(("ssh-", "ecdsa-", "sk-")):
        # a private key is a mistake that must not be printed
        raise PlanError(
            key, f"{path} (not shown)", "a file with one public key, such as ~/.ssh/id_ed25519.pub",
            where=where, reference="no-public-key",
        )  # fmt: skip
    return text


def _user_data(path: str, public_key: str, key: str, where: str) -> str:
    data = _read(path, key, where)
    if b"emit_keys_to_console: false" in data:
        then = "the host's key is read from its console"
        raise PlanError(
            key, "emit_keys_to_console: false", "a console that shows the host's keys", then, where=where
        )
    text = base64.b64encode(data).decode()
    if len(text) + len(public_key) > LARGEST_METADATA:
        most = (LARGEST_METADATA - len(public_key)) * 3 // 4
        raise PlanError(key, f"{len(data)} bytes", f"at most {most} bytes", where=where)
    return text


def _read(path: str, key: str, where: str) -> bytes:
    try:
        return _expanded(path, key, where).read_bytes()
    except OSError as error:
        found = f"{error.strerror}: {path}"
        raise PlanError(key, found, "a file that can be read", where=where, reference="no-file") from None


def shown(wanted: Provision, found: Sequence[Row]) -> list[str]:
    """The table that is shown before anything is changed."""
    return [
        f"fleet {wanted.fleet}:",
        *(f"  {row.fate:9}{one_line(row.host):18}{one_line(row.detail)}" for row in found),
    ]


def complaints(found: Sequence[Row]) -> list[str]:
    """One line for each row that a person has to do something about."""
    lines = []
    for row in found:
        if then := THEN.get(row.fate):
            ocid = row.instances[0].ocid
            advice = then.format(ocid=ocid, host=row.host)
            lines.append(f"{one_line(row.host)} ({ocid}): {one_line(row.detail)}; {advice}")
    return lines


def _complain(lines: Sequence[str]) -> int:
    for line in lines:
        print(f"tritonhost: {line}", file=sys.stderr)
    return NOT_ALL if lines else 0


def _agreed(question: str, word: str) -> bool:
    said = answer(f"{question} type {word} to go on: ")
    if said not in (None, word):
        print("tritonhost: nothing was changed", file=sys.stderr)
    return said == word


# --- hosts that are made


def _made(work: Work, found: Sequence[Row], given: argparse.Namespace) -> int:
    new = [row.host for row in found if row.fate == "launch"]
    several = len(new) > 1
    if new and not given.yes and not _agreed(
        f"launch {len(new)} instance{'s' if several else ''}, which {'are' if several else 'is'} paid for from then on?",
        "launch",
    ):  # fmt: skip
        return BAD_INPUT
    problems: list[str] = []
    coming = {row.host: found_coming(work, row.host, row.instances[0]) for row in found if row.fate == "wait"}
    # cloud-init shows the keys at the first boot alone
    first = [row.host for row in found if row.fate == "wait" and row.instances[0].state == "PROVISIONING"]
    for host in new:
        domains = iter(work.wanted.of(host)[1].availability_domains)
        try:
            coming[host] = Coming(launched(work, host, domains), domains)
            first.append(host)
        except PlanError as error:
            problems.append(f"{host}: not known to be launched: {error}; run it again")
    try:
        running, late = settled(work, coming)
        problems += late
        there = [
            row.host for row in found if row.fate == "running" and is_ours(row.instances[0], work.wanted)
        ]
        again = [host for host in running if host not in first]
        problems += keys_known(work, [host for host in running if host in first], [*again, *there])
        # another run may have been at it
        problems += complaints(_rows(work))
    except PlanError as error:
        problems.append(f"{error}; what was launched is paid for; run it again")
    code = _complain(problems)
    if not code:
        print(f"next: pyinfra {work.where.removesuffix('.toml')}.py deploy.py")
    return code


# --- instances without a name in the inventory


def _ended(work: Work, found: Sequence[Row], given: argparse.Namespace) -> int:
    unnamed = [row.instances[0] for row in found if row.fate == "unnamed"]
    if not unnamed:
        print("every instance of the fleet is a host of the inventory")
        return 0
    names = ", ".join(one_line(each.name) for each in unnamed)
    disks = (
        "their boot volumes stay and are paid for" if given.keep_boot_volume else "what is on them is lost"
    )
    if not given.yes and not _agreed(f"terminate {names}? {disks};", work.wanted.fleet):
        return BAD_INPUT
    # what has got a name meanwhile stays
    asked = {each.ocid for each in unnamed}
    unnamed = [
        row.instances[0] for row in _rows(work) if row.fate == "unnamed" and row.instances[0].ocid in asked
    ]
    return _complain(_terminated(work, unnamed, given.keep_boot_volume))


def _terminated(work: Work, instances: Sequence[Instance], keep_boot_volume: bool) -> list[str]:
    """End instances, and wait until OCI has. Returns a line for each that goes on."""
    left, problems = {each.ocid: each for each in instances}, []
    accepted: set[str] = set()
    deadline = time.monotonic() + GONE_SECONDS
    while left:
        refused: dict[str, PlanError] = {}
        for ocid in [ocid for ocid in left if ocid not in accepted]:
            try:
                if oci_launch.terminate(work.session, _label(left[ocid]), ocid, keep_boot_volume):
                    accepted.add(ocid)
            except PlanError as error:
                refused[ocid] = error
        living = {each.ocid: each.state for each in work.seen() if each.state not in GONE}
        for ocid, each in list(left.items()):
            # OCI refuses to end one that is gone, which is no error
            if ocid not in living:
                print(f"{one_line(each.name)}: terminated", flush=True)
            elif ocid in refused:
                problems.append(f"{_label(each)}: not terminated: {refused[ocid]}")
            elif time.monotonic() > deadline:
                problems.append(f"{_label(each)}: still {living[ocid]}; run it again")
            else:
                continue
            del left[ocid]
        if left:
            work.sleep(LOOK_SECONDS)
    return problems


def _label(instance: Instance) -> str:
    return f"{one_line(instance.name)} ({instance.ocid})"


if __name__ == "__main__":
    sys.exit(main())
