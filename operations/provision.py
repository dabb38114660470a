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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from operations.intake import known_hosts, oci_launch
from operations.intake.oci_instances import compartments_of, instances_of, with_addresses
from operations.intake.oci_session import Session, open_session
from operations.intake.refusing import refusing
from operations.plan.errors import PlanError, one_line
from operations.plan.inventory.hosts import read_group_data, tables_from_toml
from operations.plan.inventory.oci import Instance, OciInventory, from_table
from operations.plan.inventory.provision import (
    FLEET_TAG,
    Provision,
    compartment_of,
    known_names,
    provision_from,
)
from operations.plan.provisioning import GONE, THEN, Row, host_keys, launch_details, retry_token, rows

PROGRAM = "python -m operations.provision"
FILE = Path("inventories/oci.toml")
NOT_ALL, BAD_INPUT, INTERRUPTED = 1, 2, 130
LOOK_SECONDS = 10.0  # between two looks at instances that are being made
CONSOLE_SECONDS = 30.0  # between two looks at a console: each makes a capture in OCI
GONE_SECONDS = 600
LARGEST_METADATA = 32_000  # bytes: user data in base64, and the key
TOKENS = 3  # that are tried for one host in one availability domain


@dataclass
class Work:
    """One run: what is wanted, and how OCI is asked. `sleep`: how it waits."""

    wanted: Provision
    inventory: OciInventory
    names: frozenset[str]
    where: str
    session: Session
    compartments: list[str]
    public_keys: dict[str, str] = field(default_factory=dict)  # of a profile
    user_data: dict[str, str] = field(default_factory=dict)  # of a profile, base64
    sleep: Callable[[float], None] = time.sleep
    began: float = field(default_factory=lambda: time.monotonic())

    def seen(self) -> list[Instance]:
        """All instances, terminated ones among them."""
        return instances_of(self.session, self.compartments)[0]

    def compartment(self, host: str) -> str:
        """Where a host's instance is made."""
        return compartment_of(self.wanted.of(host)[1], self.inventory, "", self.where)


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
            found = rows(work.wanted, work.seen(), work.names)
            print("\n".join(shown(work.wanted, found)))
            if given.plan:
                return 0
            return _ended(work, found, given) if given.terminate else _made(work, found, given)
        except KeyboardInterrupt:
            then = "what OCI has accepted goes on and is paid for; run the command again"
            print(f"tritonhost: interrupted; {then}", file=sys.stderr)
            return INTERRUPTED


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
    session = open_session(inventory, f"{where} [oci]")
    compartments = compartments_of(session, inventory)
    others = [compartment_of(each, inventory, "", where) for each in wanted.instances.values()]
    names = known_names(tables, wanted)
    return Work(
        wanted, inventory, names, where, session, list(dict.fromkeys([*compartments, *others])), keys, data
    )


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
        return Path(path).expanduser().read_bytes()
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
            lines.append(f"{one_line(row.host)} ({ocid}): {row.detail}; {then.format(ocid=ocid)}")
    return lines


def _complain(lines: Sequence[str]) -> int:
    for line in lines:
        print(f"tritonhost: {line}", file=sys.stderr)
    return NOT_ALL if lines else 0


def _agreed(question: str, word: str) -> bool:
    if not sys.stdin.isatty():
        print("tritonhost: found no terminal to ask at, expected --yes", file=sys.stderr)
        return False
    print(f"{question} type {word} to go on: ", end="", flush=True)
    if sys.stdin.readline().strip() == word:
        return True
    print("tritonhost: nothing was changed", file=sys.stderr)
    return False


# --- hosts that are made


@dataclass
class Coming:
    """An instance that is being made, and the availability domains that are left to try."""

    ocid: str
    domains: Iterator[str] = field(default_factory=lambda: iter(()))
    state: str = ""


