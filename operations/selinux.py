"""SELinux: labels for what containers mount, and the booleans that they need. Its mode is not changed."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Iterator, Sequence

from pyinfra import host
from pyinfra.api.command import StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.operation import operation
from pyinfra.facts.selinux import FileContext

from operations.facts.selinux import Booleans, LocalRule, NameOfRun
from operations.plan.inventory.settings import Settings
from operations.plan.machine.packages import RECORD
from operations.plan.machine.selinux import TYPE, missing_booleans, patterns
from operations.plan.release import Release

RELABEL_SECONDS = 3600  # a data root of many files on a slow disk


@deploy("SELinux")
def allow(release: Release) -> None:
    """Let docker's confined containers use the GPUs and read what they mount. Does nothing without SELinux."""
    if not release.selinux:
        return
    for pattern in patterns(release.settings, host.get_fact(NameOfRun)):
        mapped(name=f"Label {pattern} for containers", target=pattern)
    labelled(name="Label the data root", path=release.data_root)
    switched_on(name="Switch on the booleans that containers need", settings=release.settings)


@operation()
def mapped(target: str) -> Generator[StringCommand, None, None]:
    """
    The host's policy has a local rule that gives this pattern the label for containers.

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
    The directory exists, and it and everything below it have the labels of the host's policy.

    + path: the data root

    Files that are made in it later take the label of their directory.
    """
    if (host.get_fact(FileContext, path=path) or {}).get("type") == TYPE:
        host.noop(f"{path} is labelled for containers")
        return
    place = shlex.quote(path)
    yield StringCommand(f"mkdir -p {place} && restorecon -R {place}", _timeout=RELABEL_SECONDS)


@operation()
def switched_on(settings: Settings) -> Generator[StringCommand, None, None]:
    """
    The booleans that containers and the proxy need are on, now and after a boot.

    + settings: the host's settings

    One command sets them all: each command rebuilds the policy, which takes seconds.
    """
    found: dict[str, bool] = host.get_fact(Booleans)
    yield from _set(missing_booleans(settings, found))


@operation()
def on(booleans: Sequence[str]) -> Generator[StringCommand, None, None]:
    """
    The same of booleans by name.

    + booleans: those that the host's policy does not have are left out
    """
    found: dict[str, bool] = host.get_fact(Booleans)
    yield from _set([name for name in booleans if found.get(name) is False])


def _set(missing: Sequence[str]) -> Iterator[StringCommand]:
    if not missing:
        host.noop("the booleans are on")
        return
    # noted first: an interrupted run leaves none on that a teardown would not switch off
    yield StringCommand(
        f"! test -e {RECORD}/began || printf '%s\\n' {shlex.join(missing)} >>{RECORD}/booleans"
    )
    yield StringCommand("setsebool", "-P", *(f"{name}=on" for name in missing), _timeout=300)
