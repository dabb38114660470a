"""The files that a site's Prometheus, Alertmanager and Grafana need, from an inventory. Connects to no host.

python -m operations.site_monitoring DIR
python -m operations.site_monitoring DIR --inventory inventories/oci.py --remote-write https://metrics.example/api/v1/write

Exit codes: 0 written, 2 bad input.
"""

from __future__ import annotations

if __name__ == "__main__":
    # before anything else is imported, as for the preflight
    from gevent import monkey

    monkey.patch_all()

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from pyinfra.api.inventory import Inventory

from operations import inputs, preflight
from operations.intake.refusing import refusing
from operations.plan.errors import Origin, PlanError
from operations.plan.monitoring.prometheus import CA_FILE, KEY_FILE
from operations.plan.monitoring.site import Site, files
from operations.plan.monitoring.watched import JOBS, Watched
from operations.watched_hosts import entries_of
from operations.whole_file import beside

PROGRAM = "python -m operations.site_monitoring"
INVENTORY = "inventories/oci.py"
BAD_INPUT = 2
# option -> what it may be: each ends up in a file that another program reads
_FORMS = {
    "prometheus": (re.compile(r"https?://[^\s@\"]+"), "a URL without user and password"),
    "alertmanager": (re.compile(r"[A-Za-z0-9.-]+:[0-9]{1,5}"), "HOST:PORT"),
    "remote_write": (re.compile(r"(https?://[^\s@\"]+)?"), "a URL without user and password"),
    "runbooks": (re.compile(r"[^\s\"#]+"), "a URL, to which #ALERT is added"),
}


def parser(prog: str = PROGRAM) -> argparse.ArgumentParser:
    """The program's options. + prog: the name that its messages use"""
    site = Site()
    parser = argparse.ArgumentParser(
        prog=prog, description="write what Prometheus, Alertmanager and Grafana read; connects to no host"
    )
    parser.add_argument("directory", metavar="DIR", type=Path, help="where the files are written")
    parser.add_argument("--inventory", default=INVENTORY, metavar="FILE", help=f"default: {INVENTORY}")
    parser.add_argument("--group-data", action="append", default=[], metavar="DIR", help="as pyinfra's")
    parser.add_argument(
        "--prometheus",
        default=site.prometheus,
        metavar="URL",
        help=f"for Grafana; default: {site.prometheus}",
    )
    parser.add_argument(
        "--alertmanager",
        default=site.alertmanager,
        metavar="HOST:PORT",
        help=f"for Prometheus; default: {site.alertmanager}",
    )
    parser.add_argument(
        "--remote-write", default=site.remote_write, metavar="URL", help="where Prometheus sends what it has"
    )
    parser.add_argument(
        "--runbooks",
        default=site.runbooks,
        metavar="URL",
        help=f"page of the alerts; default: {site.runbooks}",
    )
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = PROGRAM) -> int:
    """The command; see the exit codes at the top of this file."""
    given = parser(prog).parse_args(arguments)
    given.limit, given.data = [], []
    inputs.quieten()
    with refusing():
        site = site_of(given)
        _, inventory, _ = preflight.inventory_of(given)
        entries = _entries(inventory, given.inventory)
        texts = files(entries, site)
    try:
        for name, text in texts.items():
            write(given.directory / name, text)
    except OSError as error:
        found = error.strerror or type(error).__name__
        print(f"tritonhost: {error.filename or given.directory}: {found}; name another DIR", file=sys.stderr)
        return BAD_INPUT
    count = len({entry.host for entry in entries})
    print(f"{given.directory}: {len(texts)} files for {count} host{'' if count == 1 else 's'}")
    for remark in (remark for entry in entries for remark in entry.remarks):
        print(f"tritonhost: warning: {remark}", file=sys.stderr)
    if any(JOBS[target.job].tls for entry in entries for target in entry.targets):
        print(
            f"put a key of the gateway into {given.directory}/{KEY_FILE} (mode 0600, of Prometheus's user), and the root "
            f"certificate into {given.directory}/{CA_FILE}"
        )
    return 0


def site_of(given: argparse.Namespace) -> Site:
    """What the options say. Raises PlanError."""
    values = {name: str(getattr(given, name)) for name in _FORMS}
    for name, value in values.items():
        form, expected = _FORMS[name]
        if not form.fullmatch(value):
            shown = "something else (not shown)" if "@" in value else value
            option = f"--{name.replace('_', '-')}"
            raise PlanError(option, shown, expected, reference="wrong-value")
    return Site(**values)


def _entries(inventory: Inventory, where: str) -> list[Watched]:
    """The entries that want monitoring. `where`: the inventory's file. Raises PlanError."""
    try:
        return entries_of(inventory)
    except PlanError as error:
        raise error.placed(Origin(where)) from None


def write(path: Path, text: str) -> None:
    """The file has this text; untouched if it has it already, so that no program reads it again. Raises OSError."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    with beside(path, text, ".new") as part:
        part.replace(path)


if __name__ == "__main__":
    sys.exit(main())
