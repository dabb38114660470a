"""A question in the markup of a model's own chat template, as a golden request needs it."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

QUESTION, CONTINUED = "What is machine learning?", "Machine learning is"
_SECONDS, _LONGEST = 2, 8000  # of the rendering; characters of a prompt
# Some templates write today's date into the prompt: a golden request must be the same each day
_DATE = "26 Jul 2024"


def golden_prompt(template: str, tokenizer: Mapping[str, Any]) -> tuple[str, str]:
    """
    The prompt, and one line that says how it was made.

    + template: Jinja2, from chat_template.jinja or tokenizer_config.json; empty: the model has none
    + tokenizer: tokenizer_config.json, for its special tokens

    A template that fails or takes too long gives a plain prompt: it is a stranger's program, and runs in a sandbox.
    """
    if not template:
        return CONTINUED, "the model has no chat template: a text to continue"
    special = {
        name: _text(tokenizer.get(name)) for name in ("bos_token", "eos_token", "pad_token", "unk_token")
    }
    said: list[str] = []
    worker = threading.Thread(target=_render, args=(template, special, said), daemon=True)
    worker.start()
    worker.join(_SECONDS)
    if worker.is_alive() or not said or not 0 < len(said[0]) <= _LONGEST or not _plain(said[0]):
        return CONTINUED, "the chat template could not be applied: write its markup around the prompt"
    # the tokenizer puts the first token in front itself
    return said[0].removeprefix(special["bos_token"]), "a question in the model's own chat template"


def _render(template: str, special: Mapping[str, str], said: list[str]) -> None:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **rest: json.dumps(value, ensure_ascii=False)
    environment.globals |= {"raise_exception": _raised, "strftime_now": lambda form: _DATE}
    try:
        messages = [{"role": "user", "content": QUESTION}]
        said.append(
            environment.from_string(template).render(
                messages=messages, add_generation_prompt=True, tools=None, documents=None, **special
            )
        )
    except (
        TemplateError,
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
        RecursionError,
        AttributeError,
    ):
        pass  # the caller says that it failed


def _raised(message: object) -> NoReturn:
    raise TemplateError(str(message))


def _text(token: object) -> str:
    """A special token, which is a text, or a table with its text."""
    content = token.get("content") if isinstance(token, Mapping) else token
    return content if isinstance(content, str) else ""


def _plain(text: str) -> bool:
    return all(letter in "\n\t" or letter.isprintable() for letter in text)


def template_of(file: str, tokenizer: Mapping[str, Any]) -> str:
    """The chat template: a file of its own, or the key of tokenizer_config.json, which may be a list of named ones."""
    if file:
        return file
    found = tokenizer.get("chat_template")
    if isinstance(found, list):
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, Mapping)}
        found = named.get("default")
    return found if isinstance(found, str) else ""
