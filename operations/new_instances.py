"""Instances of OCI that are being made: asked for, waited for, and their host keys."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from operations.intake import known_hosts, oci_launch
from operations.intake.oci_instances import instances_of, with_addresses
from operations.intake.oci_session import Session
from operations.plan import provisioning
from operations.plan.errors import PlanError, one_line
from operations.plan.inventory.oci import Instance, OciInventory
from operations.plan.inventory.provision import Provision, compartment_of
from operations.plan.provisioning import COMING, GONE, THEN, host_keys, launch_details, retry_token

LOOK_SECONDS = 10.0  # between two looks at instances that are being made
CONSOLE_SECONDS = 30.0  # between two looks at a console: each makes a capture in OCI
KEY_SECONDS = 900.0  # from RUNNING, until the console shows the keys
TOKENS = 3  # that are tried for one host in one availability domain


@dataclass
class Work:
    """One run: what is wanted, and how OCI is asked. `known_hosts`: the file that deploys read. `sleep`: how it waits."""

    wanted: Provision
    inventory: OciInventory
    names: frozenset[str]
    where: str
    session: Session
    compartments: list[str]
    known_hosts: Path
    ssh_port: int = 22
    public_keys: dict[str, str] = field(default_factory=dict)  # of a profile
    user_data: dict[str, str] = field(default_factory=dict)  # of a profile, base64
    sleep: Callable[[float], None] = time.sleep
    began: float = field(default_factory=lambda: time.monotonic())

    def seen(self) -> list[Instance]:
        """All instances, terminated ones among them."""
        return instances_of(self.session, self.compartments)[0]

    def of(self, host: str) -> list[Instance]:
        """The instances that are a host, terminated ones among them."""
        return provisioning.instances_of(host, self.wanted, self.inventory, self.seen())

    def compartment(self, host: str) -> str:
        """Where a host's instance is made."""
        return compartment_of(self.wanted.of(host)[1], self.inventory, "", self.where)

    def passed(self) -> str:
        """How long the run has taken, in words."""
        seconds = round(time.monotonic() - self.began)
        return f"{seconds // 60} min {seconds % 60} s"


@dataclass
class Coming:
    """An instance that is being made, since when, and the availability domains that are left to try."""

    ocid: str
    domains: Iterator[str] = field(default_factory=lambda: iter(()))
    state: str = ""
    since: float = field(default_factory=lambda: time.monotonic())


def found_coming(work: Work, host: str, instance: Instance) -> Coming:
    """An instance that a run before has asked for, with the domains behind its own."""
    domains = work.wanted.of(host)[1].availability_domains
    at = instance.availability_domain
    left = domains[domains.index(at) + 1 :] if at in domains else []
    return Coming(instance.ocid, iter(left))


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
        except PlanError:
            # the answer may have been lost
            if living := [each.ocid for each in work.of(host) if each.state not in GONE]:
                return living[0]
            raise
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
        seen = work.of(host)
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

    Prints a line whenever one changes. A list that fails is asked for again until then.
    """
    left, running, problems = dict(hosts), [], []
    while left:
        try:
            seen, unseen = {each.ocid: each for each in work.seen()}, ""
        except PlanError as error:
            seen, unseen = {}, f"not known: {error}"
        for host, coming in list(left.items()):
            ended = _ended(work, host, coming, seen.get(coming.ocid), unseen)
            if ended is None:
                continue
            if ended:
                problems.append(f"{host}: {ended}")
            else:
                running.append(host)
            del left[host]
        if left:
            work.sleep(LOOK_SECONDS)
    return running, problems


def _ended(work: Work, host: str, coming: Coming, now: Instance | None, unseen: str) -> str | None:
    """What ends the wait for a host: nothing to say where it runs; None: it goes on."""
    state = now.state if now else unseen or "not listed yet"
    if state != coming.state:
        print(f"{host}: {state}, after {work.passed()}", flush=True)
        coming.state = state
    limit = work.wanted.of(host)[1].wait_minutes
    if state == "RUNNING":
        return ""
    if now and state in GONE:
        why = _elsewhere(work, host, now, coming)
        return f"{state} before it ran: {why}" if why else None
    if now and state not in COMING:
        return f"{state}, expected RUNNING; {THEN['stopped'].format(ocid=now.ocid)}"
    if time.monotonic() - coming.since > limit * 60:
        then = "it is paid for; run it again to go on, or take it out of the inventory and run --terminate"
        return f"{state} after {limit} minutes; {then}"
    return None


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
        coming.since = time.monotonic()
    except PlanError as error:
        return str(error)
    return ""


# --- their keys


def keys_known(work: Work, new: Sequence[str], before: Sequence[str]) -> list[str]:
    """
    Put each host's public key, as its console shows it, beside its address into the file of known hosts.

    + new: hosts that were made now; what the file has for their addresses is of machines that are gone
    + before: hosts that ran already; what the file has for them stays, unless it is of another instance

    Returns a line for each host whose key did not become known in time.
    """
    if not new and not before:
        return []
    problems = []
    instances, attachments = instances_of(work.session, work.compartments)
    for host in (*new, *before):
        of_it = provisioning.instances_of(host, work.wanted, work.inventory, instances)
        running = [each for each in of_it if each.state == "RUNNING"]
        if len(running) != 1:
            problems.append(f"{host}: found {len(running)} running instances, expected one; run it again")
            continue
        try:
            _know(work, host, running[0], attachments, host in new)
        except PlanError as error:
            problems.append(f"{host}: its key is not known: {error}")
    return problems


def _know(work: Work, host: str, instance: Instance, attachments: dict[str, list[str]], new: bool) -> None:
    [(_, found)] = with_addresses(work.session, [instance], attachments, work.where)
    address = found.public if work.inventory.address == "public" else found.private
    if not address:
        raise PlanError(host, f"no {work.inventory.address} IPv4 address", "one on the primary VNIC")
    name, file = known_hosts.entry(address, work.ssh_port), work.known_hosts
    there = known_hosts.lines_of(file, name)
    # an entry that a run has made says whose it is
    others = [
        line for line in there if line.split()[-1].startswith("ocid1.instance.") and instance.ocid not in line
    ]
    # a key that is revoked is none
    if not new and not others and any(not line.startswith("@") for line in there):
        return
    keys = _keys(work, host, instance.ocid)
    if not keys:
        then = f"docs/how-to/oci.md, part 6, has the ways to read it; put it into {file} behind {name}"
        raise PlanError("console", "no host key", "the lines of cloud-init", then, reference="no-host-key")
    known_hosts.remember(file, name, keys, instance.ocid)
    print(f"{host}: {address}, key in {file}, after {work.passed()}", flush=True)


def _keys(work: Work, host: str, ocid: str) -> list[str]:
    """The keys that a console shows, which it does some minutes after the machine runs. Raises PlanError."""
    began = time.monotonic()
    while True:
        late = time.monotonic() - began > KEY_SECONDS
        try:
            keys = host_keys(oci_launch.console(work.session, host, ocid, work.sleep))
            if keys or late:
                return keys
        except PlanError:
            if late:
                raise
        work.sleep(CONSOLE_SECONDS)
