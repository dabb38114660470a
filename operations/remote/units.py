"""Units of a host that are waited for."""

from __future__ import annotations

from collections.abc import Sequence

from pyinfra.api.host import Host

from operations.remote.detached import said, shell
from operations.scripts import host_script


def until_active(host: Host, units: Sequence[str], seconds: int, first: str = "") -> str:
    """
    Waits until units are active: a server's is when its models answer. Why one is not; empty: all are.

    + units: without their suffix
    + first: shell text before it, which may end the script
    """
    variables = {"UNITS": "\n".join(units), "SECONDS_AT_MOST": str(seconds)}
    ok, output = shell(host, f"{first}{host_script('wait_units.sh', variables)}", timeout=seconds + 60)
    return "" if ok else said(output)
