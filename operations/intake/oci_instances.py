"""The dynamic inventory: query OCI for instances and their addresses."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from operations.intake.oci_session import Session, all_pages, answered, open_session
from operations.plan.errors import PlanError, one_line
from operations.plan.inventory.hosts import HostEntry
from operations.plan.inventory.oci import (
    Addresses,
    Instance,
    OciInventory,
    groups_of,
    hosts_of,
    select,
    ssh_config,
)

PARALLEL = 8  # requests at a time, below what OCI throttles
PAGE = 500  # items
# The least permission that each request needs:
# https://docs.oracle.com/en-us/iaas/Content/Identity/policyreference/corepolicyreference.htm
READ_INSTANCES = "Allow group GROUP to read instances in compartment COMPARTMENT"
INSPECT_ATTACHMENTS = "Allow group GROUP to inspect vnic-attachments in compartment COMPARTMENT"
INSPECT_VNICS = "Allow group GROUP to inspect vnics in compartment COMPARTMENT"
INSPECT_COMPARTMENTS = "Allow group GROUP to inspect compartments in tenancy"


@dataclass(frozen=True)
class Found:
    """What OCI returned: hosts for pyinfra, and their groups."""

    hosts: list[HostEntry] = field(default_factory=list)
    groups: dict[str, list[str]] = field(default_factory=dict)


def found_by(wanted: OciInventory, where: str, ssh_config_file: Path, base: str) -> Found:
    """
    The hosts and groups of the table [oci].

    + where: the table's file, for errors
    + ssh_config_file: written if the hosts are behind a bastion
    + base: the ssh configuration that applies to every host

    Prints one line on standard error that names the GPU instances which are excluded because of their state.
    Raises PlanError.
    """
    session = open_session(wanted, f"{where} [oci]")
    compartments = compartments_of(session, wanted)
    instances, attachments = instances_of(session, compartments)
    selection = select(instances, wanted, where)
    if aside := [i for reason, i in selection.left_out if reason.startswith("lifecycle_state")]:
        names = ", ".join(f"{one_line(instance.name)} ({instance.state})" for instance in aside[:5])
        more = f" and {len(aside) - 5} more" if len(aside) > 5 else ""
        print(f"tritonhost: {where}: left out, not {wanted.lifecycle_state}: {names}{more}", file=sys.stderr)
    found = with_addresses(session, selection.chosen, attachments, where)
    hosts = hosts_of(found, wanted, where)
    if wanted.bastion is not None:
        addresses = [data["ssh_hostname"] for _, data in hosts]
        _write(ssh_config_file, ssh_config(wanted.bastion, addresses, base))
        for _, data in hosts:
            data["ssh_config_file"] = str(ssh_config_file)
    return Found(hosts, groups_of(found))


@contextmanager
def _parallel() -> Iterator[ThreadPoolExecutor]:
    """Send requests in parallel. After a permanent failure, those still in the queue are not sent."""
    pool = ThreadPoolExecutor(PARALLEL)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def compartments_of(session: Session, wanted: OciInventory) -> list[str]:
    """The compartments to search, each once."""
    if not wanted.include_subtree:
        return list(dict.fromkeys(wanted.compartments))
    import oci

    client = session.client(oci.identity.IdentityClient, "identity")

    def below(compartment: str) -> list[str]:
        # Only the root, the tenancy, can be listed with its whole tree.
        whole = {"compartment_id_in_subtree": True} if compartment.startswith("ocid1.tenancy.") else {}
        with answered(session, f"list compartments of {compartment}", INSPECT_COMPARTMENTS):
            listed = all_pages(client.list_compartments, compartment, access_level="ACCESSIBLE", **whole)
        return [item.id for item in listed if item.lifecycle_state == "ACTIVE"]

    known: dict[str, None] = {}
    level = list(wanted.compartments)
    with _parallel() as pool:
        while level := [ocid for ocid in dict.fromkeys(level) if ocid not in known]:
            known.update(dict.fromkeys(level))
            roots = [ocid for ocid in level if ocid.startswith("ocid1.tenancy.")]
            whole = [ocid for found in pool.map(below, roots) for ocid in found]
            known.update(dict.fromkeys(whole))
            others = [ocid for ocid in level if ocid not in roots and ocid not in whole]
            level = [ocid for found in pool.map(below, others) for ocid in found]
    return list(known)


def instances_of(
    session: Session, compartments: Sequence[str]
) -> tuple[list[Instance], dict[str, list[str]]]:
    """Every instance of the compartments, and the VNICs attached to each: two lists per compartment, in parallel."""
    import oci

    client = session.client(oci.core.ComputeClient, "iaas")

    def listed(compartment: str) -> list[Any]:
        with answered(session, f"list instances of {compartment}", READ_INSTANCES):
            return all_pages(client.list_instances, compartment, limit=PAGE)

    def attached(compartment: str) -> list[Any]:
        policies = f"{READ_INSTANCES}; {INSPECT_ATTACHMENTS}"
        with answered(session, f"list VNIC attachments of {compartment}", policies):
            return all_pages(client.list_vnic_attachments, compartment, limit=PAGE)

    with _parallel() as pool:
        lists = [(pool.submit(listed, c), pool.submit(attached, c)) for c in compartments]
        instances = [item for found, _ in lists for item in found.result()]
        attachments = [item for _, found in lists for item in found.result()]
    vnics: dict[str, list[str]] = {}
    for item in attachments:
        if item.lifecycle_state == "ATTACHED" and item.vnic_id:
            vnics.setdefault(item.instance_id, []).append(item.vnic_id)
    return [
        Instance(
            ocid=item.id,
            name=item.display_name or "",
            shape=item.shape or "",
            state=item.lifecycle_state or "",
            availability_domain=item.availability_domain or "",
            freeform_tags=item.freeform_tags or {},
            defined_tags=item.defined_tags or {},
        )
        for item in instances
    ], vnics


def with_addresses(
    session: Session, instances: Sequence[Instance], attachments: dict[str, list[str]], where: str
) -> list[tuple[Instance, Addresses]]:
    """The addresses of each instance's primary VNIC: one request per VNIC, several instances in parallel."""
    import oci

    client = session.client(oci.core.VirtualNetworkClient, "iaas")

    def of(instance: Instance) -> Addresses:
        for vnic_id in attachments.get(instance.ocid, []):
            with answered(session, f"get {vnic_id} of {instance.name}", INSPECT_VNICS):
                vnic = client.get_vnic(vnic_id).data
            if vnic.is_primary:
                return Addresses(vnic.private_ip, vnic.public_ip)
        then = "wait until it is attached, or narrow the filters of [oci]"
        raise PlanError(
            f"[oci] {instance.name}",
            "no primary VNIC",
            "one that is attached",
            then,
            where=where,
            reference="no-address",
        )

    with _parallel() as pool:
        return list(zip(instances, pool.map(of, instances), strict=True))


def _write(path: Path, text: str) -> None:
    """Replace the file atomically: another run may read it at this moment."""
    try:
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return
        new = path.with_name(f"{path.name}.{os.getpid()}")
        new.write_text(text, encoding="utf-8")
        new.replace(path)
    except OSError as error:
        then = "oci.bastion needs an ssh configuration of its own"
        raise PlanError(str(path), error.strerror, "a file that can be written", then) from None
