"""A model's own chat template, rendered in a sandbox.

The template comes with the weights, which other people made: it may format messages, and reach nothing else. The environment is
that of Hugging Face's apply_chat_template: https://huggingface.co/docs/transformers/chat_templating_writing.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from .errors import Refused

LARGEST = 1 << 20  # characters of a template


class Generation(Extension):
    """The tag `generation`, which marks what a model wrote for its training: here its content is written and no more."""

    tags = {"generation"}  # noqa: RUF012 (Jinja's own interface)

    def parse(self, parser: Parser) -> nodes.Node:
        """The nodes between the tag and its end."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    # not Jinja's own, which escapes characters for HTML
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def compiled(text: str) -> Template:
    """A template that is ready to render. Raises TemplateError."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation], autoescape=False
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _raise, "strftime_now": _now}
    return environment.from_string(text)


class ChatTemplate:
    """What makes one text of a conversation."""

    def __init__(self, text: str, tokens: dict[str, str]) -> None:
        """+ tokens: the special tokens by the names that templates use, such as bos_token"""
        self.tokens = tokens
        try:
            self.template = compiled(text)
        except TemplateError as error:
            raise ValueError(f"the model's chat template cannot be read: {error}") from None

    def render(self, messages: list[dict[str, Any]]) -> str:
        """The text that the model continues. Raises Refused for messages that the template does not take."""
        try:
            return self.template.render(
                messages=messages, add_generation_prompt=True, tools=None, documents=None, **self.tokens
            )
        except Refused:
            raise
        except Exception as error:  # a template is a program: whatever it does wrong, the client is told
            said = " ".join(str(error).split())[:300] or type(error).__name__
            raise Refused(
                400, f"the model's chat template refuses these messages: {said}", "messages", "chat_template"
            ) from None


def find(weights: Path) -> ChatTemplate | None:
    """
    The template of a model's directory; None: the model has none, it only completes a text.

    + weights: with chat_template.jinja, which wins, or tokenizer_config.json, as transformers reads them
    """
    settings = read_json(weights / "tokenizer_config.json")
    found: Any = settings.get("chat_template")
    if isinstance(found, list):
        named = {each.get("name"): each.get("template") for each in found if isinstance(each, dict)}
        found = named.get("default")
    file = weights / "chat_template.jinja"
    if file.is_file():
        found = file.read_text("utf-8")
    if not isinstance(found, str) or not found.strip():
        return None
    if len(found) > LARGEST:
        raise ValueError(f"the model's chat template has {len(found)} characters, expected at most {LARGEST}")
    return ChatTemplate(found, special_tokens(settings))


def special_tokens(settings: dict[str, Any]) -> dict[str, str]:
    """bos_token and its like, of tokenizer_config.json: each is a text, or a table with one."""
    found = {}
    for name in ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"):
        value = settings.get(name)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            found[name] = value
    return found


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's table; empty where there is none."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name}: {error}") from None
    return found if isinstance(found, dict) else {}
