"""SELinux: what containers mount is labelled for them, and the booleans they need are on. Its mode is left as it is."""

from __future__ import annotations

import shlex
from collections.abc import Generator

from pyinfra import host
from pyinfra.api.command import StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.operation import operation
from pyinfra.facts.selinux import FileContext

from operations.facts.selinux import Booleans, LocalRule
from operations.plan.release import Release
from operations.plan.selinux import TYPE, missing_booleans, patterns
from operations.plan.settings import Settings

RELABEL_SECONDS = 3600  # a data root of many files on a slow disk


@deploy("SELinux")
def allow(release: Release) -> None:
    """docker's confined containers may use the GPUs and read what they mount; nothing where the host has no SELinux."""
    if not release.selinux:
        return
    for pattern in patterns(release.settings):
        mapped(name=f"Label {pattern} for containers", target=pattern)
    labelled(name="Label the data root", path=release.data_root)
    switched_on(name="Switch booleans on that containers need", settings=release.settings)


@operation()
def mapped(target: str) -> Generator[StringCommand, None, None]:
    """
    The host's policy has a rule of its own that gives what containers mount their label.

    + target: a pattern of semanage-fcontext(8)

    Not `selinux.file_context_mapping`: pyinfra 3.10 does not find the rule of a path with a dot, and adding it again fails.
    """
    found: str = host.get_fact(LocalRule, target=target)
    if found == TYPE:
        host.noop(f"{target} is {TYPE}")
        return
    change = "--modify" if found else "--add"
    yield StringCommand(shlex.join(["semanage", "fcontext", change, "--type", TYPE, target]))


@operation()
def labelled(path: str) -> Generator[StringCommand, None, None]:
    """
    The directory is there, and it and all below have the labels that the host's policy says, once and for all.

    + path: the data root

    What is made in it later takes its label from the directory it is made in.
    """
    if (host.get_fact(FileContext, path=path) or {}).get("type") == TYPE:
        host.noop(f"{path} is labelled for containers")
        return
    place = shlex.quote(path)
    yield StringCommand(f"mkdir -p {place} && restorecon -R {place}", _timeout=RELABEL_SECONDS)


@operation()
def switched_on(settings: Settings) -> Generator[StringCommand, None, None]:
    """
    The booleans that containers and the front need are on, now and after a boot.

    + settings: the host's

    One command for all: each rebuilds the policy, which takes seconds.
    """
    found: dict[str, str] = host.get_fact(Booleans)
    missing = missing_booleans(settings, found)
    if not missing:
        host.noop("the booleans are on")
        return
    yield StringCommand("setsebool", "-P", *(f"{name}=on" for name in missing), _timeout=300)
