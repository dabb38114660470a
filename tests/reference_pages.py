"""docs/reference/settings.md, profile.md and commands.md, made from the code.

    python -m tests.reference_pages            # writes the three pages; make reference does it too

Keys, types and defaults come from the pydantic models, commands from the argparse parsers, make targets from the Makefile.
What a key is for stands in tests/reference_texts.py.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints
from unittest.mock import patch

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from operations.plan.catalog import values
from operations.plan.catalog.host_checks import WAIVABLE
from operations.plan.catalog.known_values import Whole
from operations.plan.inventory import field_types as of_settings
from operations.plan.inventory.settings import CONNECTOR_KEYS, Settings
from operations.plan.model_table import model_rows
from operations.plan.profile import field_types as of_profiles
from operations.plan.profile.profiles import KINDS
from operations.plan.profile.tables import Weights
from tests.reference_texts import OPERATIONS, PROFILE, SETTINGS, SETTINGS_GROUPS

PROJECT = Path(__file__).resolve().parents[1]
REFERENCE = PROJECT / "docs" / "reference"
REQUIRED = "required"
COMMON = "Every kind"

# Types that have a name in inventory/field_types.py, profile/field_types.py or catalog/values.py of operations/plan, and what they are in words
NAMED = {
    "Value": "text, number, true or false",
    "FlagValue": "text, number, true or false, or a list of texts",
    "Port": "port, 1024 to 65535",
    "AbsolutePath": "absolute path",
    "Url": "URL without user and password",
    "RpmVersion": "`[epoch:]version-release`",
    "Fingerprint": "fingerprint",
    "PackageName": "package name",
    "SystemdName": "name of a unit",
    "Network": "IPv4 network",
}

_SETTINGS_HEAD = """# Settings

Every key that an inventory may set for a host. This page is generated from the code (`make reference`).

Set a key in `inventories/group_data/all.py` for all hosts, in `inventories/group_data/GROUP.py` for a group, or in
`inventories/oci.toml` for one host. `--data KEY=VALUE` sets it for one run. tritonhost checks keys and values before it connects to
a host, and refuses an unknown key. Most defaults are those of the code; `all.py` sets the keys that have none.

A key with a dot is a key of a table: `gateway.port` is `port` in the table `gateway`. `waivers[]` is a list of tables. Such a key is
required in a table that is there.

The tables `[oci]` and `[hosts.NAME]` of `oci.toml` have keys of their own: [Hosts from OCI](../how-to/oci-inventory.md).
"""

_SSH = """These keys of pyinfra's SSH connector are accepted too, and its global arguments (`_sudo` and so on). The value of
`ssh_strict_host_key_checking` must be `yes`. Passwords are refused.
"""

_PROFILE_HEAD = """# Profile keys

Every key of a model profile, `inventories/models/NAME.toml`. This page is generated from the code (`make reference`).

A profile has one of three kinds; [how to add a model](../how-to/models.md) helps to choose. "Required" means that there is no default.
"None" means that the default of the program that reads the value holds.
"""

_PARAMETERS = """
`engine_dir` and `tokenizer_dir` are set by the plan. These placeholders of the templates have a default: `triton_backend`,
`triton_max_batch_size` (1), `batching_strategy` (`inflight_fused_batching`), `decoupled_mode` (false),
`max_queue_delay_microseconds` (0), `max_queue_size` (0), the instance counts (1), and the data types of logits and inputs.
"""

_LLM = """
The model takes the prompt as it is and applies no chat template.
"""

_COMMANDS_HEAD = """# Commands

Every command of this repository. This page is generated from the code (`make reference`). `pyinfra`, `python` and `pytest` are those
of `.venv/bin`.

## Deploy

    pyinfra INVENTORY deploy.py --dry -y        # print what would change
    pyinfra INVENTORY deploy.py -y              # change it
    pytest tests/verify --inventory INVENTORY   # compare each host with its plan
