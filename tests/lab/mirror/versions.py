"""The tags of tensorrtllm_backend that the lab carries, and what of them depends on the version."""

from __future__ import annotations

TAGS: tuple[str, ...] = (
    "v0.9.0",
    "v0.10.0",
    "v0.11.0",
    "v0.12.0",
    "v0.13.0",
    "v0.16.0",
    "v0.17.0",
    "v0.19.0",
)

IMAGE_TAGS: tuple[str, ...] = ("v1.0.0", "v1.2.1")
"""TensorRT-LLM's versions whose templates come with the images only: the repository has none of them any more."""


def number(tag: str) -> tuple[int, ...]:
    """`v0.13.0` or `0.13.0` as (0, 13, 0), so that tags compare by age and not by spelling."""
    return tuple(int(part) for part in tag.removeprefix("v").split("."))


VERSION_LINE = b"VERSION = (0, 0, 0)\n"
"""What a source file that behaves differently from tag to tag says in its own tree."""


def at_version(text: bytes, tag: str) -> bytes:
    """A source file with its VERSION line, where it has one, set to that of `tag`."""
    return text.replace(VERSION_LINE, f"VERSION = {number(tag)}\n".encode())


def within(tag: str, since: str, until: str) -> bool:
    """Whether `tag` lies in since..until, both included; an empty `until` means no end."""
    return number(since) <= number(tag) and (not until or number(tag) <= number(until))
