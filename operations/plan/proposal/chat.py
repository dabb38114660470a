"""A question in the markup of a model's own chat template, as a golden request needs it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

QUESTION, CONTINUED = "What is machine learning?", "Machine learning is"
_SECONDS, _LONGEST = 10, 8000  # of the rendering; characters of a prompt
_RENDER = Path(__file__).with_name("render.py")


def golden_prompt(template: str, tokenizer: Mapping[str, Any]) -> tuple[str, str]:
    """
    The prompt, and one line that says how it was made.

    + template: Jinja2, from chat_template.jinja or tokenizer_config.json; empty: the model has none
    + tokenizer: tokenizer_config.json, for its special tokens

    A template that fails or takes too long gives a plain prompt: it is a stranger's program, and runs in a process of its own.
    """
    if not template:
        return CONTINUED, "the model has no chat template: a text to continue"
    special = {
        name: _text(tokenizer.get(name)) for name in ("bos_token", "eos_token", "pad_token", "unk_token")
    }
    text = _rendered(template, special)
    if not 0 < len(text) <= _LONGEST or not _plain(text):
        return CONTINUED, "the chat template could not be applied: write its markup around the prompt"
    # the tokenizer puts the first token in front itself
    return text.removeprefix(special["bos_token"]), "a question in the model's own chat template"


def _rendered(template: str, special: Mapping[str, str]) -> str:
    """The template with one question; empty where it cannot be rendered."""
    values = {"messages": [{"role": "user", "content": QUESTION}], "add_generation_prompt": True}
    request = json.dumps(
        {"template": template, "values": {**values, "tools": None, "documents": None, **special}}
    )
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(_RENDER)],
            input=request.encode("utf-8", "replace"),
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
        return str(json.loads(done.stdout)["text"]) if done.returncode == 0 else ""
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired):
        return ""


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
        named = [
            one.get("template") for one in found if isinstance(one, Mapping) and one.get("name") == "default"
        ]
        found = named[0] if named else None
    return found if isinstance(found, str) else ""
