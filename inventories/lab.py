"""The lab's hosts, as `tests/lab/lab up N` made them: the embedded default inventory."""

import json
import os
import sys
from pathlib import Path

if not Path("operations").is_dir():
    # pyinfra reads config.py and imports operations from the directory it runs in
    _project = Path(__file__).resolve().parents[1]
    print(
        f"tritonhost: directory: found {Path.cwd()}, expected the project's; cd {_project}", file=sys.stderr
    )
    raise SystemExit(2)

from operations.intake.refusing import refusing
from operations.plan.errors import PlanError
from operations.plan.inventory.hosts import checked_hosts, settings_of, with_services
from tests.lab.settings import from_environment

# Debian's programs, and a stand-in for Grafana
_IMAGES = {
    "prometheus_image": "prom/prometheus:v2.42.0",
    "alertmanager_image": "prom/alertmanager:v0.25.0",
    "grafana_image": "grafana/grafana:12.4.11",
}
_lab_json = from_environment().record

with refusing():
    if not _lab_json.exists():
        raise PlanError(
            "",
            f"no lab ({_lab_json} is absent)",
            "a running lab",
            "tests/lab/lab up 1",
            where="inventories/lab.py",
            reference="no-lab",
        )
    _lab = json.loads(_lab_json.read_text(encoding="utf-8"))
    # what a monitoring server is told, by host, as JSON: {"h2": {"admin_password": ...}}
    _servers = json.loads(os.environ.get("LAB_MONITORING_SERVERS", "{}"))
    _own = {name: {"monitoring_server": {**_IMAGES, **table}} for name, table in _servers.items()}
    # what else is a host's own, as JSON: {"h1": {"bind_address": ...}, "h3": {"load_balancer": ...}}
    _data = json.loads(os.environ.get("LAB_HOST_DATA", "{}"))
    hosts = checked_hosts(
        [
            (h["name"], {"ssh_hostname": h["address"], **_own.get(h["name"], {}), **_data.get(h["name"], {})})
            for h in _lab["hosts"]
        ],
        str(_lab_json),
    )
    _group_data = Path(__file__).resolve().parent / "group_data"
    hosts, _groups = with_services(hosts, "lab", _group_data)
    settings_of(hosts, "lab", _group_data, _groups)

# a host with several services is a group of their entries
globals().update(_groups)