"""


# --- settings and profiles


@dataclass(frozen=True)
class Row:
    """One key of a page."""

    key: str
    default: str
    type: str
    text: str


def rows_of(model: type[BaseModel], texts: dict[str, str], prefix: str = "") -> Iterator[Row]:
    """A row for each key of a model and of the tables in it, dotted; … stands for a name that is the user's."""
    hints = get_type_hints(model, include_extras=True)
    for name, field in model.model_fields.items():
        dotted = f"{prefix}{name}"
        nested = _model_in(field.annotation)
        leaf = nested is None or bool(prefix and nested is Weights)
        several = get_origin(field.annotation) is dict
        if leaf or several:
            yield Row(dotted, default_of(field), in_words(hints[name]), _text(model, name, texts))
        if nested and not leaf:
            yield from rows_of(nested, texts, f"{dotted}{_step(field.annotation)}")


def _step(annotation: Any) -> str:
    origin = get_origin(annotation)
    return ".…." if origin is dict else "[]." if origin is list else "."


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model that an annotation is, or holds."""
    parts = (annotation, *get_args(annotation))
    return next((part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)), None)


def _text(model: type[BaseModel], name: str, texts: dict[str, str]) -> str:
    """The sentence about a field: of the model itself, or of the one that it takes the field from."""
    for base in model.__mro__:
        if text := texts.get(f"{base.__name__}.{name}"):
            return text
    raise KeyError(f"tests/reference_texts.py: no text for {model.__name__}.{name}")


def default_of(field: FieldInfo) -> str:
    """A field's default as the page writes it."""
    if field.is_required():
        return REQUIRED
    value = field.get_default(call_default_factory=True)
    return "none" if value is None else f"`{json.dumps(value)}`"


def in_words(annotation: Any) -> str:
    """A type in words."""
    for name, words in NAMED.items():
        if any(annotation == getattr(module, name, None) for module in (of_settings, of_profiles, values)):
            return words
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _bounded(in_words(parts[0]), parts[1:])
    if origin is Literal:
        return _either([f"`{part}`" for part in parts])
    if origin in (Union, UnionType):
        return _either([in_words(part) for part in parts if part is not NoneType])
    if origin is list or origin is tuple:
        return f"list of {_plural(in_words(parts[0]))}"
    if origin is dict:
        words = in_words(parts[1])
        return (
            "table"
            if words in ("table", "any")
            else "tables"
            if words.startswith("table")
            else f"table of {words}"
        )
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "table"
    return {bool: "true or false", int: "whole number", float: "number", str: "text"}.get(
        annotation, getattr(annotation, "__name__", "any").lower()
    )


def _either(parts: list[str]) -> str:
    *first, last = dict.fromkeys(parts)
    return f"{', '.join(first)} or {last}" if first else last


def _plural(words: str) -> str:
    noun = re.match(r"(whole number|IPv4 network|text|table)\b(?! of)", words)
    return words.replace(noun[0], f"{noun[0]}s", 1) if noun else words


def _bounded(words: str, metadata: tuple[Any, ...]) -> str:
    """A number with its bounds, wherever they are said: in pydantic's own Field, or by a validator of ours."""
    low: Any = None
    high: Any = None
    unit = ""
    for part in metadata:
        for bound in getattr(part, "metadata", [part]):
            low = getattr(bound, "ge", low)
            high = getattr(bound, "le", high)
        whole = _whole_in(getattr(part, "func", None))
        if whole:
            low, high, unit = whole.low, whole.high, whole.unit
    if words not in ("whole number", "number") or (low is None and high is None):
        return words
    unit = f" of {unit.split(',')[0]}" if unit else ""
    return f"{words}{unit}, {low} to {high}" if high is not None else f"{words}{unit}, {low} or more"


def _whole_in(validator: Callable[..., object] | None) -> Whole | None:
    if not inspect.isfunction(validator):
        return None
    found = inspect.getclosurevars(validator).nonlocals.values()
    return next((value for value in found if isinstance(value, Whole)), None)


def _table(rows: list[Row]) -> str:
    lines = [f"| `{row.key}` | {row.default} | {row.type} | {row.text} |" for row in rows]
    return "\n".join(["| key | default | type | meaning |", "|---|---|---|---|", *lines]) + "\n"


def settings_page() -> str:
    """docs/reference/settings.md."""
    rows = list(rows_of(Settings, SETTINGS))
    sections = []
    for title, keys in SETTINGS_GROUPS.items():
        of_group = [row for key in keys for row in rows if re.split(r"[.\[]", row.key)[0] == key]
        sections.append(f"\n## {title}\n\n{_table(of_group)}")
    sections.append(f"\n`preflight_waived` accepts these names: {_names(WAIVABLE)}\n")
    sections.append(f"\n## SSH\n\n{_SSH}\n{_names(sorted(CONNECTOR_KEYS))}\n")
    return _SETTINGS_HEAD + "".join(sections)


