"""What the table [oci] of inventories/oci.toml may say, and how OCI's instances become hosts and groups.

Decides only: operations/intake/oci_instances.py asks OCI.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from operations.plan.catalog.known_values import Whole
from operations.plan.catalog.shapes import SHAPES, expected
from operations.plan.errors import TOKEN, Origin, PlanError, typed
from operations.plan.wording import Form, from_validation

# https://docs.oracle.com/en-us/iaas/Content/General/Concepts/identifiers.htm; a tenancy is its own root compartment
CompartmentOcid = Annotated[
    str,
    Field(pattern=r"^ocid1\.(compartment|tenancy)\.[a-z0-9-]+\.[a-z0-9-]*\.[a-z0-9]+$"),
    Form("the OCID of a compartment or of the tenancy, such as ocid1.compartment.oc1..aaaa"),
]
# one jump host, as ProxyJump takes it; the user may be the OCID of a session of OCI's bastion service
Bastion = Annotated[
    str,
    Field(
        pattern=r"^([A-Za-z0-9_][A-Za-z0-9._-]*@)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[1-9][0-9]{0,4})?$"
    ),
    Form("one jump host as USER@HOST or USER@HOST:PORT, such as opc@bastion.example"),
]
# https, except on this machine: answers hold a token
Endpoint = Annotated[
    str,
    Field(pattern=r"^(https://[A-Za-z0-9{][A-Za-z0-9.{}_-]*(:[0-9]{1,5})?|http://127\.0\.0\.1:[0-9]{1,5})$"),
    Form("a URL with https:// and no path, such as https://{service}.{region}.oraclecloud.com"),
]
Region = Annotated[
    str, Field(pattern=r"^[a-z][a-z0-9-]+$"), Form("a region by its identifier, such as eu-frankfurt-1")
]
# https://docs.oracle.com/en-us/iaas/api/#/en/iaas/20160918/Instance/
LifecycleState = Literal[
    "MOVING",
    "PROVISIONING",
    "RUNNING",
    "STARTING",
    "STOPPING",
    "STOPPED",
    "CREATING_IMAGE",
    "TERMINATING",
    "TERMINATED",
]
_PRIVATE_KEY = re.compile(r"-----BEGIN|PRIVATE KEY-----")
_SECRET_KEYS = ("key_content", "pass_phrase", "passphrase", "password", "security_token")
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9.-]+")
_SHOWN = 5  # instances named in one reason


class OciAccess(BaseModel):
    """How OCI is asked: whose key signs the requests, and where they go."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    auth: Literal["config_file", "instance_principal", "session_token"] = "config_file"
    # None: what OCI_CONFIG_FILE names, or else ~/.oci/config
    config_file: Annotated[str, Field(min_length=1)] | None = None
    profile: Annotated[str, Field(min_length=1)] = "DEFAULT"
    # None: the profile's, or the instance's own
    region: Region | None = None
    # None: the region's. {service} stands for iaas, identity, secrets.vaults and auth, {region} for the region.
    endpoint: Endpoint | None = None
    timeout_s: int = 30  # for one answer

    @field_validator("timeout_s")
    @classmethod
    def _bounded(cls, value: int) -> int:
        if complaint := Whole(1, 300, "seconds").complaint(value):
            raise ValueError(complaint)
        return value

    @field_validator("endpoint")
    @classmethod
    def _known_words(cls, value: str | None) -> str | None:
        left = (value or "").replace("{service}", "").replace("{region}", "")
        if "{" in left or "}" in left:
            raise ValueError("a URL in which only {service} and {region} stand for something")
        return value


class OciInventory(OciAccess):
    """The table [oci]: which instances are hosts, and how they are reached."""

    compartments: Annotated[list[CompartmentOcid], Field(min_length=1)]
    include_subtree: bool = False  # the compartments below them too

    # An instance is a host where all of these hold. * and ? stand for any text and any character.
    display_name: str | None = None
    shape: str | None = None
    lifecycle_state: LifecycleState = "RUNNING"
    freeform_tags: dict[str, str] = {}
    defined_tags: dict[str, dict[str, str]] = {}  # namespace -> key -> value

    address: Literal["private", "public"] = "private"
    bastion: Bastion | None = None

    @field_validator("shape")
    @classmethod
    def _matches_something(cls, value: str | None) -> str | None:
        # a shape that has to be taken as it stands is as easily misspelt as any other
        if value is not None and not any(fnmatchcase(name, value) for name in SHAPES):
            raise ValueError(expected(value))
        return value


@dataclass(frozen=True)
class Instance:
    """One instance as OCI lists it."""

    ocid: str
    name: str
    shape: str
    state: str
    availability_domain: str
    freeform_tags: Mapping[str, str] = field(default_factory=dict)
    defined_tags: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Addresses:
    """The addresses of an instance's primary VNIC."""

    private: str | None
    public: str | None


