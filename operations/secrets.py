"""Secrets come from the operator's environment when they are needed, and are never kept."""

from __future__ import annotations

import os
import re


class SecretMissing(ValueError):
    """A secret that is needed and not there, or not usable; its text is never in the message."""


def hub_token() -> str:
    """
    The Hugging Face token, from HF_TOKEN or the file HF_TOKEN_PATH names.

    Raises SecretMissing where there is none or it cannot be one.
    """
    token = os.environ.get("HF_TOKEN", "")
    if not token and (path := os.environ.get("HF_TOKEN_PATH")):
        try:
            with open(path, encoding="utf-8") as file:
                token = file.read()
        except OSError as error:
            raise SecretMissing(
                f"HF_TOKEN_PATH: {error.strerror}; expected a readable file with the token"
            ) from None
    token = token.strip().strip("\"'")
    if not token:
        raise SecretMissing(
            "HF_TOKEN: not set, expected a Hugging Face token because the model is gated; export HF_TOKEN"
        )
    if not re.fullmatch(r"[A-Za-z0-9_.-]{8,}", token):
        raise SecretMissing(
            "HF_TOKEN: found characters no token has (not shown); expected hf_ and letters and digits"
        )
    return token
