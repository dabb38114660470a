"""What is below a floor is refused, unless the site has decided otherwise, for a while, and said why."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from operations.plan import PlanError
from operations.plan.catalog.support_matrix import RELEASES, stack_release
from operations.plan.catalog.version_floors import (
    BRANCHES,
    FLOORS,
    Component,
    Waiver,
    below,
    check_docker,
    check_floors,
    package_components,
)
from operations.plan.deployable import check_deployable
from operations.plan.inventory.hosts import settings_of
from operations.plan.inventory.versions import components
from operations.plan.profile.profiles import load_profile
from tests.unit.builders import DATA, settings

TODAY = date(2026, 11, 21)
# of the tests' inventory
OLD = {"reason": "a test of what is old", "until": "9999-12-31"}
DOCKER: dict[str, Any] = {"component": "docker-ce", "version": "28.5.2", **OLD}
CONTAINERD: dict[str, Any] = {"component": "containerd.io", "version": "1.7.29", **OLD}


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
        ("triton", "26.06", "26.07"),
        ("triton", "24.09", "26.07"),
        ("triton", "26.07", None),
        ("triton", "26.10", None),
        ("tensorrt-llm", "0.17.0.post1", "1.2.1"),
        ("tensorrt-llm", "1.2.0", "1.2.1"),
        # meets the demanded one, and not the one that is only said
        ("tensorrt-llm", "1.2.1", "1.3.0rc17"),
        ("tensorrt-llm", "1.3.0rc16", "1.3.0rc17"),
        ("tensorrt-llm", "1.3.0rc17", None),
        ("tensorrt", "10.14.1.48", "11.0"),
        ("tensorrt", "9.3.0.post12.dev1", "11.0"),
        ("tensorrt", "11.2.1", None),
        ("nvidia-container-toolkit", "1.19.0", "1.19.1"),
        ("nvidia-container-toolkit", "1.20.0", None),
        ("docker-ce", "28.5.2", "29.3.1"),
        ("docker-ce", "29.3.0", "29.3.1"),
        # the five of 29.9.0 are said
        ("docker-ce", "29.8.0", "29.9.0"),
        ("docker-ce", "29.9.0", None),
        ("containerd.io", "1.7.29", "2.1.5"),
        # of a later branch than 1.7.29, and without its fixes
        ("containerd.io", "2.1.4", "2.1.5"),
        ("containerd.io", "2.2.6", None),
        ("driver", "535.309.01", None),
        ("driver", "535.288.01", "535.309.01"),
        ("driver", "580.159.04", "580.178.04"),
        ("driver", "580.178.04", None),
        ("driver", "595.71.05", "595.91.07"),
        ("driver", "595.91.07", None),
        ("driver", "610.43.02", "610.57.04"),
        ("driver", "610.57.04", None),
        # newer than the bulletin
        ("driver", "615.61", None),
        ("driver", "620.10.01", None),
        # branches without a published fix
        ("driver", "550.163.01", "610.57.04"),
        ("driver", "590.44.01", "610.57.04"),
        ("driver", "600.10.01", "610.57.04"),
    ],
)
def test_floors(component: Component, version: str, minimum: str | None) -> None:
    floor = below(component, version)
    assert (floor.minimum if floor else None) == minimum


def test_every_floor_has_a_source_and_a_reason() -> None:
    for floor in FLOORS:
        assert re.search(r"[0-9]{4}|[0-9.]{5,}", floor.bulletin)
        assert date.fromisoformat(floor.published) <= TODAY
        assert "CVE-" in floor.why


def test_only_release_26_07_needs_no_waiver() -> None:
    free = [name for name in RELEASES if (floor := below("triton", name)) is None or floor.advice]
    assert free == ["26.07"]
    assert all(stack_release(name, "").tensorrt_llm == "1.2.1" for name in free)


def test_package_pins_become_component_versions() -> None:
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


@pytest.mark.parametrize(
    ("docker", "containerd", "refused"),
    [
        ("29.9.0", "1.7.29", True),
        ("29.0.0", "2.1.4", True),
        ("29.9.0", "2.1.5", False),
        ("29.9.0", "2.2.6", False),
        ("30.0.0", "1.7.29", True),
        ("28.5.2", "1.7.29", False),
        # whatever the repositories hold
        ("29.9.0", None, False),
    ],
)
def test_check_docker_pins_that_dnf_would_refuse(docker: str, containerd: str | None, refused: bool) -> None:
    pins = {"docker-ce": f"3:{docker}-1.el{{os_major}}"}
    if containerd:
        pins["containerd.io"] = f"{containerd}-1.el{{os_major}}"
    if not refused:
        check_docker(pins)
        return
    with pytest.raises(PlanError) as caught:
        check_docker(pins)
    assert str(caught.value) == (
        f"docker_packages: containerd.io: found {containerd} beside docker-ce {docker}, expected 2.1.5 or later, which "
        "docker-ce requires from 29 on; pin both"
    )


def test_check_deployable_checks_docker_pins() -> None:
    pins = {"docker-ce": "3:29.9.0-1.el9", "containerd.io": "1.7.29-1.el9"}
    with pytest.raises(PlanError, match=r"^gpu-1: docker_packages: containerd\.io: found 1\.7\.29 beside"):
        check_deployable("gpu-1", settings(docker_packages=pins), TODAY)


@pytest.mark.requirement("R08")
def test_version_below_its_floor_is_refused_with_a_waiver() -> None:
    with pytest.raises(PlanError) as refused:
        check_floors("gpu-1", [("triton", "24.09")], [], TODAY)
    message = str(refused.value)
    assert message.startswith(
        "gpu-1: triton version: found 24.09, expected at least 26.07 (NVIDIA 5875 of 2026-09-08: CVE-"
    )
    assert 'waivers = [{component = "triton", version = "24.09", reason = "' in message


def test_a_driver_is_compared_within_its_branch() -> None:
    with pytest.raises(
        PlanError, match=r"driver version: found 580\.95\.05, expected at least 580\.178\.04 \(NVIDIA 5861"
    ):
        check_floors("gpu-1", [("driver", "580.95.05")], [], TODAY)
    with pytest.raises(
        PlanError, match=r"found 550\.163\.01, expected a branch with a published fix, from 580\.178\.04, 595"
    ):
        check_floors("gpu-1", [("driver", "550.163.01")], [], TODAY)


@pytest.mark.requirement("R08")
def test_waiver_is_valid_for_its_version_until_its_last_day() -> None:
    found: list[tuple[Component, str]] = [("triton", "24.09")]
    (said,) = check_floors("gpu-1", found, [waiver("triton", "24.09")], TODAY)
    assert "waived until 2026-12-31: kept until the new engine is built" in said
    (said,) = check_floors("gpu-1", found, [waiver("triton", "24.09", "2026-11-21")], TODAY)
    assert "0 days left" in said
    (said,) = check_floors("gpu-1", found, [waiver("triton", "24.09", "2099-01-01")], TODAY)
    assert "waived until 2099-01-01, expected a day within 366 days: kept until" in said
    (said,) = check_floors("gpu-1", found, [waiver("triton", "24.09", "2026-11-22")], TODAY)
    assert "1 day left" in said
    for other in (waiver("triton", "24.08"), waiver("docker-ce", "24.09")):
        with pytest.raises(PlanError, match=r"triton version: found 24\.09"):
            check_floors("gpu-1", found, [other], TODAY)
    with pytest.raises(
        PlanError, match=r"gpu-1: waivers: triton 24\.09: found a waiver that ended on 2026-11-20, .*renew"
    ):
        check_floors("gpu-1", found, [waiver("triton", "24.09", "2026-11-20")], TODAY)


def test_floor_that_no_image_meets_is_a_warning() -> None:
    (said,) = check_floors("gpu-1", [("tensorrt-llm", "1.2.1")], [], TODAY)
    assert "tensorrt-llm 1.2.1 is below 1.3.0rc17 (NVIDIA 5840" in said


@pytest.mark.parametrize(
    ("driver", "today", "said"),
    [
        ("535.309.01", TODAY, "driver 535.309.01 is of R535, which NVIDIA ended in 2026-06"),
        ("610.57.04", TODAY, "driver 610.57.04 is of R610, which NVIDIA ended in 2026-08"),
        ("580.178.04", TODAY, ""),
        ("620.10.01", TODAY, ""),
        ("615.61", TODAY, ""),
        # each of them ends
        ("580.178.04", date(2028, 7, 1), "driver 580.178.04 is of R580, which NVIDIA ended in 2028-06"),
        ("595.91.07", date(2027, 3, 31), ""),
        ("595.91.07", date(2027, 4, 1), "driver 595.91.07 is of R595, which NVIDIA ended in 2027-03"),
    ],
)
def test_check_floors_reports_an_ended_branch(driver: str, today: date, said: str) -> None:
    lines = check_floors("gpu-1", [("driver", driver)], [], today)
    assert [line.startswith(said) for line in lines] == ([True] if said else [])
    if said and today == TODAY:
        assert "move to R580 (until 2028-06), R595 (until 2027-03) or R620 (until 2029-09)" in lines[0]


@pytest.mark.parametrize("page", ["docs/security.md", "docs/how-to/driver.md", "README.md"])
def test_pages_name_the_floors_that_are_demanded(page: str) -> None:
    text = (Path(__file__).resolve().parents[2] / page).read_text(encoding="utf-8")
    newest = max(floor.published for floor in FLOORS if floor.component == "driver")
    for floor in FLOORS:
        of_driver = floor.component == "driver" and floor.published == newest
        if of_driver or (page == "docs/security.md" and not floor.advice):
            assert floor.minimum in text, floor
    if page == "docs/how-to/driver.md":
        for number, branch in BRANCHES.items():
            assert not branch.until or re.search(rf"R{number} (until|ended in|in) {branch.until}", text)


def test_branches_of_today_are_known() -> None:
    assert set(BRANCHES) >= {"535", "580", "595", "610", "615", "620"}


def test_tensorrt_floor_is_advice_with_the_next_step() -> None:
    (said,) = check_floors("gpu-1", [("tensorrt", "10.14.1.48")], [], TODAY)
    assert "NVIDIA 5855 of 2026-07-14" in said and "kind plan can move to release 26.08 or later" in said


def test_text_that_is_not_a_version_is_refused() -> None:
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
def test_waiver_needs_version_reason_and_last_day(changed: dict[str, str]) -> None:
    valid = {"component": "triton", "version": "26.05", "reason": "a reason of length", "until": "2026-12-31"}
    Waiver.model_validate(valid)
    with pytest.raises(ValidationError):
        Waiver.model_validate({**valid, **changed})


def test_every_component_on_a_host_is_checked() -> None:
    chosen = settings()
    found = components(chosen, load_profile("gpt2-medium"), "580.178.04")
    everything = {floor.component for floor in FLOORS}
    assert {component for component, _ in found} == everything - {"nginx"}
    gateway = {"certificate": "a", "private_key": "b", "api_keys": "c"}
    behind_one = components(settings(gateway=gateway), load_profile("gpt2-medium"), "580.178.04")
    assert {component for component, _ in behind_one} == everything
    assert "tensorrt-llm" not in dict(components(chosen, load_profile("clip-search")))
    said = check_floors("gpu-1", found, [Waiver(**DOCKER), Waiver(**CONTAINERD)], TODAY)
    assert [line.split()[0] for line in said] == ["tensorrt-llm", "tensorrt", "docker-ce", "containerd.io"]


def test_an_inventory_is_refused_before_a_connection(tmp_path: Path) -> None:
    (tmp_path / "all.py").write_text(f"globals().update({DATA!r})\n", encoding="utf-8")
    (accepted,) = settings_of([("gpu-1", {})], "oci", tmp_path).values()
    check_deployable("gpu-1", accepted, TODAY)
    with pytest.raises(PlanError, match=r"^gpu-1: versions: found triton 24\.09, tensorrt-llm 0\.13\.0"):
        check_deployable("gpu-1", settings(waivers=[]), TODAY)
