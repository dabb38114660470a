"""What `tritonhost provision` has to do: the inventory's hosts against the instances that OCI lists.

Decides only: operations/intake/oci_launch.py asks OCI.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from operations.plan.inventory.oci import Instance, OciInventory, filter_against
from operations.plan.inventory.provision import FLEET_TAG, HOST_TAG, InstanceProfile, Provision, tags_of

GONE = ("TERMINATING", "TERMINATED")
# they become RUNNING by themselves
COMING = ("PROVISIONING", "STARTING", "MOVING", "CREATING_IMAGE")
TOKEN_LENGTH = 64  # characters, OCI's limit of a retry token
# What cloud-init prints to the console at the first boot:
# https://cloudinit.readthedocs.io/en/latest/reference/modules.html#keys-to-console
_KEYS = re.compile(r"-----BEGIN SSH HOST KEY KEYS-----(.*?)-----END SSH HOST KEY KEYS-----", re.DOTALL)
_KEY = re.compile(r"(?:ssh-(?:ed25519|rsa)|ecdsa-sha2-nistp[0-9]{3}) [A-Za-z0-9+/]+={0,2}(?![A-Za-z0-9+/=])")

Fate = Literal["launch", "wait", "running", "stopped", "twice", "differs", "renamed", "unnamed"]


@dataclass(frozen=True)
class Row:
    """One host, or one instance without a name in the inventory: what becomes of it, why, and its instances."""

    host: str
    fate: Fate
    detail: str
    instances: tuple[Instance, ...] = ()


def rows(
    wanted: Provision, inventory: OciInventory, seen: Sequence[Instance], names: frozenset[str]
) -> list[Row]:
    """
    What becomes of each host, in the inventory's order; then each instance of this fleet whose name the inventory does not have.

    + seen: all instances of the compartments, terminated ones among them
    + names: every name that the inventory gives a host
    """
    found = [_of(host, wanted, instances_of(host, wanted, inventory, seen)) for host in wanted.hosts]
    for instance in sorted(seen, key=lambda each: (each.name, each.ocid)):
        name = instance.freeform_tags.get(HOST_TAG, instance.name)
        if is_ours(instance, wanted) and name not in names and instance.state not in GONE:
            detail = f"{instance.shape}, {instance.state}: paid for, and not in the inventory"
            found.append(Row(instance.name, "unnamed", detail, (instance,)))
    return found


def is_ours(instance: Instance, wanted: Provision) -> bool:
    """Whether an instance was made for this fleet."""
    return instance.freeform_tags.get(FLEET_TAG) == wanted.fleet


def instances_of(
    host: str, wanted: Provision, inventory: OciInventory, seen: Sequence[Instance]
) -> list[Instance]:
    """
    The instances that are a host: those that were made for it, whatever they are called now, and those of its name that were made by a
    person and that [oci] finds. One of its name that is of another fleet, or that [oci] leaves out, is somebody else's.
    """
    found = []
    for instance in seen:
        if is_ours(instance, wanted):
            of_it = instance.freeform_tags.get(HOST_TAG, instance.name) == host
        else:
            # one that is stopped is the host as well
            running = replace(instance, state=inventory.lifecycle_state)
            made_by_hand = FLEET_TAG not in instance.freeform_tags
            of_it = instance.name == host and made_by_hand and not filter_against(running, inventory)
        if of_it:
            found.append(instance)
    return found


def _of(host: str, wanted: Provision, seen: Sequence[Instance]) -> Row:
    _, profile = wanted.of(host)
    living = tuple(instance for instance in seen if instance.state not in GONE)
    if not living:
        return Row(host, "launch", described(profile))
    if len(living) > 1:
        return Row(host, "twice", ", ".join(instance.ocid for instance in living), living)
    [instance] = living
    if instance.name != host:
        return Row(host, "renamed", f"is called {instance.name} in OCI", living)
    if instance.shape != profile.shape:
        return Row(host, "differs", f"is a {instance.shape}, the inventory says {profile.shape}", living)
    if instance.state in COMING:
        return Row(host, "wait", instance.state, living)
    if instance.state != "RUNNING":
        return Row(host, "stopped", instance.state, living)
    made = "" if is_ours(instance, wanted) else ", not made by tritonhost provision"
    return Row(host, "running", f"{instance.shape} in {instance.availability_domain}{made}", living)


# What a person does about a host that is left as it is
THEN = {
    "stopped": "start or terminate it: oci compute instance action --action START --instance-id {ocid}",
    "twice": "terminate one of them: oci compute instance terminate --instance-id OCID",
    "renamed": "give it its name back: oci compute instance update --display-name {host} --instance-id {ocid}",
    "differs": "correct the inventory, or replace the host: docs/how-to/provision.md",
    "unnamed": "name it in the inventory, or end it: tritonhost provision --terminate",
}


def described(profile: InstanceProfile) -> str:
    """What a launch makes, in one line."""
    kind = "preemptible" if profile.preemptible else "on demand"
    if profile.capacity_reservation:
        kind = f"of {profile.capacity_reservation}"
    cluster = f", in {profile.compute_cluster}" if profile.compute_cluster else ""
    disk = f", boot volume {profile.boot_volume_gb} GB" if profile.boot_volume_gb else ""
    return f"{profile.shape} {kind}{cluster}{disk}: {', else '.join(profile.availability_domains)}"


def retry_token(
    wanted: Provision, host: str, compartment: str, availability_domain: str, gone: Collection[str]
) -> str:
    """
    What makes a launch that is sent twice one instance, also where two runs send it or the first was killed.

    + gone: OCIDs of instances of that name that are gone, and a word for each token that OCI no longer takes

    OCI keeps a token for 24 hours. What is gone is part of it, so that a host can be made again at once.
    """
    parts = ("tritonhost provision", wanted.fleet, compartment, host, availability_domain, *sorted(gone))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:TOKEN_LENGTH]


def launch_details(
    wanted: Provision,
    host: str,
    compartment: str,
    availability_domain: str,
    ssh_public_key: str,
    user_data: str = "",
) -> dict[str, Any]:
    """
    The body of the request, LaunchInstanceDetails.

    + ssh_public_key: one line of authorized_keys
    + user_data: base64, for cloud-init

    Source: https://docs.oracle.com/en-us/iaas/api/#/en/iaas/latest/datatypes/LaunchInstanceDetails
    """
    _, profile = wanted.of(host)
    source: dict[str, Any] = {"sourceType": "image", "imageId": profile.image}
    if profile.boot_volume_gb:
        source["bootVolumeSizeInGBs"] = profile.boot_volume_gb
    return {
        "compartmentId": compartment,
        "availabilityDomain": availability_domain,
        "displayName": host,
        "shape": profile.shape,
        "sourceDetails": source,
        # no hostnameLabel: a subnet without DNS refuses it, and OCI takes the display name
        "createVnicDetails": {"subnetId": profile.subnet, "assignPublicIp": profile.public_address},
        "metadata": {
            "ssh_authorized_keys": ssh_public_key,
            **({"user_data": user_data} if user_data else {}),
        },
        "freeformTags": tags_of(wanted, host),
        **({"definedTags": profile.defined_tags} if profile.defined_tags else {}),
        # the metadata service answers only requests with its header, as of version 2
        "instanceOptions": {"areLegacyImdsEndpointsDisabled": True},
        **_capacity(profile),
    }


def _capacity(profile: InstanceProfile) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    if profile.capacity_reservation:
        found["capacityReservationId"] = profile.capacity_reservation
    if profile.compute_cluster:
        found["computeClusterId"] = profile.compute_cluster
    if profile.preemptible:
        found["preemptibleInstanceConfig"] = {"preemptionAction": {"type": "TERMINATE"}}
    return found


def host_keys(console: str) -> list[str]:
    """
    The host's public keys, `TYPE BASE64`, that its console shows; the last time if it shows them several times.

    Other lines of the console may cut one in two: a key is taken if its own bytes say its type, and its fingerprint is shown too.
    """
    printed = _KEYS.findall(console)
    return list(
        dict.fromkeys(filter(lambda key: _whole(key, console), _KEY.findall(printed[-1]) if printed else []))
    )


def _whole(key: str, console: str) -> bool:
    kind, _, text = key.partition(" ")
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return False
    fingerprint = base64.b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    return data[4 : 4 + len(kind)].decode("latin-1") == kind and fingerprint in console
