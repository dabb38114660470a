import pytest

from operations.plan.errors import PlanError
from operations.plan.packages import check_os, for_os, same_version, wanted_packages
from tests.unit.builders import settings


@pytest.mark.parametrize(
    ("wanted", "installed", "same"),
    [
        ("3:28.5.2-1.el9", "3:28.5.2-1.el9", True),
        ("28.5.2-1.el9", "3:28.5.2-1.el9", True),
        ("28.5.2-1.el9", "0:28.5.2-1.el9", True),
        ("3:28.5.2-1.el9", "0:28.5.2-1.el9", False),
        ("1:28.5.2-1.el9", "3:28.5.2-1.el9", False),
        ("28.5.2-1.el9", "3:28.5.20-1.el9", False),
        ("28.5.2-1", "3:28.5.2-1.el9", False),
        ("28.5.2-1.el9", "28.5.2-1.el9", True),
    ],
)
def test_same_version(wanted: str, installed: str, same: bool) -> None:
    assert same_version(wanted, installed) is same


def test_the_major_version_is_filled_in_literally() -> None:
    assert for_os("x/{os_major}/$basearch", "8") == "x/8/$basearch"
    versions = wanted_packages(settings(), "8")
    assert versions["docker-ce"] == "3:28.5.2-1.el8"
    assert versions["nvidia-container-toolkit"] == "1.19.1-1"
    assert versions["git-lfs"] is None


@pytest.mark.parametrize(("version", "major"), [("8.10", "8"), ("9.6", "9"), ("9", "9")])
def test_a_supported_system(version: str, major: str) -> None:
    assert check_os({"ID": "ol", "VERSION_ID": version}, "x86_64") == major


@pytest.mark.parametrize(
    ("name", "version", "architecture", "expected"),
    [
        ("ol", "7.9", "x86_64", "operating system: found ol 7.9, expected Oracle Linux 8 or 9"),
        ("ol", "10.0", "x86_64", "found ol 10.0"),
        ("ol", "", "x86_64", "found ol,"),
        ("ubuntu", "22.04", "x86_64", "found ubuntu 22.04"),
        ("", "", "", "operating system: found nothing"),
        ("ol", "9.6", "aarch64", "processor: found aarch64, expected x86_64"),
    ],
)
def test_any_other_system_is_refused(name: str, version: str, architecture: str, expected: str) -> None:
    with pytest.raises(PlanError) as caught:
        check_os({"ID": name, "VERSION_ID": version} if name else {}, architecture)
    assert expected in str(caught.value)
