"""One HTML page of what every host of an inventory does now, what a run did, and what is exposed. Changes nothing, takes no lock.

python -m operations.report --output build/report.html
python -m operations.report --output build/report.html --run report.json     # what a deploy wrote to TRITONHOST_REPORT
python -m operations.report --output build/report.html --exposure            # with the versions, against NVIDIA's bulletins

Each host is read as `status` reads it. Exit codes: 0 all serve what the inventory says, and nothing that was compared is exposed; 1 one does
not, was not reached, or is exposed: the page is written all the same; 2 bad input, or a page that cannot be written.
"""

from __future__ import annotations

if __name__ == "__main__":
    # before anything else is imported, as for the preflight
    from gevent import monkey

    monkey.patch_all()

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType

from pyinfra.api.host import Host

from operations import exposure, inputs, preflight, pyinfra_patches, status
from operations.intake.refusing import refusing
from operations.plan import PlanError
from operations.plan.audit import fleet
from operations.plan.audit.bulletins import Feed
from operations.plan.audit.exposed import audit
from operations.plan.audit.fleet import Entry, Fleet
from operations.plan.report import Exposure, HostReport, Report, exposure_of, load_run, of_reading
from operations.plan.report_page import page
from operations.plan.status import HostStatus, summary

PROGRAM = "python -m operations.report"
_UNKNOWN = "the saved facts do not have it"
Found = tuple[HostReport, Entry | None]


def parser(prog: str = PROGRAM) -> argparse.ArgumentParser:
    """The program's options. + prog: the name that its messages use"""
    parser = argparse.ArgumentParser(
        prog=prog, description="one HTML page of what every host does now; changes nothing on a host"
    )
    status.add_hosts(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the page, one HTML file")
    parser.add_argument(
        "--run", type=Path, metavar="FILE", help="what a run did: the JSON that it wrote to TRITONHOST_REPORT"
    )
    parser.add_argument(
        "--exposure", action="store_true", help="read the versions on the hosts too, and compare them"
    )
    parser.add_argument(
        "--facts",
        type=Path,
        metavar="FILE",
        help="compare the versions that tritonhost exposure --save has written, in place of --exposure",
    )
    parser.add_argument("--feed", type=Path, metavar="FILE", help="the bulletins; default: as exposure")
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = PROGRAM) -> int:
    """The command; see the exit codes at the top of this file."""
    given = parser(prog).parse_intermixed_args(arguments)
    inputs.quieten()
    pyinfra_patches.refuse_sudo_password()
    with refusing():
        _check(given)
        run = load_run(given.run) if given.run else None
        saved = fleet.load(given.facts) if given.facts else None
        feed = exposure.chosen_feed(given)[0] if given.exposure or given.facts else None
        state, chosen = preflight.state_and_hosts(given)
        saved = exposure.with_wanted(saved, chosen) if saved else None
    seconds = status.GIVEN_UP_SECONDS + (exposure.SECONDS if given.exposure else 0)
    found = status.answers(state, chosen, partial(reported, versions=given.exposure), lost, seconds)
    at = datetime.now(UTC).replace(microsecond=0)
    report = Report(at=at, inventory=_scope(given), hosts=[host for host, _ in found], run=run)
    if feed:
        read = [entry for _, entry in found if entry]
        observed = saved or Fleet(format=fleet.FORMAT, observed=at, hosts=read)
        report = report.model_copy(update={"exposure": _exposure(observed, feed, chosen, at)})
    with refusing():
        _writing(given.output, lambda: _write(given.output, page(report)))
    print(f"{summary([host.status for host in report.hosts])}\nwritten: {given.output}")
    return report.exit_code


def _scope(given: argparse.Namespace) -> str:
    """What the page is of."""
    return f"{given.inventory} ({', '.join(given.limit)})" if given.limit else str(given.inventory)


def reported(each: Host, began: float, versions: bool = False) -> Found:
    """A connected host; raises as `status.reading`. + versions: read those too"""
    read = status.reading(each)
    entry = exposure.of_connected(each) if versions else None
    return of_reading(read.status(began), read.observed, read.release), entry


def lost(unread: HostStatus) -> Found:
    """A host that was not read."""
    return HostReport(status=unread), Entry(host=unread.name, problem=unread.problem)


def _exposure(observed: Fleet, feed: Feed, chosen: Sequence[Host], at: datetime) -> Exposure:
    """What is exposed of the hosts that are meant."""
    names = {host.name for host in chosen}
    entries = [one for one in observed.hosts if one.host in names]
    known = {one.host for one in entries}
    # of facts that were saved before the inventory had these hosts
    entries += [Entry(host=host.name, problem=_UNKNOWN) for host in chosen if host.name not in known]
    kept = observed.model_copy(update={"hosts": entries})
    return exposure_of(audit(kept, feed, at.date()), feed, at)


def _check(given: argparse.Namespace) -> None:
    """Before a host is asked: options that go together, and a place for the page. Raises PlanError."""
    if given.exposure and given.facts:
        raise PlanError("--facts", "it beside --exposure", "one of the two", reference="options-that-exclude")
    if given.feed and not (given.exposure or given.facts):
        raise PlanError(
            "--feed",
            "it without --exposure or --facts",
            "it beside one of the two",
            reference="options-that-exclude",
        )
    if given.output.is_dir():
        raise PlanError("--output", f"a directory: {given.output}", "a file that can be written")
    _writing(given.output, lambda: given.output.parent.mkdir(parents=True, exist_ok=True))
    if not os.access(given.output.parent, os.W_OK):
        raise PlanError("--output", "Permission denied", f"a file that can be written: {given.output}")


def _writing(path: Path, work: Callable[[], object]) -> None:
    """Raises PlanError where the work does not succeed."""
    try:
        work()
    except OSError as error:
        said = error.strerror or "an error"
        raise PlanError("--output", said, f"a file that can be written: {path}") from None


def _write(path: Path, text: str) -> None:
    """Atomically: who has the old page open reads it to its end."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name[:100]}.", dir=path.parent) as folder:
        # not by mkstemp, whose files none but their owner reads
        fresh = Path(folder, "page")
        fresh.write_text(text, encoding="utf-8")
        os.replace(fresh, path)


def _interrupted(number: int, frame: FrameType | None) -> None:
    print("tritonhost: interrupted; no page was written", file=sys.stderr)
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _interrupted)
    sys.exit(main())
