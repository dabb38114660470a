"""What a host was before the first change: a teardown puts that back, and removes nothing else."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from pyinfra import host
from pyinfra.api.command import StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.operation import operation

from operations.facts.host_record import RecordedPlaces
from operations.plan.machine.host_record import DIRECTORY, GROUP, OVERWRITTEN, noted, places
from operations.plan.release import Release
from operations.remote import host_files
from operations.scripts import host_script


@deploy("Record")
def begin_early(release: Release) -> None:
    """Before anything else is changed, where the root file system has room for it."""
    _begin(release, "Record what the host was", early=True)


@deploy("Record")
def begin(release: Release) -> None:
    """After the root file system has grown."""
    _begin(release, "Record it where the disk was full", early=False)


def _begin(release: Release, name: str, early: bool) -> None:
    settings = release.settings
    ours = host_files.unit_files(settings)
    begun(name=name, places=places(settings), ours=ours, early=early)


@operation()
def begun(
    places: Sequence[str], ours: Sequence[str], early: bool = False
) -> Generator[StringCommand, None, None]:
    """
    The record of the host has been begun, and lists its services.

    + places: the record's line of each service
    + ours: files that only a deploy writes: where one is there, the host was deployed before it had a record
    + early: a disk without room for it is no fault

    Of a host that was deployed by a version without a record, the record says just that: what was there before is not known, and a
    teardown leaves its packages.
    """
    if {*places} <= {*host.get_fact(RecordedPlaces)}:
        host.noop("the host has a record")
        return
    variables = {
        "DIRECTORY": DIRECTORY,
        "PLACES": "\n".join(places),
        "OURS": "\n".join(ours),
        "OVERWRITTEN": "\n".join(OVERWRITTEN),
        "THERE": "\n".join(noted({place.split("\t")[1] for place in places})),
        "GROUP": GROUP,
        "EARLY": "yes" if early else "",
    }
    yield StringCommand(host_script("begin_record.sh", variables))