def _names(names: Iterable[str]) -> str:
    text = ", ".join(f"`{name}`" for name in names)
    return textwrap.fill(f"{text}.", 130, break_long_words=False, break_on_hyphens=False)


def profile_page() -> str:
    """docs/reference/profile.md."""
    of_kind = {kind: list(rows_of(model, PROFILE)) for kind, model in KINDS.items()}
    common = [row for row in of_kind["engine"] if all(row in rows for rows in of_kind.values())]
    keys = {row.key for row in common} | {"kind"}
    kind = Row("kind", REQUIRED, _either([f"`{name}`" for name in KINDS]), "The kind of the profile.")
    sections = [f"\n## {COMMON}\n\n{_optional()}\n{_table([kind, *common])}"]
    for name, rows in of_kind.items():
        own = sorted(
            (row for row in rows if row.key not in keys), key=lambda row: row.key.startswith("golden")
        )
        note = {"engine": _PARAMETERS, "llmapi": _LLM}.get(name, "")
        sections.append(f"\n## Kind `{name}`\n\n{_table(own)}{note}")
    return _PROFILE_HEAD + "".join(sections)


def _optional() -> str:
    """Which tables may be left out: those with required keys, and a default for the whole."""
    names = dict.fromkeys(name for model in KINDS.values() for name in _optional_tables(model, ""))
    return f"A key is required in a table that is there. These tables may be left out as a whole:\n{_names(names)}\n"


