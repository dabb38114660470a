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
    source, token = "HF_TOKEN", os.environ.get("HF_TOKEN")
    if token is None and (path := os.environ.get("HF_TOKEN_PATH")):
        source = "HF_TOKEN_PATH"
        try:
            with open(path, encoding="utf-8", newline="") as file:
                token = file.read()
        except OSError as error:
            raise SecretMissing(
                f"HF_TOKEN_PATH: {error.strerror}; expected a readable file with the token"
            ) from None
        except UnicodeDecodeError:
            raise SecretMissing("HF_TOKEN_PATH: found no text, expected a file with the token") from None
    if token is None:
        raise SecretMissing(
            "HF_TOKEN: not set, expected a Hugging Face token because the model is gated; export HF_TOKEN"
        )
    return checked(token.removesuffix("\n"), source)


def checked(token: str, source: str) -> str:
    """
    The token as it is.

    + source: where it comes from, for the error

    Raises SecretMissing for what cannot be one, and says what is wrong with it without its text: the hub's own answer
    would be that it does not know the token.
    """
    problem = ""
    if not token.strip():
        problem = "found nothing, expected a Hugging Face token because the model is gated"
    elif "\r" in token:
        problem = "found a Windows line end behind it; write the file with Unix line ends"
    elif token[0] in "\"'" or token[-1] in "\"'":
        problem = "found quotation marks around it; leave them out"
    elif token != token.strip():
        problem = "found spaces or empty lines around it; leave them out"
    elif not re.fullmatch(r"[A-Za-z0-9_.-]{8,}", token):
        problem = "found characters no token has (not shown); expected hf_ and letters and digits"
    if problem:
        raise SecretMissing(f"{source}: {problem}")
    return token
