"""The configuration of a site's Prometheus and Alertmanager."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from operations.plan.monitoring import yaml_text
from operations.plan.monitoring.watched import JOBS, Job, Target

# relative to prometheus.yml; the operator puts them there
KEY_FILE, CA_FILE = "secrets/key", "secrets/ca.pem"
RULES = "rules/tritonhost.yml"
INTERVAL = "15s"

_REMOTE_WRITE = """
# What is scraped can go to another Prometheus, Mimir or Thanos as well: tritonhost monitoring --remote-write URL
# remote_write:
#   - url: "https://metrics.example/api/v1/write"
"""


def prometheus(targets: Mapping[str, Sequence[Target]], remote_write: str, alertmanager: str) -> str:
    """
    prometheus.yml.

    + targets: job -> its targets: a job that needs secrets is there only if it has some
    + remote_write: URL; empty: none
    + alertmanager: host:port
    """
    jobs = [_job(name, job) for name, job in JOBS.items() if targets.get(name) or not job.tls]
    value: dict[str, object] = {
        "global": {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": [RULES],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": jobs,
    }
    if remote_write:
        value["remote_write"] = [{"url": remote_write}]
    return yaml_text.document(value) + ("" if remote_write else _REMOTE_WRITE)


def _job(name: str, job: Job) -> dict[str, object]:
    found: dict[str, object] = {
        "job_name": name,
        # it watches the directory that it found first, and `current` leads to another one after a change
        "file_sd_configs": [{"files": [f"targets/{name}.json"], "refresh_interval": "15s"}],
    }
    if job.tls:
        found |= {
            "scheme": "https",
            "metrics_path": job.path,
            "authorization": {"credentials_file": KEY_FILE},
            "tls_config": {"ca_file": CA_FILE},
        }
    if job.label:
        found["relabel_configs"] = [{"target_label": "job", "replacement": job.label}]
    return found


def alertmanager(told: bool = True) -> str:
    """
    An example to begin with: one message for a host, and none for what follows from another alert.

    + told: whether somebody is told; without, alerts are only shown
    """
    receiver: dict[str, object] = {"name": "operators"}
    if told:
        receiver["webhook_configs"] = [{"url": "http://127.0.0.1:9095/alerts"}]
    value = {
        "route": {
            "receiver": "operators",
            "group_by": ["host", "service"],
            "group_wait": "30s",
            "group_interval": "5m",
            "repeat_interval": "12h",
        },
        "receivers": [receiver],
        "inhibit_rules": [
            _inhibits(
                "TritonhostDown", ["TritonhostNotReady", "TritonhostDoorFailures"], ["host", "service"]
            ),
            _inhibits("TritonhostExporterDown", ["TritonhostMetricsOld"], ["host"]),
            _inhibits("TritonhostGoldenDrift", ["TritonhostRolledBack"], ["host", "service"]),
        ],
    }
    head = "# An example, written by tritonhost monitoring: copy it to alertmanager.yml, and name a receiver of the site's.\n"
    return yaml_text.document(value, head if told else yaml_text.HEAD)


def _inhibits(source: str, others: Sequence[str], equal: Sequence[str]) -> dict[str, object]:
    names = "|".join(others)
    return {
        "source_matchers": [f'alertname = "{source}"'],
        "target_matchers": [f'alertname =~ "{names}"'],
        "equal": list(equal),
    }
