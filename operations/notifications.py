"""Who is told of a run: a message when it begins to change hosts, and one that says how it ended.

Each is sent by a process of its own (operations/notification_sender.py), which ends in seconds whatever hangs. A message that
cannot be sent is one warning, and never more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

import gevent
from pyinfra import logger
from pyinfra.api.host import Host

from operations import pyinfra_patches
from operations.plan.errors import PlanError, one_line
from operations.plan.inventory.notification_settings import NotificationSettings, is_loopback, split
from operations.plan.inventory.settings import from_host_data
from operations.plan.paths import TREE
from operations.plan.serving.notification import Event, HostNotified, Message, event_of, message

SECONDS = 5.0  # that a run waits at its end for the messages that are not sent yet, all of them together
POLL_SECONDS = 0.05
LABEL = "notifications"


@dataclass(frozen=True)
class _Sending:
    """One message on its way. + to: whom, as a warning says it"""

    to: str
    process: subprocess.Popen[bytes]


class _Run:
    """What is known of the messages of this process's one run."""

    def __init__(self) -> None:
        self.id = uuid4().hex
        self.inventory = ""
        self.may_change = False
        self.sending: list[_Sending] = []
        self.problems: dict[str, str] = {}  # by whom it was for: one warning for each


_run = _Run()


def follow(given: Mapping[str, object]) -> None:
    """
    This process runs pyinfra: a run is told of where it deploys and may change hosts, not of --dry and no operation by name.

    + given: the options of the command line, by pyinfra's own names
    """
    words = given.get("operations")
    deploys = any(str(word).endswith(".py") for word in words) if isinstance(words, list | tuple) else False
    _run.may_change = deploys and not given.get("dry")
    _run.inventory = str(given.get("inventory", ""))


def started(hosts: Sequence[Host], rows: Sequence[HostNotified], began: datetime) -> None:
    """The first operation begins: say which hosts are to be changed. Waits for nothing."""
    if _run.may_change:
        _each(hosts, rows, lambda settings, found: _send(settings, "start", found, began))


def ended(hosts: Sequence[Host], rows: Sequence[HostNotified], began: datetime) -> None:
    """The run is over: say how, and wait until that is sent, for SECONDS at most."""
    if not _run.may_change:
        return

    def say(settings: NotificationSettings, found: Sequence[HostNotified]) -> None:
        event = event_of(found)
        if event and (event != "converged" or settings.notify_converged):
            _send(settings, event, found, began)

    _each(hosts, rows, say)
    _wait()


def _each(
    hosts: Sequence[Host],
    rows: Sequence[HostNotified],
    work: Callable[[NotificationSettings, Sequence[HostNotified]], None],
) -> None:
    """`work` for each different setting, with the rows of the hosts that have it."""
    by_name = {row.host: row for row in rows}
    found: dict[str, tuple[NotificationSettings, list[HostNotified]]] = {}
    for host in hosts:
        if host.name not in by_name:
            continue
        try:
            settings = from_host_data(pyinfra_patches.data_of(host), host.name).notifications
        except PlanError:
            continue  # it was refused before anything was connected to
        if settings:
            found.setdefault(settings.model_dump_json(), (settings, []))[1].append(by_name[host.name])
    for settings, ours in found.values():
        work(settings, ours)


def _send(
    settings: NotificationSettings, event: Event, hosts: Sequence[HostNotified], began: datetime
) -> None:
    said = message(event, _run.id, _run.inventory, hosts, began, datetime.now(UTC))
    for url in settings.webhooks:
        _webhook(url, settings, said)
    if name := settings.webhook_variable:
        url = os.environ.get(name, "").strip()
        if split(url) is None:
            found = "another text (not shown)" if url else "nothing"
            _run.problems[name] = (
                f"found {found}, expected a URL with https://, or with http:// to this machine"
            )
        else:
            _webhook(url, settings, said, f"webhook of {name}")
    if settings.oci_topic:
        topic = {"oci_topic": settings.oci_topic, "title": said.title}
        _begin("oci_topic", topic, said)


def _webhook(url: str, settings: NotificationSettings, said: Message, to: str = "") -> None:
    parts = split(url)
    assert parts is not None and parts.hostname  # the inventory was checked
    what = {
        "webhook": url,
        "token_variable": settings.token_variable or "",
        "loopback": is_loopback(parts.hostname),
    }
    _begin(to or f"webhook {parts.scheme}://{parts.netloc}", what, said)


def _begin(to: str, what: Mapping[str, object], said: Message) -> None:
    """Start the process that sends a message. A session of its own: Ctrl-C is for the run."""
    text = json.dumps({**what, "body": said.model_dump_json()})
    path = os.pathsep.join(filter(None, [str(TREE), os.environ.get("PYTHONPATH", "")]))
    try:
        # a file and no pipe, which might be full before the process reads it
        with tempfile.TemporaryFile() as given:
            given.write(text.encode())
            given.seek(0)
            process = subprocess.Popen(
                [sys.executable, "-m", "operations.notification_sender"],
                env={**os.environ, "PYTHONPATH": path},
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
    except OSError as error:
        _run.problems[to] = error.strerror or type(error).__name__
        return
    _run.sending.append(_Sending(to, process))


def _wait() -> None:
    """Until all are sent or the time is over; then a warning for each that was not."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until and any(each.process.poll() is None for each in _run.sending):
        gevent.sleep(POLL_SECONDS)
    for each in _run.sending:
        if problem := _problem(each.process):
            _run.problems[each.to] = problem
    for to, problem in _run.problems.items():
        logger.warning(f"{LABEL}: {to}: {problem}; the run itself is not affected")
    _run.sending.clear()
    _run.problems.clear()


def _problem(process: subprocess.Popen[bytes]) -> str:
    """Why a message was not sent, or nothing."""
    code = process.poll()
    if code is None:
        process.kill()
    if code is None or code < 0:
        return f"no answer within {SECONDS:.0f} s"
    assert process.stdout is not None
    said = one_line(process.stdout.read(4000).decode(errors="replace"))
    process.stdout.close()
    return "" if code == 0 else said or f"the process that sends it ended with {code}"
