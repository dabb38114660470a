"""The package haproxy: Debian's program, with the paths of Enterprise Linux."""

from pathlib import Path

from tests.lab.rpm.spec import File, Package, service

FILES = Path(__file__).parent / "files"

# Enterprise Linux builds haproxy without OpenTracing, and its userland has no such libraries, so this package has them.
LIBRARIES = ("libopentracing-c-wrapper.so.0", "libopentracing.so.1")
LIBRARY_FOLDER = "usr/lib/x86_64-linux-gnu"
USER = "haproxy"
HOME = "/var/lib/haproxy"


def package(debian: Path, os_major: int, version: str) -> Package:
    """After the installation it neither runs nor starts at boot: the deploy that writes its configuration enables it."""
    errors = debian / "etc/haproxy/errors"
    return service(
        Package(
            name="haproxy",
            version=version,
            release=f"1.el{os_major}",
            summary="HAProxy reverse proxy for high availability environments",
            description="Debian's build of haproxy, with the files and places of Enterprise Linux's package.",
            files={
                "/usr/sbin/haproxy": File(debian / "usr/sbin/haproxy", 0o755),
                "/usr/bin/halog": File(debian / "usr/bin/halog", 0o755),
                **{
                    f"/{LIBRARY_FOLDER}/{name}": File(debian / LIBRARY_FOLDER / name, 0o755)
                    for name in LIBRARIES
                },
                "/usr/lib/systemd/system/haproxy.service": File(FILES / "haproxy.service"),
                "/etc/haproxy": File(None, 0o755),
                "/etc/haproxy/conf.d": File(None, 0o755),
                "/etc/haproxy/haproxy.cfg": File(FILES / "haproxy.cfg", config=True),
                "/etc/sysconfig/haproxy": File(
                    '# Further options of the daemon, such as another -f FILE\nOPTIONS=""\n', config=True
                ),
                "/etc/logrotate.d/haproxy": File(FILES / "haproxy.logrotate", config=True),
                "/usr/share/haproxy": File(None, 0o755),
                **{
                    f"/usr/share/haproxy/{answer.name}": File(answer)
                    for answer in sorted(errors.glob("*.http"))
                },
                HOME: File(None, 0o755, owner=USER),
            },
            requires=("systemd",),
            pre=(
                f"getent group {USER} >/dev/null || groupadd --system {USER}\n"
                f"getent passwd {USER} >/dev/null || useradd --system --gid {USER} --home-dir {HOME} "
                f"--no-create-home --shell /usr/sbin/nologin {USER}"
            ),
        ),
        "haproxy.service",
    )
