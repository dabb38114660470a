from fnmatch import fnmatch

import pytest
from pydantic import ValidationError

from operations import host_files
from operations.plan.errors import PlanError
from operations.plan.packages import (
    INSTALL,
    UNTOUCHED,
    check_os,
    for_os,
    growth_packages,
    install,
    only_system_repositories,
    same_version,
    tool_packages,
    wanted_packages,
)
from tests.unit.builders import release, settings


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


@pytest.mark.parametrize(
    "name",
    [
        "kernel",
        "kernel-core",
        "kernel-modules-extra",
        "kernel-uek",
        "kernel-uek-core",
        "kmod-nvidia-open-dkms",
        "nvidia-driver",
        "nvidia-driver-cuda-libs",
        "nvidia-fabricmanager",
        "nvidia-fabric-manager",
        "nvidia-persistenced",
        "libnvidia-ml",
        "cuda-drivers-580",
        "kmod-mlnx-ofa_kernel",
    ],
)
def test_kernel_and_driver_are_left_out_of_every_installation(name: str) -> None:
    assert any(fnmatch(name, pattern) for pattern in UNTOUCHED)
    excluded = [word.removeprefix("--exclude=") for word in INSTALL if word.startswith("--exclude=")]
    assert tuple(excluded) == UNTOUCHED


@pytest.mark.parametrize("name", ["kernel-headers", "kernel-tools-libs", "kmod", "kmod-libs", "nvidia-ctk"])
def test_what_only_sounds_like_them_is_not(name: str) -> None:
    wanted = [*wanted_packages(settings(), "9"), name]
    assert not [n for n in wanted if any(fnmatch(n, pattern) for pattern in UNTOUCHED)]


def test_what_grows_the_root_is_wanted_only_where_it_grows_and_before_the_others() -> None:
    # a host that has grown already is not held up by it
    assert "cloud-utils-growpart" not in wanted_packages(settings(), "9")
    assert growth_packages(settings(), "9") == {"cloud-utils-growpart": None}
    pin = {"extra_packages": {"cloud-utils-growpart": "0:0.33-0.el{os_major}"}}
    assert growth_packages(settings(**pin), "9") == {"cloud-utils-growpart": "0:0.33-0.el9"}
    left = settings(grow_root_file_system=False)
    assert "cloud-utils-growpart" not in wanted_packages(left, "9") and growth_packages(left, "9") == {}
    # its unit is one of those that a run takes up
    assert install(growth_packages(settings(), "9"), ()).unit in release().units
    # the vendors' repositories are not set up yet
    site = settings(system_repositories={"baseos": "https://mirror.example/ol9"})
    assert only_system_repositories(site) == ("--disablerepo=*", "--enablerepo=tritonhost-baseos")
    assert only_system_repositories(settings()) == ()


def test_dnf_is_asked_for_nothing_but_what_is_named() -> None:
    assert not {"--allowerasing", "--nobest", "--skip-broken", "--nogpgcheck"} & set(INSTALL)


def test_further_packages_are_tools() -> None:
    more = {"extra_packages": {"zip": None, "dnf-utils": "4.3.0-20.el{os_major}"}}
    tools = tool_packages(settings(**more), "9")
    assert tools["zip"] is None
    assert tools["dnf-utils"] == "4.3.0-20.el9"
    # before docker-ce, which needs it
    assert tools["container-selinux"] is None
    assert "python3-dnf-plugin-versionlock" in tools
    assert "python3-dnf-plugin-versionlock" not in tool_packages(settings(version_lock=False), "9")


def test_where_git_lfs_is_to_be_had_is_said_where_it_is_missing() -> None:
    assert "oracle-epel-release" in install({"git-lfs": None}, ["git-lfs"]).result
    assert "epel" not in install({"git": None, "git-lfs": None}, ["git"]).result


def test_the_toolkit_s_channel_is_part_of_its_url() -> None:
    url = "https://mirror.invalid/{channel}/rpm/$basearch"
    data = {"nvidia_container_toolkit_repository_url": url}
    for channel in ("stable", "experimental"):
        text = host_files.rendered(release({**data, "nvidia_container_toolkit_channel": channel}))
        assert (
            f"baseurl=https://mirror.invalid/{channel}/rpm/$basearch\n" in text[host_files.TOOLKIT_REPOSITORY]
        )


def test_a_channel_without_a_place_in_the_url_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\{channel\} in nvidia_container_toolkit_repository_url"):
        settings(nvidia_container_toolkit_channel="experimental")


def test_every_repository_checks_signatures() -> None:
    texts = host_files.rendered(release())
    docker, toolkit = texts[host_files.DOCKER_REPOSITORY], texts[host_files.TOOLKIT_REPOSITORY]
    assert "\ngpgcheck=1\nrepo_gpgcheck=0\n" in docker
    assert docker.endswith("sslverify=1\nmodule_hotfixes=1\n")
    assert "\ngpgcheck=0\nrepo_gpgcheck=1\n" in toolkit
    assert toolkit.endswith("sslverify=1\n")
    assert "$releasever" not in docker + toolkit
    signed = host_files.rendered(release({"nvidia_container_toolkit_gpgcheck": True}))
    assert "\ngpgcheck=1\nrepo_gpgcheck=1\n" in signed[host_files.TOOLKIT_REPOSITORY]


@pytest.mark.parametrize("name", ["podman", "runc"])
def test_what_conflicts_with_docker_is_no_further_package(name: str) -> None:
    with pytest.raises(ValueError, match=f"and so not {name}"):
        settings(extra_packages={name: None})


@pytest.mark.parametrize("name", ["kernel", "kernel-uek-devel", "nvidia-fabricmanager", "nvidia-driver-cuda"])
def test_what_a_deploy_never_touches_is_no_extra_package(name: str) -> None:
    with pytest.raises(ValidationError, match=f"and so not {name}: install it by hand"):
        settings(extra_packages={name: None})
