"""What the table [provision] of inventories/oci.toml may say: which hosts are instances that `tritonhost provision` makes, and of what.

Decides only: operations/intake/oci_launch.py asks OCI.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from operations.plan.catalog.known_values import Whole
from operations.plan.catalog.shapes import SHAPES, expected
from operations.plan.errors import Origin, PlanError, typed
from operations.plan.inventory.hosts import static_hosts
from operations.plan.inventory.oci import CompartmentOcid, Instance, OciInventory, filter_against
from operations.plan.wording import Form, from_validation

# the free-form tags that mark an instance of a fleet
FLEET_TAG, PROFILE_TAG, HOST_TAG = "tritonhost-fleet", "tritonhost-instances", "tritonhost-host"
OWN_TAGS = frozenset({FLEET_TAG, PROFILE_TAG, HOST_TAG})
# OCI's limits: https://docs.oracle.com/en-us/iaas/Content/Tagging/Concepts/understandingfreeformtags.htm; it also refuses keys with dots
MOST_TAGS = 10
_TAG = re.compile(r"[^. ]{1,100}")
RUNNING_MINUTES = 60  # bare metal of GPU shapes takes a quarter of an hour; a late one twice that
_OCID = r"\.[a-z0-9-]+\.[a-z0-9-]*\.[a-z0-9.]+$"  # https://docs.oracle.com/en-us/iaas/Content/General/Concepts/identifiers.htm

Fleet = Annotated[
    str,
    Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"),
    Form("a name of lower-case letters, digits and -, such as live"),
]
# what a display name, a host name of the subnet and an entry of known_hosts may all be
HostName = Annotated[
    str,
    Field(pattern=r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"),
    Form("a host name of lower-case letters, digits and -, such as gpu-1"),
]
ImageOcid = Annotated[
    str,
    Field(pattern=r"^ocid1\.image" + _OCID),
    Form("the OCID of an image, such as ocid1.image.oc1.iad.aaaa"),
]
SubnetOcid = Annotated[
    str,
    Field(pattern=r"^ocid1\.subnet" + _OCID),
    Form("the OCID of a subnet, such as ocid1.subnet.oc1.iad.aaaa"),
]
ReservationOcid = Annotated[
    str, Field(pattern=r"^ocid1\.capacityreservation" + _OCID), Form("the OCID of a capacity reservation")
]
ClusterOcid = Annotated[
    str, Field(pattern=r"^ocid1\.computecluster" + _OCID), Form("the OCID of a compute cluster")
]
AvailabilityDomain = Annotated[
    str,
    Field(pattern=r"^([A-Za-z0-9]+:)?[A-Za-z0-9-]+-AD-[1-9]$"),
    Form("an availability domain by its name, such as Uocm:IAD-AD-1"),
]


class InstanceProfile(BaseModel):
    """A table [provision.instances.NAME]: what each of its hosts is made of."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    hosts: Annotated[list[HostName], Field(min_length=1)]
    shape: str
    image: ImageOcid
    subnet: SubnetOcid
    # tried in this order while one has no capacity
    availability_domains: Annotated[list[AvailabilityDomain], Field(min_length=1)]
    ssh_public_key: Annotated[str, Field(min_length=1)]  # a file of this machine
    compartment: CompartmentOcid | None = None  # None: the one of [oci]
    # Where the capacity comes from; none of them: on demand
    preemptible: bool = False
    capacity_reservation: ReservationOcid | None = None
    compute_cluster: ClusterOcid | None = None
    boot_volume_gb: int | None = None  # None: the image's
    public_address: bool = False
    user_data: Annotated[str, Field(min_length=1)] | None = None  # a file of this machine, for cloud-init
    freeform_tags: dict[str, str] = {}
    defined_tags: dict[str, dict[str, str]] = {}  # namespace -> key -> value
    wait_minutes: int = RUNNING_MINUTES

    @field_validator("shape")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in SHAPES:
            raise ValueError(expected(value))
        return value

    @field_validator("boot_volume_gb")
    @classmethod
    def _allowed_size(cls, value: int | None) -> int | None:
        # https://docs.oracle.com/en-us/iaas/Content/Block/Concepts/bootvolumes.htm
        if value is not None and (complaint := Whole(50, 32768, "GB").complaint(value)):
            raise ValueError(complaint)
        return value

    @field_validator("wait_minutes")
    @classmethod
    def _bounded(cls, value: int) -> int:
        if complaint := Whole(1, 240, "minutes").complaint(value):
            raise ValueError(complaint)
        return value

    @field_validator("freeform_tags")
    @classmethod
    def _of_its_own(cls, value: dict[str, str]) -> dict[str, str]:
        if own := OWN_TAGS & {*value}:
            raise ValueError(f"tags without {min(own)}, which `tritonhost provision` sets")
        if len(value) > MOST_TAGS - len(OWN_TAGS) or any(
            not _TAG.fullmatch(key) or len(text) > 256 for key, text in value.items()
        ):
            raise ValueError(
                f"at most {MOST_TAGS - len(OWN_TAGS)} tags, each key of at most 100 characters without dots and spaces, each value of at most 256"
            )
        return value

    @model_validator(mode="after")
    def _goes_together(self) -> InstanceProfile:
        # https://docs.oracle.com/en-us/iaas/Content/Compute/Concepts/preemptible.htm
        if self.preemptible and self.shape.startswith("BM."):
            raise ValueError("preemptible = false, because OCI has no preemptible bare metal")
        if self.preemptible and self.capacity_reservation:
            raise ValueError("one of preemptible and capacity_reservation")
        return self


