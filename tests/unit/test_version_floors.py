"""What is below a floor is refused, unless the site has decided otherwise, for a while, and said why."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest
from pydantic import ValidationError

from operations.plan import PlanError
from operations.plan.inventory import check_deployable, settings_of
from operations.plan.profiles import load_profile
from operations.plan.support_matrix import RELEASES, stack_release
from operations.plan.version_floors import (
    FLOORS,
    Component,
    Waiver,
    below,
    check_floors,
    components,
    package_components,
)
from tests.unit.builders import DATA, settings

TODAY = date(2026, 11, 21)


def waiver(component: str, version: str, until: str = "2026-12-31") -> Waiver:
    return Waiver.model_validate(
        {
            "component": component,
            "version": version,
            "reason": "kept until the new engine is built",
            "until": until,
        }
    )


@pytest.mark.parametrize(
    ("component", "version", "minimum"),
    [
        ("triton", "26.05", "26.06"),
        ("triton", "24.09", "26.06"),
        ("triton", "26.06", None),
        ("triton", "26.07", None),
        ("tensorrt-llm", "0.17.0.post1", "1.2.1"),
        ("tensorrt-llm", "1.2.0", "1.2.1"),
        # meets the demanded one, and not the one that is only said
        ("tensorrt-llm", "1.2.1", "1.3.0rc17"),
        ("tensorrt-llm", "1.3.0rc16", "1.3.0rc17"),
        ("tensorrt-llm", "1.3.0rc17", None),
        ("nvidia-container-toolkit", "1.19.0", "1.19.1"),
        ("nvidia-container-toolkit", "1.20.0", None),
        ("docker-ce", "28.5.1", "28.5.2"),
        ("docker-ce", "29.0.0", None),
        ("containerd.io", "1.7.28", "1.7.29"),
        ("driver", "535.309.01", None),
        ("driver", "535.288.01", "535.309.01"),
        ("driver", "580.95.05", "580.159.03"),
        ("driver", "580.159.04", None),
        ("driver", "595.71.05", None),
        ("driver", "600.10.01", None),
        # branches without a published fix
        ("driver", "550.163.01", "595.71.05"),
        ("driver", "590.44.01", "595.71.05"),
    ],
)
def test_floors(component: Component, version: str, minimum: str | None) -> None:
    floor = below(component, version)
    assert (floor.minimum if floor else None) == minimum


def test_every_floor_says_where_it_is_from_and_why() -> None:
    for floor in FLOORS:
        assert re.search(r"[0-9]{4}|[0-9.]{5,}", floor.bulletin)
        assert date.fromisoformat(floor.published) <= TODAY
        assert "CVE-" in floor.why


def test_the_support_matrix_says_which_images_can_be_served_without_a_waiver() -> None:
    free = [name for name in RELEASES if (floor := below("triton", name)) is None or floor.advice]
    assert free == ["26.06", "26.07"]
    assert all(stack_release(name, "").tensorrt_llm == "1.2.1" for name in free)


def test_packages_are_counted_as_their_makers_do() -> None:
    packages = {
        "docker-ce": "3:28.5.2-1.el{os_major}",
        "docker-ce-cli": "1:28.5.2-1.el{os_major}",
        "containerd.io": "1.7.29-1.el{os_major}",
        "nvidia-container-toolkit": "1.19.1-1",
        "libnvidia-container1": "1.18.0-1",
        "git": None,
        "docker-buildx-plugin": "0.29.1-1.el9",
    }
    assert package_components(packages) == [
        ("docker-ce", "28.5.2"),
        ("containerd.io", "1.7.29"),
        ("nvidia-container-toolkit", "1.19.1"),
        ("nvidia-container-toolkit", "1.18.0"),
    ]


def test_what_is_below_is_refused_with_its_bulletin_and_what_to_write() -> None:
    with pytest.raises(PlanError) as refused:
        check_floors("gpu-1", [("triton", "24.09")], [], TODAY)
    message = str(refused.value)
    assert message.startswith(
        "gpu-1: triton version: found 24.09, expected at least 26.06 (NVIDIA 5865 of 2026-08-18: CVE-"
    )
    assert "waivers = [{'component': 'triton', 'version': '24.09'" in message


def test_a_driver_is_compared_within_its_branch() -> None:
    with pytest.raises(
        PlanError, match=r"driver version: found 580\.95\.05, expected at least 580\.159\.03 \(NVIDIA 5821"
    ):
        check_floors("gpu-1", [("driver", "580.95.05")], [], TODAY)
    with pytest.raises(
        PlanError, match=r"found 550\.163\.01, expected a branch with a published fix, from 535\.309\.01, 580"
    ):
        check_floors("gpu-1", [("driver", "550.163.01")], [], TODAY)


def test_a_waiver_holds_for_its_version_to_its_last_day() -> None:
    found: list[tuple[Component, str]] = [("triton", "24.09")]
    (said,) = check_floors("gpu-1", found, [waiver("triton", "24.09")], TODAY)
    assert "waived until 2026-12-31: kept until the new engine is built" in said
    (said,) = check_floors("gpu-1", found, [waiver("triton", "24.09", "2026-11-21")], TODAY)
    assert "0 days left" in said
    (said,) = check_floors("gpu-1", found, [waiver("triton", "24.09", "2026-11-22")], TODAY)
    assert "1 day left" in said
    for other in (waiver("triton", "24.08"), waiver("docker-ce", "24.09")):
        with pytest.raises(PlanError, match=r"triton version: found 24\.09"):
            check_floors("gpu-1", found, [other], TODAY)
    with pytest.raises(
        PlanError, match=r"gpu-1: waivers: triton 24\.09: found a waiver that ended on 2026-11-20, .*renew"
    ):
        check_floors("gpu-1", found, [waiver("triton", "24.09", "2026-11-20")], TODAY)


def test_what_no_image_meets_is_said_and_not_refused() -> None:
    (said,) = check_floors("gpu-1", [("tensorrt-llm", "1.2.1")], [], TODAY)
    assert "tensorrt-llm 1.2.1 is below 1.3.0rc17 (NVIDIA 5840" in said


def test_a_version_that_is_none_is_refused_without_its_text_where_it_is_a_secret() -> None:
    with pytest.raises(PlanError, match="driver version: found n/a, expected a version"):
        check_floors("gpu-1", [("driver", "n/a")], [], TODAY)


@pytest.mark.parametrize(
    "changed",
    [
        {"component": "kernel"},
        {"reason": "because"},
        {"reason": ""},
        {"until": "next year"},
        {"version": ""},
        {"version": "26.05; rm"},
        {"bulletin": "5865"},
    ],
)
def test_a_waiver_says_what_until_when_and_why(changed: dict[str, str]) -> None:
    valid = {"component": "triton", "version": "26.05", "reason": "a reason of length", "until": "2026-12-31"}
    Waiver.model_validate(valid)
    with pytest.raises(ValidationError):
        Waiver.model_validate({**valid, **changed})


def test_everything_a_host_runs_is_looked_at() -> None:
    chosen = settings()
    found = components(chosen, load_profile("gpt2-medium"), "580.159.04")
    everything = {floor.component for floor in FLOORS}
    assert {component for component, _ in found} == everything - {"nginx"}
    gateway = {"certificate": "a", "private_key": "b", "api_keys": "c"}
    behind_one = components(settings(gateway=gateway), load_profile("gpt2-medium"), "580.159.04")
    assert {component for component, _ in behind_one} == everything
    assert "tensorrt-llm" not in dict(components(chosen, load_profile("clip-search")))
    assert not check_floors("gpu-1", [pair for pair in found if pair[0] != "tensorrt-llm"], [], TODAY)


def test_an_inventory_is_refused_before_a_connection(tmp_path: Path) -> None:
    (tmp_path / "all.py").write_text(f"globals().update({DATA!r})\n", encoding="utf-8")
    (accepted,) = settings_of([("gpu-1", {})], "oci", tmp_path).values()
    check_deployable("gpu-1", accepted, TODAY)
    with pytest.raises(PlanError, match=r"^gpu-1: triton version: found 24\.09"):
        check_deployable("gpu-1", settings(waivers=[]), TODAY)
