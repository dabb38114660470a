"""The host's own metrics, where the inventory wants them: who may change what root runs, and what node_exporter reads."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from operations.plan import Release
from operations.plan.monitoring import textfile
from operations.remote import host_files
from operations.remote.rendering import HostFile


@pytest.fixture(scope="module")
def metrics(host: Any, release: Release) -> dict[str, str]:
    """name{labels} -> value, of the file that node_exporter reads."""
    if release.settings.monitoring is None:
        pytest.skip("the inventory has no monitoring")
    text = host.file(textfile.output(release.settings)).content_string
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: value for name, _, value in (line.rpartition(" ") for line in lines)}


def test_metrics_files_are_root_s_and_as_rendered(
    host: Any, release: Release, etc_files: dict[str, HostFile], metrics: dict[str, str]
) -> None:
    place = host_files.paths(release.settings)
    directory, *files = textfile.own_paths(release.settings)
    for path in (*files, place.metrics_unit, place.metrics_timer):
        file = host.file(path)
        assert file.sha256sum == host_files.digest(etc_files[path].text), path
        assert (file.uid, file.mode & 0o022) == (0, 0), path
    found = host.file(directory)
    assert (found.uid, found.mode & 0o022) == (0, 0)


def test_timer_runs_and_is_enabled(host: Any, release: Release, metrics: dict[str, str]) -> None:
    timer = host.service(f"{textfile.unit(release.settings.service_name)}.timer")
    assert timer.is_enabled
    assert timer.is_running


def test_metrics_are_fresh_and_describe_the_release(
    host: Any, release: Release, metrics: dict[str, str]
) -> None:
    age = time.time() - host.file(textfile.output(release.settings)).mtime.timestamp()
    assert age < 4 * textfile.EVERY_S, "the timer does not write"
    service, model = (
        release.settings.service_name,
        re.sub(r"[^A-Za-z0-9._:/@+-]", "_", release.settings.model),
    )
    info = f'tritonhost_release_info{{service="{service}",model="{model}",release="{release.id}"}}'
    assert metrics[info] == "1"
    assert metrics[f'tritonhost_service_active{{service="{service}"}}'] == "1"
    ready = {name: value for name, value in metrics.items() if name.startswith("tritonhost_model_ready{")}
    assert len(ready) == len(release.ready_urls)
    assert set(ready.values()) == {"1"}


def test_metrics_report_no_changed_file(release: Release, metrics: dict[str, str]) -> None:
    assert metrics[f'tritonhost_files_changed{{service="{release.settings.service_name}"}}'] == "0"
