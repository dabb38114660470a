import shlex
from fnmatch import fnmatch

import pytest
from pydantic import ValidationError

from operations.plan.artifacts.artifact import HostCommand
from operations.plan.catalog.package_names import UNTOUCHED
from operations.plan.errors import PlanError
from operations.plan.machine.packages import (
    INSTALL,
    check_os,
    for_os,
    growth_packages,
    install,
    only_system_repositories,
    removal,
    same_version,
    tool_packages,
    trust,
    wanted_packages,
)
from operations.remote import host_files, repository_files
from tests.unit.builders import release, settings
from tests.unit.stubs import Stubs


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
def test_unsupported_system_is_refused(name: str, version: str, architecture: str, expected: str) -> None:
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
        "nvlsm",
        "nvidia-persistenced",
        "libnvidia-ml",
        "cuda-drivers-580",
        "kmod-mlnx-ofa_kernel",
    ],
)
def test_kernel_and_driver_are_excluded_from_every_install(name: str) -> None:
    assert any(fnmatch(name, pattern) for pattern in UNTOUCHED)
    excluded = [word.removeprefix("--exclude=") for word in INSTALL if word.startswith("--exclude=")]
    assert tuple(excluded) == UNTOUCHED


@pytest.mark.parametrize("name", ["kernel-headers", "kernel-tools-libs", "kmod", "kmod-libs", "nvidia-ctk"])
def test_similar_package_names_are_not_excluded(name: str) -> None:
    wanted = [*wanted_packages(settings(), "9"), name]
    assert not [n for n in wanted if any(fnmatch(n, pattern) for pattern in UNTOUCHED)]


def test_growpart_is_wanted_only_where_the_root_is_grown() -> None:
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


def test_dnf_install_has_no_permissive_options() -> None:
    assert not {"--allowerasing", "--nobest", "--skip-broken", "--nogpgcheck"} & set(INSTALL)


@pytest.mark.parametrize(
    ("work", "installed", "there"),
    [
        (install({"git": None, "zip": "9-1"}, ["git", "zip"]), ["git 0:1-1", "zip 0:9-1"], True),
        (install({"git": None, "zip": "9-1"}, ["git", "zip"]), ["git 0:1-1", "zip 0:9-10"], False),
        (install({"git": None, "zip": "9-1"}, ["git", "zip"]), ["zip 0:9-1"], False),
        (install({"zip": "1:9-1"}, ["zip"]), ["zip 0:9-1"], False),
        (install({"zip": "1:9-1"}, ["zip"]), ["zip 0:9-1", "zip 1:9-1"], True),
        (removal(["runc", "podman"]), ["git 0:1-1"], True),
        (removal(["runc", "podman"]), ["podman 0:1-1"], False),
        (removal(["runc", "podman"]), ["runc 0:1-1"], False),
        (trust("/key", "F" * 32 + "0123ABCD"), ["gpg-pubkey-0123abcd 0:1-1"], True),
        (trust("/key", "F" * 32 + "0123ABCD"), ["gpg-pubkey-0123abce 0:1-1"], False),
    ],
)
def test_proof_of_a_unit_queries_rpm(
    work: HostCommand, installed: list[str], there: bool, stubs: Stubs
) -> None:
    stubs.add(
        "rpm",
        'for name; do :; done; case "$*" in *EPOCHNUM*) cut="s/^/&/" ;; *) cut="s/^[0-9]*://" ;; esac\n'
        f'found=$(printf \'%s\\n\' {shlex.join(installed)} | sed -n "s/^$name //p" | sed "$cut")\n'
        '[ -n "$found" ] && echo "$found"',
    )
    assert (stubs.run(work.proof).returncode == 0) is there


def test_extra_packages_are_tools() -> None:
    more = {"extra_packages": {"zip": None, "dnf-utils": "4.3.0-20.el{os_major}"}}
    tools = tool_packages(settings(**more), "9")
    assert tools["zip"] is None
    assert tools["dnf-utils"] == "4.3.0-20.el9"
    # before docker-ce, which needs it
    assert tools["container-selinux"] is None
    assert "python3-dnf-plugin-versionlock" in tools
    assert "python3-dnf-plugin-versionlock" not in tool_packages(settings(version_lock=False), "9")