def _made(work: Work, found: Sequence[Row], given: argparse.Namespace) -> int:
    new = [row.host for row in found if row.fate == "launch"]
    several = len(new) > 1
    if new and not given.yes and not _agreed(
        f"launch {len(new)} instance{'s' if several else ''}, which {'are' if several else 'is'} paid for from then on?",
        "launch",
    ):  # fmt: skip
        return BAD_INPUT
    problems = complaints(found)
    coming = {row.host: Coming(row.instances[0].ocid) for row in found if row.fate == "wait"}
    for host in new:
        domains = iter(work.wanted.of(host)[1].availability_domains)
        try:
            coming[host] = Coming(launched(work, host, domains), domains)
        except PlanError as error:
            problems.append(f"{host}: not launched: {error}")
    running, late = settled(work, coming)
    problems += late
    ours = [
        row.host for row in found if row.fate == "running" and FLEET_TAG in row.instances[0].freeform_tags
    ]
    problems += keys_known(work, running, ours)
    code = _complain(problems)
    if not code:
        print(f"next: pyinfra {work.where.removesuffix('.toml')}.py deploy.py")
    return code


def launched(work: Work, host: str, domains: Iterator[str]) -> str:
    """
    Ask OCI for a host's instance, in one availability domain after another while one has no capacity; returns its OCID.

    + domains: those that are left to try; the ones tried are taken from it

    Raises PlanError. No other domain is tried where it is not known whether a request was accepted.
    """
    full = PlanError(host, "no availability domain", "one that is left to try")
    for domain in domains:
        try:
            return _launched(work, host, domain)
        except oci_launch.NoCapacity as error:
            print(f"{host}: none in {domain}: {error.found}", flush=True)
            full = error
    raise full


def _launched(work: Work, host: str, domain: str) -> str:
    name, _ = work.wanted.of(host)
    compartment = work.compartment(host)
    details = launch_details(
        work.wanted, host, compartment, domain, work.public_keys[name], work.user_data.get(name, "")
    )
    gone: set[str] = set()
    for attempt in range(TOKENS):
        # an answer may have taken minutes, and another run may be at it
        seen = [each for each in work.seen() if each.name == host]
        if living := [each.ocid for each in seen if each.state not in GONE]:
            return living[0]
        gone |= {each.ocid for each in seen}
        token = retry_token(work.wanted, host, compartment, domain, gone)
        try:
            ocid = oci_launch.launch(work.session, f"launch {host} in {domain}", details, token)
        except oci_launch.UsedToken:
            if attempt + 1 == TOKENS:
                raise
            gone.add(f"used {attempt}")
            work.sleep(LOOK_SECONDS)
            continue
        if oci_launch.state(work.session, host, ocid) not in GONE:
            print(f"{host}: launched in {domain}: {ocid}", flush=True)
            return ocid
        # OCI lists an instance for half a day after its end, and keeps the token for a whole one
        gone.add(ocid)
    raise PlanError(host, "only instances that are gone", "a new one", "run it again tomorrow")


def settled(work: Work, hosts: dict[str, Coming]) -> tuple[list[str], list[str]]:
    """
    Wait until each host's instance runs, is gone again, or is late: those that run, and a line for each other one.

    Prints a line whenever one changes.
    """
    left, running, problems = dict(hosts), [], []
    while left:
        seen = {each.ocid: each for each in work.seen()}
        for host, coming in list(left.items()):
            now = seen.get(coming.ocid)
            state = now.state if now else "not listed yet"
            if state != coming.state:
                print(f"{host}: {state}, after {_minutes(work)}", flush=True)
                coming.state = state
            limit = work.wanted.of(host)[1].wait_minutes
            if state == "RUNNING":
                running.append(host)
            elif now and state in GONE:
                if not (why := _elsewhere(work, host, now, coming)):
                    continue
                problems.append(f"{host}: {state} before it ran: {why}")
            elif time.monotonic() - work.began > limit * 60:
                then = "it is paid for; run it again to go on, or take it out of the inventory and run --terminate"
                problems.append(f"{host}: {state} after {limit} minutes; {then}")
            else:
                continue
            del left[host]
        if left:
            work.sleep(LOOK_SECONDS)
    return running, problems