class Provision(BaseModel):
    """The table [provision]."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    fleet: Fleet
    instances: dict[str, InstanceProfile] = {}

    def of(self, host: str) -> tuple[str, InstanceProfile]:
        """The profile of a host, and its name."""
        return next((name, each) for name, each in self.instances.items() if host in each.hosts)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every host, in the order of the file."""
        return tuple(host for each in self.instances.values() for host in each.hosts)


def provision_from(tables: Mapping[str, Any], inventory: OciInventory, where: str) -> Provision:
    """
    The table [provision], checked against the rest of its file.

    + tables: the file's
    + inventory: its table [oci], which has to find each instance
    + where: the file, for the error

    Raises PlanError for a wrong key or value, a host that stands twice, and an instance that [oci] would not find: it would be paid
    for and be no host.
    """
    table = tables.get("provision")
    if not isinstance(table, dict):
        found = "no table" if table is None else typed(table)
        then = "docs/how-to/provision.md has an example"
        raise PlanError("[provision]", found, "a table", then, where=where, reference="no-provision")
    try:
        wanted = Provision.model_validate(table)
    except ValidationError as error:
        raise from_validation(error, Provision, Origin(where, "[provision]")) from None
    static = {name for name, _ in static_hosts(tables, where)}
    for name, profile in wanted.instances.items():
        if inventory.address == "public" and not profile.public_address:
            raise PlanError(
                f"[provision.instances.{name}] public_address", "false", 'true, because [oci] has address = "public"',
                where=where, reference="no-address",
            )  # fmt: skip
    times = Counter(wanted.hosts)
    for host in wanted.hosts:
        at = f"[provision.instances.{wanted.of(host)[0]}] hosts"
        if times[host] > 1 or host in static:
            found = f"{host} twice" if times[host] > 1 else f"{host}, which [hosts.{host}] names too"
            raise PlanError(at, found, "each host once", where=where, reference="duplicate-host")
        compartment = compartment_of(wanted.of(host)[1], inventory, at, where)
        if not inventory.include_subtree and compartment not in inventory.compartments:
            raise PlanError(
                at.replace(" hosts", " compartment"), compartment, "one of [oci] compartments",
                "or no instance of it is found", where=where, reference="not-found-by-oci",
            )  # fmt: skip
        if problem := filter_against(would_be(wanted, host), inventory):
            raise PlanError(
                at, f"{host}, which [oci] leaves out by {problem}", "instances that [oci] finds",
                "correct the tags or the shape, or that filter", where=where, reference="not-found-by-oci",
            )  # fmt: skip
    return wanted


def compartment_of(profile: InstanceProfile, inventory: OciInventory, at: str, where: str) -> str:
    """The compartment that an instance is made in. Raises PlanError where [oci] has several and the profile names none."""
    if profile.compartment is None and len(inventory.compartments) > 1:
        raise PlanError(
            at.replace(" hosts", " compartment"), "nothing", "one, because [oci] has several",
            where=where, reference="no-compartment",
        )  # fmt: skip
    return profile.compartment or inventory.compartments[0]


def tags_of(wanted: Provision, host: str) -> dict[str, str]:
    """The free-form tags of a host's instance."""
    name, profile = wanted.of(host)
    return {**profile.freeform_tags, FLEET_TAG: wanted.fleet, PROFILE_TAG: name, HOST_TAG: host}


def would_be(wanted: Provision, host: str) -> Instance:
    """A host's instance as OCI will list it."""
    _, profile = wanted.of(host)
    first = profile.availability_domains[0]
    return Instance("", host, profile.shape, "RUNNING", first, tags_of(wanted, host), profile.defined_tags)


def known_names(tables: Mapping[str, Any], wanted: Provision) -> frozenset[str]:
    """Every name that the file gives a host."""
    return frozenset({*wanted.hosts, *(name for name, _ in static_hosts(tables, ""))})