def _optional_tables(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        nested = _model_in(field.annotation)
        if nested is None or get_origin(field.annotation) in (dict, list):
            continue
        if not field.is_required() and any(inner.is_required() for inner in nested.model_fields.values()):
            yield f"{prefix}{name}"
        yield from _optional_tables(nested, f"{prefix}{name}.")


# --- commands


class _Captured(Exception):
    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def parser_of(main: Callable[[list[str]], object]) -> argparse.ArgumentParser:
    """The parser that a program makes, taken from it before it reads an argument."""

    def capture(parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise _Captured(parser)

    with patch.object(argparse.ArgumentParser, "parse_args", capture):
        try:
            main([])
        except _Captured as found:
            return found.parser
    raise ValueError(f"{main.__module__}: no argparse parser")


def parsers() -> dict[str, tuple[str, argparse.ArgumentParser]]:
    """Heading -> how the program is called, and its parser."""
    from operations import (
        bench,
        currency,
        export,
        exposure,
        golden_answers,
        lock_inventory,
        must_gather,
        preflight,
        provision,
        replay,
        report,
        site_monitoring,
        status,
        teardown,
        watch,
    )
    from operations.bundle import __main__ as bundle
    from operations.plan import __main__ as plan
    from tests.lab import cli

    return {
        "Plan": ("python -m operations.plan", parser_of(plan.main)),
        "Preflight": ("python -m operations.preflight", parser_of(preflight.main)),
        "Status": ("python -m operations.status", status.parser()),
        "Watch": ("python -m operations.watch", watch.parser()),
        "Report": ("python -m operations.report", report.parser()),
        "Golden answers": ("python -m operations.golden_answers", parser_of(golden_answers.main)),
        "Monitoring": ("python -m operations.site_monitoring", site_monitoring.parser()),
        "Must-gather": ("python -m operations.must_gather", must_gather.parser()),
        "Teardown": ("python -m operations.teardown", teardown.parser()),
        "Provision": ("python -m operations.provision", provision.parser()),
        "Export": ("python -m operations.export", export.parser()),
        "Exposure": ("python -m operations.exposure", exposure.parser()),
        "Replay": ("python -m operations.replay", replay.parser()),
        "Bench": ("python -m operations.bench", bench.parser()),
        "Lock": ("python -m operations.lock_inventory", parser_of(lock_inventory.main)),
        "Bundle": ("python -m operations.bundle", parser_of(bundle.main)),
        "Currency": ("python -m operations.currency", parser_of(currency.main)),
        "Lab": ("tests/lab/lab", parser_of(cli.main)),
    }


def _program(call: str, parser: argparse.ArgumentParser) -> str:
    """A program's commands in a table, then the arguments of each that has some; the program itself if it has no commands."""
    choices = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not choices:
        return f"{_sentence(parser.description)}\n\n    {_usage_of(call, parser)}\n{_arguments(parser)}"
    rows, tables = [], []
    for action in choices:
        helps = {choice.dest: choice.help for choice in action._choices_actions}
        for name, command in action.choices.items():
            rows.append(
                f"| `{_usage_of(f'{call} {name}', command)}` | {_escaped(_sentence(helps.get(name)))} |"
            )
            if arguments := _arguments(command):
                tables.append(f"\nArguments of `{name}`:\n{arguments}")
    return "\n".join(["| command | |", "|---|---|", *rows]) + "\n" + "".join(tables)


def _sentence(text: str | None) -> str:
    words = (text or "").strip().rstrip(".")
    return f"{words[:1].upper()}{words[1:]}." if words else ""


def _shown(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]


def _usage_of(call: str, parser: argparse.ArgumentParser) -> str:
    return " ".join([call, *(_usage(action) for action in _shown(parser))])


def _arguments(parser: argparse.ArgumentParser) -> str:
    rows = [
        f"| `{_name(action)}` | {_escaped(_sentence(action.help))} |"
        for action in _shown(parser)
        if action.help
    ]
    return "\n".join(["\n| argument | |", "|---|---|", *rows]) + "\n" if rows else ""


def _names_of_options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Every option of a program and of its commands."""
    for action in _shown(parser):
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _names_of_options(command)
        elif action.option_strings:
            yield action.option_strings[-1]


def _name(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else _value(action)
    return f"{action.option_strings[-1]}{f' {value}' if value else ''}" if action.option_strings else value


def _value(action: argparse.Action) -> str:
    if action.choices:
        return "{" + ",".join(str(choice) for choice in action.choices) + "}"
    return str(action.metavar or action.dest.upper())


def _usage(action: argparse.Action) -> str:
    name = _name(action)
    if action.nargs == argparse.REMAINDER:
        return f"[{name} …]"
    several = " …" if action.nargs == "+" or isinstance(action, argparse._AppendAction) else ""
    needed = action.required if action.option_strings else action.nargs not in ("?", "*")
    return f"{name}{several}" if needed else f"[{name}{several}]"


def _escaped(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def make_targets() -> Iterator[tuple[str, str]]:
    """Each target of the Makefile that has a comment, and the comment."""
    text = (PROJECT / "Makefile").read_text(encoding="utf-8")
    return iter(re.findall(r"^([a-z-]+):.*## (.+)$", text, re.MULTILINE))


def commands_page() -> str:
    """docs/reference/commands.md."""
    targets = [f"| `make {name}` | {_escaped(_sentence(text))} |" for name, text in make_targets()]
    operations = [f"| `pyinfra -y INVENTORY {name}` | {text} |" for name, text in OPERATIONS.items()]
    sections = [
        "\n".join(["\n## Operations by name\n", "| command | |", "|---|---|", *operations]) + "\n",
        "\n".join(["\n## make\n", "| command | |", "|---|---|", *targets]) + "\n",
        *(f"\n## {title}\n\n{_program(*program)}" for title, program in parsers().items()),
    ]
    return _COMMANDS_HEAD + "".join(sections)


def architectures_page() -> str:
    """The model table."""
    rows = [
        f"| `{row['architecture']}` | `{row['model_type']}` | {row['models']} | {row['engine'] or ''} | {row['llmapi'] or ''} |"
        for row in model_rows()
    ]
    return "\n".join(
        [
            "# Architectures",
            "",
            "Which architectures are served, by which kind, from which release on: `python -m operations.plan models`. This page is generated",
            "from the code (`make reference`). An architecture is the first of `architectures` in the model's `config.json`. Without a release,",
            "no release serves it. An architecture that is not here may be served by kind `llmapi` all the same: a run warns of it.",
            "",
            "| architecture | model_type | models | `engine` | `llmapi` |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


PAGES: dict[str, Callable[[], str]] = {
    "architectures.md": architectures_page,
    "settings.md": settings_page,
    "profile.md": profile_page,
    "commands.md": commands_page,
}


def main() -> int:
    REFERENCE.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