def _elsewhere(work: Work, host: str, ended: Instance, coming: Coming) -> str:
    """Launch a host in the next domain if OCI had accepted it and had no capacity then; why not, if it was not launched."""
    try:
        why = oci_launch.reason(work.session, host, work.compartment(host), ended.ocid)
        if not oci_launch.out_of_capacity(why):
            return f"{one_line(why) or 'OCI does not say why'}; run it again to make another"
        print(f"{host}: none in {ended.availability_domain}: {one_line(why)}", flush=True)
        if (domain := next(coming.domains, None)) is None:
            return f"{one_line(why)}; no further availability domain is named"
        coming.ocid = launched(work, host, chain([domain], coming.domains))
    except PlanError as error:
        return str(error)
    return ""


def _minutes(work: Work) -> str:
    passed = round(time.monotonic() - work.began)
    return f"{passed // 60} min {passed % 60} s"


# --- their keys


def keys_known(work: Work, new: Sequence[str], before: Sequence[str]) -> list[str]:
    """
    Put each host's public key, as its console shows it, beside its address into the file of known hosts.

    + new: hosts that were made now; what the file has for their addresses is of machines that are gone
    + before: hosts that ran already; what the file has for them stays

    Returns a line for each host whose key did not become known in time.
    """
    if not new and not before:
        return []
    file, problems = known_hosts_file(), []
    instances, attachments = instances_of(work.session, work.compartments)
    of = {each.name: each for each in instances if each.state == "RUNNING"}
    for host in (*new, *before):
        try:
            [(_, found)] = with_addresses(work.session, [of[host]], attachments, work.where)
            address = (found.public if work.inventory.address == "public" else found.private) or ""
            if host in before and known_hosts.knows(file, address):
                continue
            keys = _keys(work, host, of[host].ocid, wait=host in new)
            if not keys:
                then = f"docs/how-to/oci.md, part 6, has the ways to read it; put it into {file} behind {address}"
                problems.append(f"{host}: its console shows no host key; {then}")
                continue
            known_hosts.remember(file, address, keys)
            print(f"{host}: {address}, key in {file}, after {_minutes(work)}", flush=True)
        except KeyError:
            problems.append(f"{host}: it ran and runs no more; run it again")
        except PlanError as error:
            problems.append(f"{host}: its key is not known: {error}")
    return problems


def known_hosts_file() -> Path:
    """The file that the run will read: what the settings of all hosts name, or ssh's own."""
    data = read_group_data(FILE.parent / "group_data" / "all.py")
    return Path(str(data.get("ssh_known_hosts_file") or "~/.ssh/known_hosts")).expanduser()


def _keys(work: Work, host: str, ocid: str, wait: bool) -> list[str]:
    limit = work.wanted.of(host)[1].wait_minutes * 60
    while True:
        keys = host_keys(oci_launch.console(work.session, host, ocid, work.sleep))
        if keys or not wait or time.monotonic() - work.began > limit:
            return keys
        work.sleep(CONSOLE_SECONDS)


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
    left, accepted, problems = {each.ocid: each for each in unnamed}, set(), []
    deadline = time.monotonic() + GONE_SECONDS
    while left:
        for ocid, each in list(left.items()):
            label = f"{one_line(each.name)} ({ocid})"
            try:
                if ocid not in accepted and oci_launch.terminate(
                    work.session, label, ocid, given.keep_boot_volume
                ):
                    accepted.add(ocid)
            except PlanError as error:
                # of one that is gone it is no error
                if any(each.ocid == ocid and each.state not in GONE for each in work.seen()):
                    problems.append(f"{label}: not terminated: {error}")
                del left[ocid]
        living = {each.ocid: each.state for each in work.seen() if each.state not in GONE}
        for ocid, each in list(left.items()):
            if ocid not in living:
                print(f"{one_line(each.name)}: terminated", flush=True)
                del left[ocid]
            elif time.monotonic() > deadline:
                problems.append(f"{one_line(each.name)} ({ocid}): still {living[ocid]}; run it again")
                del left[ocid]
        if left:
            work.sleep(LOOK_SECONDS)
    return _complain(problems)


if __name__ == "__main__":
    sys.exit(main())
