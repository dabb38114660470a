"""What root runs or the server reads belongs to root, and no other account may write to it."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.operation import operation

from operations.facts.ownership import Exposed
from operations.plan import ownership
from operations.plan.inventory.settings import Settings
from operations.plan.release import Release
from operations.remote import host_files
from operations.remote.refusal import refuse
from operations.scripts import host_functions, host_script

# What another account could have written is compared with its manifest; weights can have a hundred GiB.
SECONDS = 3600


@deploy("Ownership")
def take_back(release: Release) -> None:
    """Runs before anything is made from these files, or started from them."""
    taken_back(name="Restore root's ownership", settings=release.settings)


@operation()
def taken_back(settings: Settings) -> Generator[StringCommand | FunctionCommand, None, None]:
    """
    Releases, artifacts, units, configuration and keys belong to root, writable only by root, readable by the server.

    + settings: `data_root` and `service_name`

    What another account could have written is compared with its manifest, and made again if it differs. Directories of
    /etc and a site's additions to the units are not this tool's. It never changes them: the operator inspects them first.
    """
    files, unit_files = host_files.watched(settings), host_files.unit_files(settings)
    exposed = host.get_fact(Exposed, data_root=settings.data_root, files=files, unit_files=unit_files)
    mine, others = ownership.repaired(settings.data_root, files, exposed)
    if others:
        path = others[0]
        yield refuse(
            f"ownership: found {ownership.shown(path)} with {ownership.said(exposed[path])}, expected owner root and no "
            "write permission for others; inspect its content, then run chown root and chmod go-w; nothing was changed"
        )
        return
    if not mine:
        host.noop("root owns all of it")
        return
    given = {
        "DATA_ROOT": settings.data_root,
        "DEEP": ownership.DEEP,
        **ownership.variables(settings.data_root, files, unit_files),
    }
    yield StringCommand(host_script("take_back.sh", given, host_functions("ownership.sh")), _timeout=SECONDS)
