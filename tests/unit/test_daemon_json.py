import json
from typing import Any

import pytest

from operations.plan.errors import PlanError
from operations.plan.machine import daemon_json


@pytest.mark.parametrize(
    ("text", "settings"), [("", {}), (" \n", {}), ("{}", {}), ('{"a": [1]}', {"a": [1]})]
)
def test_parse(text: str, settings: dict[str, Any]) -> None:
    assert daemon_json.parse(text) == settings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1,}', "expected valid JSON; fix it by hand"),
        ('{\n"a" 1}', "at line 2"),
        ("[]", "expected a JSON object"),
        ('"text"', "expected a JSON object"),
        ("null", "expected a JSON object"),
    ],
)
def test_a_malformed_file_is_refused_by_its_name(text: str, expected: str) -> None:
    with pytest.raises(PlanError) as caught:
        daemon_json.parse(text)
    assert str(caught.value).startswith("/etc/docker/daemon.json: ")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "known"),
    [
        ({}, False),
        ({"runtimes": {}}, False),
        ({"runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}, True),
        ({"runtimes": {"nvidia": {"path": "/usr/bin/nvidia-container-runtime", "runtimeArgs": []}}}, True),
        ({"runtimes": {"nvidia": {"path": "/usr/bin/crun"}}}, False),
        ({"runtimes": {"nvidia": {}}}, False),
        ({"runtimes": {"nvidia": None}}, False),
        ({"runtimes": {"other": {"path": "nvidia-container-runtime"}}}, False),
        # valid JSON, and dockerd takes null for an absent key
        ({"runtimes": None}, False),
        ({"runtimes": []}, False),
    ],
)
def test_nvidia_runtime_is_recognized_by_its_binary(settings: dict[str, Any], known: bool) -> None:
    assert daemon_json.has_nvidia_runtime(settings) is known


@pytest.mark.parametrize(
    ("settings", "wanted", "keys"),
    [
        ({}, {}, []),
        ({"b": 1}, {"a": 1, "b": 2}, ["a", "b"]),
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 2, "x": 1}}, []),
        ({"a": [1, 2]}, {"a": [2, 1]}, ["a"]),
    ],
)
def test_missing(settings: dict[str, Any], wanted: dict[str, Any], keys: list[str]) -> None:
    assert daemon_json.missing(settings, wanted) == keys


def test_foreign_keys_survive_a_merge() -> None:
    foreign = {"features": {"containerd-snapshotter": True}, "log-opts": {"max-size": "10m"}}
    text = daemon_json.merged(json.dumps(foreign), {"insecure-registries": ["http://r:5000"]})
    assert json.loads(text) == {**foreign, "insecure-registries": ["http://r:5000"]}
    assert text.endswith("}\n")


def test_merged_settings_are_not_missing() -> None:
    wanted = {"a": {"b": [1]}, "c": "d"}
    assert daemon_json.missing(daemon_json.parse(daemon_json.merged('{"a": 0}', wanted)), wanted) == []


def test_a_malformed_file_is_not_merged_over() -> None:
    with pytest.raises(PlanError):
        daemon_json.merged("{", {"a": 1})
