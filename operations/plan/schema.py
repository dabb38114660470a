"""
JSON Schemas of what a site writes in TOML, for editors: a model profile, and the tables of inventories/oci.toml. And of what
`tritonhost status --json` prints, a notification says and `tritonhost bench` writes, for programs.

An editor completes keys and marks mistakes with them. The plan itself checks more: bounds that need two keys, versions,
and what a release supports.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter

from operations.plan.inventory.oci import OciInventory
from operations.plan.inventory.settings import CONNECTOR_KEYS, Settings
from operations.plan.profile.profiles import EngineProfile, LlmApiProfile, PlanProfile
from operations.plan.serving.bench_result import BenchDocument
from operations.plan.serving.notification import Message
from operations.plan.status import StatusDocument

Schema = dict[str, Any]

# the draft that editors of TOML support most widely: later ones call the definitions $defs
_DRAFT = "http://json-schema.org/draft-07/schema#"
_DEFINITIONS = "#/definitions/{model}"
# what an inventory may not hold (operations/plan/inventory/settings.py refuses it)
_SECRET_KEYS = frozenset({"ssh_password", "ssh_key_password"})
_CONNECTOR_TYPES: dict[str, Schema] = {
    "ssh_port": {"type": "integer", "minimum": 1, "maximum": 65535},
    "ssh_strict_host_key_checking": {"const": "yes"},
}


def _profile() -> Schema:
    kinds: TypeAdapter[Any] = TypeAdapter(
        Annotated[EngineProfile | LlmApiProfile | PlanProfile, Field(discriminator="kind")]
    )
    return _finished(kinds.json_schema(ref_template=_DEFINITIONS), "A model profile of tritonhost")


def _inventory() -> Schema:
    host = Settings.model_json_schema(ref_template=_DEFINITIONS)
    oci = OciInventory.model_json_schema(ref_template=_DEFINITIONS)
    definitions = {**host.pop("$defs", {}), **oci.pop("$defs", {})}
    # what a host's own table leaves out comes from inventories/group_data
    host.pop("required")
    host["description"] = (
        "One host: its address, and any settings that are not those of inventories/group_data."
    )
    host["properties"] |= {
        "address": {
            "type": "string",
            "description": "A host name or an IPv4 address; default: the host's name.",
        },
        **{key: _CONNECTOR_TYPES.get(key, {}) for key in sorted(CONNECTOR_KEYS - _SECRET_KEYS)},
    }
    # pyinfra's global arguments, such as _sudo
    host["patternProperties"] = {"^_": {}}
    tables = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "hosts": {
                "type": "object",
                "description": "Hosts that are named one by one: [hosts.NAME].",
                "additionalProperties": {"$ref": _DEFINITIONS.format(model="Host")},
            },
            "oci": {"$ref": _DEFINITIONS.format(model="OciInventory")},
        },
        "$defs": {**definitions, "Host": host, "OciInventory": oci},
    }
    return _finished(tables, "The tables of inventories/oci.toml of tritonhost")


def _status() -> Schema:
    return _document(StatusDocument, "What tritonhost status --json prints")


def _notification() -> Schema:
    return _document(Message, "A message about a run of tritonhost")


def _bench() -> Schema:
    return _document(BenchDocument, "What tritonhost bench writes")


def _document(model: type[BaseModel], title: str) -> Schema:
    """Of what we write ourselves: every key is there."""
    schema = model.model_json_schema(ref_template=_DEFINITIONS, mode="serialization")
    definitions = schema.pop("$defs")
    return {**schema, "$schema": _DRAFT, "title": title, "definitions": definitions}


def _finished(schema: Schema, title: str) -> Schema:
    """With its draft, its title, and its definitions where that draft has them."""
    schema.pop("discriminator", None)  # of OpenAPI; each kind names itself
    definitions = _for_toml(schema.pop("$defs", {}))
    return {**_for_toml(schema), "$schema": _DRAFT, "title": title, "definitions": definitions}


def _for_toml(node: Any) -> Any:
    """Without null, which TOML does not have, and without the titles that pydantic makes of names."""
    if isinstance(node, list):
        return [_for_toml(item) for item in node]
    if not isinstance(node, dict):
        return node
    # a property may be called title: its value is a table
    kept = {
        name: _for_toml(value)
        for name, value in node.items()
        if not (name == "title" and isinstance(value, str)) and not (name == "default" and value is None)
    }
    if "anyOf" in kept:
        choices = [choice for choice in kept.pop("anyOf") if choice != {"type": "null"}]
        kept = {**kept, **choices[0]} if len(choices) == 1 else {**kept, "anyOf": choices}
    return kept


OF_TOML: dict[str, Callable[[], Schema]] = {"profile": _profile, "inventory": _inventory}
SCHEMAS: dict[str, Callable[[], Schema]] = {
    **OF_TOML,
    "status": _status,
    "notification": _notification,
    "bench": _bench,
}


def schema_text(name: str) -> str:
    """The text of files/schema/<name>.json. + name: one of SCHEMAS"""
    return json.dumps(SCHEMAS[name](), indent=2, sort_keys=True) + "\n"