def test_toolkit_channel_is_part_of_the_url() -> None:
    url = "https://mirror.invalid/{channel}/rpm/$basearch"
    data = {"nvidia_container_toolkit_repository_url": url}
    for channel in ("stable", "experimental"):
        files = host_files.rendered(release({**data, "nvidia_container_toolkit_channel": channel}))
        text = files[repository_files.TOOLKIT_REPOSITORY].text
        assert f"baseurl=https://mirror.invalid/{channel}/rpm/$basearch\n" in text


def test_a_channel_without_a_place_in_the_url_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"nvidia_container_toolkit_repository_url\n  a URL with \{channel\} in it"
    ):
        settings(nvidia_container_toolkit_channel="experimental")


def test_every_repository_checks_signatures() -> None:
    files = host_files.rendered(release())
    docker = files[repository_files.DOCKER_REPOSITORY].text
    toolkit = files[repository_files.TOOLKIT_REPOSITORY].text
    assert "\ngpgcheck=1\nrepo_gpgcheck=0\n" in docker
    assert docker.endswith("sslverify=1\nmodule_hotfixes=1\n")
    assert "\ngpgcheck=0\nrepo_gpgcheck=1\n" in toolkit
    assert toolkit.endswith("sslverify=1\n")
    assert "$releasever" not in docker + toolkit
    signed = host_files.rendered(release({"nvidia_container_toolkit_gpgcheck": True}))
    assert "\ngpgcheck=1\nrepo_gpgcheck=1\n" in signed[repository_files.TOOLKIT_REPOSITORY].text


@pytest.mark.parametrize(
    "name",
    [
        *("podman", "podman-docker", "podman-remote", "buildah", "buildah-tests", "runc", "containerd"),
        *("docker", "docker.io", "docker-engine", "docker-client-latest", "docker-common", "moby-engine"),
        *("moby-cli", "nvidia-docker2", "nvidia-docker", "nvidia-container-runtime"),
    ],
)
def test_docker_conflicts_are_refused_as_extra_packages(name: str) -> None:
    with pytest.raises(ValueError, match=f"and so not {name}"):
        settings(extra_packages={name: None})


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("docker-ce", "docker_packages"),
        ("docker-ce-rootless-extras", "docker_packages"),
        ("docker-compose-plugin", "docker_packages"),
        ("containerd.io", "docker_packages"),
        ("nvidia-container-toolkit-base", "nvidia_container_toolkit_packages"),
        ("libnvidia-container1", "nvidia_container_toolkit_packages"),
    ],
)
def test_packages_that_restart_docker_are_refused_as_extra(name: str, key: str) -> None:
    with pytest.raises(ValidationError, match=f"and so not {name}: pin it in {key}"):
        settings(extra_packages={name: None})


@pytest.mark.parametrize("key", ["git_packages", "haproxy_packages"])
def test_other_package_settings_refuse_conflicts_too(key: str) -> None:
    with pytest.raises(ValidationError, match="and so not podman-docker"):
        settings(**{key: {"podman-docker": None}})


@pytest.mark.parametrize("name", ["kmod-libs", "kernel-headers", "dockerfile-tools", "crun", "skopeo", "zip"])
def test_similar_package_name_is_accepted(name: str) -> None:
    assert settings(extra_packages={name: None}).extra_packages == {name: None}


@pytest.mark.parametrize(
    "name",
    [
        *("kernel", "kernel-uek-devel", "kernel-debug-core", "nvidia-fabricmanager", "nvidia-driver-cuda"),
        *("kmod-nvidia-open-dkms", "cuda", "cuda-toolkit-12-4", "cuda-drivers-580", "xorg-x11-drv-nvidia"),
    ],
)
def test_untouched_packages_are_refused_as_extra_packages(name: str) -> None:
    with pytest.raises(ValidationError, match=f"and so not {name}: install it by hand"):
        settings(extra_packages={name: None})
