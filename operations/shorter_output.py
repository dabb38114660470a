"""What a person reads of a run: without what nobody needs, and of many hosts what differs from the rest, which is counted."""

from __future__ import annotations

import logging
import re

from pyinfra import host, logger

from operations.plan.serving.rollout import MANY

# What pyinfra says of each host for each step that went well, with its colors taken out
_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_WENT_WELL = re.compile(r"\[[^\]]*\]\s+(Connected|Ready: .*|Success|No changes|Changed|Skipped)\s*")
# api/facts.py: the fact's module and name, and its arguments: of the look at a host they are thousands of characters
_FACT = re.compile(r"(could not (?:load|process) fact: )(?:\w+\.)*(\w+) [^\x1b]{200,}")


class _Told:
    """What this process's one run has printed."""

    def __init__(self) -> None:
        self.many = False
        self.texts: dict[str, str] = {}


_told = _Told()


class _ShortFacts(logging.Filter):
    """A fact that could not be read is named without all that it was asked for, which is thousands of characters."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if _FACT.search(text):
            record.msg, record.args = _FACT.sub(r"\1\2", text), None
        return True


class _Fewer(logging.Filter):
    """Leaves out the lines of hosts on which a step went well."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno > logging.INFO:
            return True
        return not _WENT_WELL.fullmatch(_COLORS.sub("", record.getMessage()).strip())


def begin(hosts: int, verbosity: int) -> None:
    """
    From here on a run of more than `MANY` hosts prints a line for a host only where it is not as the others.

    + hosts: how many the run is for
    + verbosity: how often -v was given; then everything is printed
    """
    if verbosity:
        return
    logger.addFilter(_ShortFacts())
    _told.many = hosts > MANY
    if _told.many:
        logger.addFilter(_Fewer())
        logger.info(f"    {hosts} hosts: what went well is counted at the end; -v prints it for each host")


def many() -> bool:
    """Whether what went well is counted."""
    return _told.many


def tell(text: str, worth: bool, what: str = "differs") -> None:
    """
    Print what was found on the current host. Of many hosts: nothing of one that is as it should be, and one line of one of which
    the same is to be said as of another.

    + text: all of it, each line with the host's prefix
    + worth: whether there is something to know: a difference, or a warning
    + what: is the same as of another host
    """
    if not _told.many:
        logger.info(text)
    elif worth:
        first = _told.texts.setdefault(text.replace(host.print_prefix, ""), host.name)
        logger.info(text if first == host.name else f"{host.print_prefix}{what} as {first}")
