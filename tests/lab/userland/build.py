"""The userland of a host: Debian's programs, shaped like a bare Oracle Linux 8 or 9 cloud host."""

import os
import shutil
from pathlib import Path

from tests.lab import disk
from tests.lab.rpm import oracle, repositories
from tests.lab.settings import OS_RELEASES, Settings
from tests.lab.shell import digest, run, step

HERE = Path(__file__).parent

DEBIAN_PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "openssh-server",
    "sudo",
    "dnf",
    "dnf-plugins-core",
    "rpm",
    "python3",
    "ca-certificates",
    "iproute2",
    "iptables",
    "nftables",
    # installed as on an OCI image, but it does not run in the lab
    "firewalld",
    "python3-nftables",
    "curl",
    "procps",
    "kmod",
    "xfsprogs",
    "cloud-guest-utils",
    "e2fsprogs",
    "fdisk",
    "iputils-ping",
    "less",
    "xz-utils",
    "zstd",
    # shared libraries of the programs in the lab's own RPMs
    "libdevmapper1.02.1",
    "libsystemd0",
    "libseccomp2",
    "libcurl3-gnutls",
    "libpcre2-8-0",
    "libexpat1",
)

# A deploy must not depend on the distribution underneath.
DEBIAN_ONLY = (
    "usr/bin/apt*",
    "usr/bin/dpkg*",
    "usr/bin/deb*",
    "usr/sbin/dpkg*",
    "etc/apt",
    "etc/debian_version",
    "var/lib/apt",
    "var/lib/dpkg",
    "var/cache/apt",
    "var/cache/debconf",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "etc/ssh/ssh_host_*",
    "etc/resolv.conf",
    "usr/lib/apt",
    "lib/systemd/system/apt-daily*",
    "lib/systemd/system/dpkg-*",
    "etc/systemd/system/timers.target.wants/*",
)


def debian_archive(cache: Path, work: Path) -> Path:
    """The plain Debian userland as a tar archive, made once."""
    target = cache / "userland" / f"{digest(DEBIAN_PACKAGES)}.tar"
    if not target.exists():
        with step("userland"):
            fresh = work / target.name
            run(
                "mmdebstrap",
                "--quiet",
                "--variant=minbase",
                '--aptopt=APT::Install-Recommends "false"',
                f"--include={','.join(DEBIAN_PACKAGES)}",
                "bookworm",
                fresh,
            )
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(fresh, target)
    return target


def _write(root: Path, name: str, text: str, mode: int = 0o644) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _os_release(os_major: int) -> str:
    release = OS_RELEASES[os_major]
    values = {
        "NAME": "Oracle Linux Server",
        "VERSION": release,
        "ID": "ol",
        "ID_LIKE": "fedora",
        "VARIANT": "Server",
        "VARIANT_ID": "server",
        "VERSION_ID": release,
        "PLATFORM_ID": f"platform:el{os_major}",
        "PRETTY_NAME": f"Oracle Linux Server {release}",
        "CPE_NAME": f"cpe:/o:oracle:linux:{release.replace('.', ':')}:server",
    }
    return "".join(f'{key}="{value}"\n' for key, value in values.items())


def _shape(root: Path, cache: Path, os_major: int) -> None:
    """Turn a plain Debian tree into the common part of every host; the creation of a host adds what differs."""
    release = OS_RELEASES[os_major]
    _write(root, "usr/lib/os-release", _os_release(os_major))
    _write(root, "etc/oracle-release", f"Oracle Linux Server release {release}\n")
    _write(root, "etc/redhat-release", f"Red Hat Enterprise Linux release {release} (lab stand-in)\n")
    _write(root, "etc/locale.conf", "LANG=C.UTF-8\n")
    # Debian would enable every service of a package; Enterprise Linux enables none.
    _write(root, "etc/systemd/system-preset/00-lab.preset", "disable *\n")
    _write(root, "etc/rpm/macros", "%_dbpath /var/lib/rpm\n")
    _write(root, "etc/dnf/plugins/local.conf", "[main]\nenabled = false\n")
    _write(
        root,
        "etc/dnf/dnf.conf",
        "[main]\ngpgcheck=1\ninstallonly_limit=3\nclean_requirements_on_remove=True\n"
        "best=True\nskip_if_unavailable=False\n",
    )
    _write(root, "etc/sudoers.d/90-cloud-init-users", "opc ALL=(ALL) NOPASSWD:ALL\n", 0o440)
    _write(
        root,
        "etc/ssh/sshd_config.d/50-lab.conf",
        "HostKey /etc/ssh/ssh_host_ed25519_key\nPasswordAuthentication no\nUseDNS no\n",
    )
    _write(root, "usr/libexec/oci-growfs", (HERE / "files" / "oci-growfs").read_text(), 0o755)
    shutil.copyfile(repositories.base(cache, os_major) / "gpg", root / "etc/RPM-GPG-KEY-oracle")
    run("chroot", root, "useradd", "--create-home", "--shell", "/bin/bash", "opc")
    # On Enterprise Linux sh is bash.
    (root / "bin/sh").unlink()
    (root / "bin/sh").symlink_to("bash")
    packages = root / "tmp/preinstalled"
    packages.mkdir()
    for name in oracle.PREINSTALLED:
        for rpm in repositories.base(cache, os_major).glob(f"{name}-[0-9]*.rpm"):
            shutil.copy(rpm, packages)
    run("chroot", root, "rpm", "--import", "/etc/RPM-GPG-KEY-oracle")
    run("chroot", root, "sh", "-c", "rpm --install --force-debian /tmp/preinstalled/*.rpm")
    shutil.rmtree(packages)
    (root / "etc/pki/rpm-gpg").mkdir(parents=True, exist_ok=True)
    (root / "etc/RPM-GPG-KEY-oracle").rename(root / "etc/pki/rpm-gpg/RPM-GPG-KEY-oracle")
    for pattern in DEBIAN_ONLY:
        for found in root.glob(pattern):
            if found.is_dir() and not found.is_symlink():
                shutil.rmtree(found)
            else:
                found.unlink()
    # Name lookups fail at once, because there is no name server.
    _write(root, "etc/resolv.conf", "")
    _write(root, "etc/machine-id", "")


def base_image(settings: Settings, work: Path) -> Path:
    """The disk image that hosts are cloned from, inside the pool, which must be mounted."""
    archive = debian_archive(settings.cache, work)
    made_from = (repositories.base(settings.cache, settings.os_major) / repositories.KEY_FILE).read_text()
    key = digest(
        [archive.name, made_from, HERE, str(settings.os_major), str(settings.disk), str(settings.root)]
    )
    target = settings.pool_mount / f"base-{key}.img"
    if not target.exists():
        with step("base disk"):
            for outdated in sorted(
                settings.pool_mount.glob("base-*.img"), key=lambda path: path.stat().st_mtime
            )[:-3]:
                outdated.unlink()
            fresh = settings.pool_mount / "unfinished.img"
            disk.format_image(fresh, settings)
            with disk.mounted(fresh, settings.state / "base") as root:
                run(
                    "tar",
                    "--extract",
                    "--numeric-owner",
                    "--xattrs",
                    "--xattrs-include=*",
                    "--file",
                    archive,
                    "--directory",
                    root,
                )
                _shape(root, settings.cache, settings.os_major)
            os.replace(fresh, target)
    return target