@dataclass(frozen=True)
class Selection:
    """The instances that are hosts, and each other one with the first filter that left it out."""

    chosen: tuple[Instance, ...]
    left_out: tuple[tuple[str, Instance], ...]

    def reasons(self) -> str:
        """Who was left out by which filter, in one line; empty where nobody was."""
        by_filter: dict[str, list[str]] = {}
        for reason, instance in self.left_out:
            by_filter.setdefault(reason, []).append(instance.name)
        lines = []
        for reason, names in by_filter.items():
            rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            lines.append(f"{reason}: {', '.join(names[:_SHOWN])}{rest}")
        return "; ".join(lines)


def from_table(table: object, where: str) -> OciInventory:
    """
    The table [oci].

    + where: the file it stands in, for the error

    Raises PlanError with the key, what was found and what is allowed; a secret in it is not shown.
    """
    if not isinstance(table, dict):
        raise PlanError("oci", typed(table), "a table [oci]", where=where, reference="not-a-table")
    if "compartment" in table and "compartments" not in table:
        then = 'write compartments = ["ocid1…"]'
        raise PlanError(
            "[oci] compartment",
            "unknown key compartment",
            "compartments",
            then,
            where=where,
            reference="unknown-key",
        )
    try:
        return OciInventory.model_validate(table)
    except ValidationError as error:
        raise from_validation(error, OciInventory, Origin(where, "[oci]")) from None


def access_of(inventory: OciInventory) -> OciAccess:
    """The part of the table that says how to sign: what the vault is asked with."""
    return OciAccess.model_validate({name: getattr(inventory, name) for name in OciAccess.model_fields})


def refuse_secrets(data: object, where: str) -> None:
    """
    Refuse a file's tables that hold a private key, a token or a password: what is in an inventory, pyinfra prints.

    Raises PlanError with the key, without the value.
    """
    waiting: list[tuple[object, tuple[str, ...]]] = [(data, ())]
    while waiting:
        value, path = waiting.pop()
        if isinstance(value, Mapping):
            waiting.extend((inner, (*path, str(name))) for name, inner in value.items())
            for name in value:
                waiting.append((str(name), path))
        elif isinstance(value, list | tuple):
            waiting.extend((inner, (*path, str(n))) for n, inner in enumerate(value))
        elif isinstance(value, str) and (problem := _secret(value, path)):
            raise PlanError(
                ".".join(path),
                problem[0],
                "no secret in an inventory",
                problem[1],
                where=where,
                reference="secret-in-inventory",
            )


def _secret(value: str, path: tuple[str, ...]) -> tuple[str, str] | None:
    """What kind of secret a value is, and where it belongs; None where it is none."""
    if path[:1] == ("oci",) and path[-1] in _SECRET_KEYS:
        return "a secret (not shown)", "name its file in ~/.oci/config"
    if _PRIVATE_KEY.search(value):
        return "a private key (not shown)", "name the key's file: ssh_key, or key_file in ~/.oci/config"
    if TOKEN.search(value):
        return value, "export HF_TOKEN instead"
    return None


def select(instances: Iterable[Instance], wanted: OciInventory, where: str) -> Selection:
    """
    The instances that pass every filter and have a GPU.

    Raises PlanError for none, with who was left out by which filter, and for a GPU shape nobody described: a host of
    unknown GPUs is not taken by accident, and not left out in silence.
    """
    chosen: list[Instance] = []
    left_out: list[tuple[str, Instance]] = []
    for instance in instances:
        if reason := filter_against(instance, wanted):
            left_out.append((reason, instance))
        else:
            chosen.append(instance)
    selection = Selection(tuple(sorted(chosen, key=lambda i: (i.name, i.ocid))), tuple(left_out))
    if not chosen:
        then = selection.reasons()
        found = f"{len(left_out)} instances" if len(left_out) != 1 else "1 instance"
        raise PlanError(
            "[oci]",
            f"no hosts among {found}",
            "at least one instance that passes every filter",
            f"left out by {then}" if then else "look into oci.compartments, oci.region and include_subtree",
            where=where,
            reference="no-instances",
        )
    for instance in selection.chosen:
        if instance.shape not in SHAPES:
            raise PlanError(
                f"[oci] {instance.name}",
                f"shape {instance.shape}",
                "a shape whose GPUs are known",
                f"leave it out with oci.shape, or name the host under [hosts] without shape; known: {', '.join(SHAPES)}",
                where=where,
                reference="unknown-shape",
            )
    return selection


def hosts_of(
    found: Sequence[tuple[Instance, Addresses]], wanted: OciInventory, where: str
) -> list[tuple[str, dict[str, Any]]]:
    """
    Each instance as pyinfra's (name, data): its address, its shape, and the model its tag names.

    Raises PlanError for an instance without an address of the kind that is asked for.
    """
    names = _host_names([instance for instance, _ in found])
    entries = []
    for instance, addresses in found:
        address = addresses.public if wanted.address == "public" else addresses.private
        if not address:
            raise PlanError(
                f"[oci] {instance.name}",
                f"no {wanted.address} IPv4 address",
                "one on the primary VNIC",
                'set oci.address = "private", with oci.bastion if need be'
                if wanted.address == "public"
                else "wait until the instance is attached to its subnet",
                where=where,
                reference="no-address",
            )
        data: dict[str, Any] = {"ssh_hostname": address, "shape": instance.shape}
        if model := instance.freeform_tags.get("model"):
            data["model"] = model
        entries.append((names[instance.ocid], data))
    return entries


