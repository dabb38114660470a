"""Grafana's board, and what Grafana needs to find it.

The JSON is that of Grafana's dashboards, schema version 39 (Grafana 10 and later):
https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from operations.plan.monitoring import yaml_text
from operations.plan.monitoring.panels import ANNOTATION, ROWS, Panel

UID = "tritonhost"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
SCHEMA = 39
WIDTH, HEIGHT = 24, 8  # of the grid, and of a panel


def _panel(panel: Panel, number: int, x: int, y: int, width: int) -> dict[str, object]:
    steps = [{"value": limit, "color": colour} for limit, colour in panel.steps]
    mappings = (
        [{"type": "value", "options": {value: {"text": text} for value, text in panel.words}}]
        if panel.words
        else []
    )
    options: dict[str, object] = {}
    if panel.kind == "stat":
        options = {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "background",
            "textMode": "value_and_name",
        }
    elif panel.kind == "timeseries":
        options = {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}}
    targets = [
        {
            "refId": chr(ord("A") + place),
            "datasource": SOURCE,
            "expr": query.expression,
            "legendFormat": query.legend,
            "instant": panel.now,
            "range": not panel.now,
            "format": "table" if panel.kind == "table" else "time_series",
        }
        for place, query in enumerate(panel.queries)
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": width, "h": HEIGHT},
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "thresholds": {"mode": "absolute", "steps": steps},
                "mappings": mappings,
            },
            "overrides": [],
        },
        "options": options,
        "targets": targets,
    }


def _panels() -> list[dict[str, object]]:
    """Four in a line, a row's title above them."""
    found: list[dict[str, object]] = []
    y = 0
    for row in ROWS:
        place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
        found.append(
            {
                "id": len(found) + 1,
                "type": "row",
                "title": row.question,
                "collapsed": False,
                "gridPos": place,
                "panels": [],
            }
        )
        y += 1
        for first in range(0, len(row.panels), 4):
            line = row.panels[first : first + 4]
            width = WIDTH // len(line)
            for number, panel in enumerate(line):
                found.append(_panel(panel, len(found) + 1, number * width, y, width))
            y += HEIGHT
    return found


def _variables() -> list[Mapping[str, object]]:
    return [
        {
            "name": "datasource",
            "type": "datasource",
            "query": "prometheus",
            "label": "Data source",
            "hide": 0,
        },
        {
            "name": "host",
            "type": "query",
            "label": "Host",
            "datasource": SOURCE,
            "query": {"query": "label_values(up, host)", "refId": "hosts"},
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
        },
    ]


def board() -> str:
    """The board, for Grafana's provisioning or its import."""
    annotation = {
        "name": "Releases",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "blue",
        "expr": ANNOTATION.expression,
        "titleFormat": ANNOTATION.legend,
        "useValueForTime": True,
    }
    value = {
        "uid": UID,
        "title": "tritonhost",
        "tags": ["tritonhost"],
        "schemaVersion": SCHEMA,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": _variables()},
        "annotations": {"list": [annotation]},
        "panels": _panels(),
    }
    return json.dumps(value, indent=2) + "\n"


def data_source(url: str, alertmanager: str) -> str:
    """
    Grafana's provisioning of its data sources.

    + url: of Prometheus. + alertmanager: of Alertmanager, where alerts are silenced
    """
    metrics = {"name": "Prometheus", "type": "prometheus", "uid": "tritonhost-prometheus", "url": url}
    alerts = {
        "name": "Alertmanager",
        "type": "alertmanager",
        "uid": "tritonhost-alertmanager",
        "url": alertmanager,
    }
    found = [
        {**metrics, "access": "proxy"},
        {**alerts, "access": "proxy", "jsonData": {"implementation": "prometheus"}},
    ]
    return yaml_text.document({"apiVersion": 1, "datasources": found})


def provider(directory: str) -> str:
    """Grafana's provisioning of the board. `directory`: where Grafana finds its file."""
    options = {"path": directory}
    # Grafana follows a link to it, and takes a board in another directory for a new one: it would delete the old one, with its stars
    kept = {"allowUiUpdates": False, "disableDeletion": True}
    entry = {"name": "tritonhost", "type": "file", **kept, "options": options}
    return yaml_text.document({"apiVersion": 1, "providers": [entry]})
