"""What a host tells its load balancers, through its gateway."""

from __future__ import annotations

from operations.plan.exposure import gateway
from operations.plan.inventory.settings import Settings
from operations.scripts import host_script


def released_script(settings: Settings, url: str = "", leave: bool = False, canary: str = "") -> str:
    """
    The shell text that tells load balancers which release serves, or that none does.

    + url: 200 there says that the server is ready; empty: it was asked before
    + leave: none
    + canary: what follows the release, as operations.plan.exposure.gateway has it
    """
    variables = {
        "LEAVE": "yes" if leave else "",
        "CANARY": canary,
        "FILE": gateway.released(settings.state_root),
        "UNDECIDED": gateway.undecided(settings.state_root),
        "STATE_ROOT": settings.state_root,
        "DATA_ROOT": settings.data_root,
        "URL": url,
    }
    return host_script("released.sh", variables)