def groups_of(
    found: Sequence[tuple[Instance, Addresses]],
) -> dict[str, list[str]]:
    """
    The groups an inventory file defines, by name, with their hosts: one for each shape, availability domain and model.

    `inventories/group_data/<group>.py` holds the settings of a group: bm_gpu4_8, ad_1, model_mixtral_8x7b.
    """
    names = _host_names([instance for instance, _ in found])
    groups: dict[str, list[str]] = {}
    of: tuple[Any, ...] = (_ad_group, lambda i: identifier(i.shape), _model_group)
    for group in of:
        for instance, _ in found:
            if name := group(instance):
                groups.setdefault(name, []).append(names[instance.ocid])
    return groups


def groups_with_static(
    groups: Mapping[str, Sequence[str]], hosts: Iterable[tuple[str, Mapping[str, Any]]]
) -> dict[str, list[str]]:
    """
    The groups of found instances, with the hosts that are named one by one in those of their shape and model too.

    + groups: as of groups_of
    + hosts: name and data of those that the file names
    """
    merged = {name: list(members) for name, members in groups.items()}
    for name, data in hosts:
        shape, model = data.get("shape"), data.get("model")
        for group in (
            identifier(shape) if isinstance(shape, str) else "",
            f"model_{identifier(model)}" if isinstance(model, str) else "",
        ):
            if group:
                merged.setdefault(group, []).append(name)
    # in the order of groups_of, in which a later one wins
    kinds = ("ad_", "", "model_")
    return dict(
        sorted(merged.items(), key=lambda item: max(n for n, k in enumerate(kinds) if item[0].startswith(k)))
    )


def ssh_config(bastion: str, addresses: Sequence[str], base: str) -> str:
    """
    An ssh configuration that reaches the addresses through one jump host.

    + bastion: [user@]host[:port]
    + base: the absolute path of the configuration that holds for every host

    pyinfra checks the jump host's key only as the configuration says: it gives StrictHostKeyChecking of its own to
    the last hop alone, and would ask on the terminal.
    """
    host = bastion.rpartition("@")[2].partition(":")[0]
    return (
        "# Written by inventories/oci.py for oci.bastion; changes are overwritten.\n"
        f"Include {base}\n"
        f"Host {host}\n"
        "    StrictHostKeyChecking yes\n"
        f"Host {' '.join(addresses)}\n"
        f"    ProxyJump {bastion}\n"
    )


def filter_against(instance: Instance, wanted: OciInventory) -> str:
    """The first filter an instance does not pass, with the value it asks for; empty: it passes all."""
    if wanted.display_name is not None and not fnmatchcase(instance.name, wanted.display_name):
        return f"display_name {wanted.display_name}"
    for key, value in wanted.freeform_tags.items():
        if instance.freeform_tags.get(key) != value:
            return f"freeform_tags.{key} {value}"
    for namespace, tags in wanted.defined_tags.items():
        for key, value in tags.items():
            # defined tags may be numbers
            if str(instance.defined_tags.get(namespace, {}).get(key)) != value:
                return f"defined_tags.{namespace}.{key} {value}"
    if wanted.shape is not None and not fnmatchcase(instance.shape, wanted.shape):
        return f"shape {wanted.shape} ({instance.shape})"
    if ".GPU" not in instance.shape:
        return f"no GPU ({instance.shape})"
    if instance.state != wanted.lifecycle_state:
        return f"lifecycle_state {wanted.lifecycle_state} ({instance.state})"
    return ""


def _host_names(instances: Sequence[Instance]) -> dict[str, str]:
    """OCID -> the name that is printed: a display name may hold anything and may stand twice."""
    plain = {instance.ocid: _NOT_IN_A_NAME.sub("-", instance.name) for instance in instances}
    names = {ocid: ".".join(part.strip("-") for part in name.split(".")) for ocid, name in plain.items()}
    names = {ocid: re.sub(r"\.{2,}", ".", name).strip(".")[:200].rstrip(".-") for ocid, name in names.items()}
    # a name of digits would be taken for an address that is none
    names = {o: n if re.search(r"[A-Za-z]", n) or _is_ipv4(n) else f"i-{n}" for o, n in names.items()}
    times = Counter(names.values())
    return {o: f"{n.rstrip('-.')}-{o[-6:]}" if times[n] > 1 or n == "i-" else n for o, n in names.items()}


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _ad_group(instance: Instance) -> str:
    # Uocm:PHX-AD-1: the letters before it differ from tenancy to tenancy
    number = re.search(r"AD-([0-9]+)$", instance.availability_domain)
    return f"ad_{number[1]}" if number else ""


def _model_group(instance: Instance) -> str:
    model = instance.freeform_tags.get("model")
    return f"model_{identifier(model)}" if model else ""


def identifier(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
