"""The lab's hosts, as `tests/lab/lab up N` made them: the embedded default inventory."""

import json
from pathlib import Path

from operations.plan.errors import PlanError
from operations.plan.inventory import checked_hosts, refusing, settings_of
from tests.lab.settings import from_environment

_lab_json = from_environment().record

with refusing():
    if not _lab_json.exists():
        raise PlanError(
            "inventories/lab.py", f"no lab ({_lab_json} is absent)", "a running lab", "tests/lab/lab up 1"
        )
    _lab = json.loads(_lab_json.read_text(encoding="utf-8"))
    hosts = checked_hosts(
        [(h["name"], {"ssh_hostname": h["address"]}) for h in _lab["hosts"]], str(_lab_json)
    )
    settings_of(hosts, "lab", Path(__file__).resolve().parent / "group_data")
