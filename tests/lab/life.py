"""A whole lab: start it, and remove it without a trace."""

import os
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.lab import cgroups, disk, mirror_processes, network, record
from tests.lab.host import Host, existing
from tests.lab.lock import held
from tests.lab.rpm import repositories
from tests.lab.settings import Settings
from tests.lab.shell import LabError, run, say, step
from tests.lab.userland import build as userland

# Twenty hosts, each with a systemd and docker, watch more files than a kernel allows one user by default.
LIMITS = {"fs/inotify/max_user_instances": 4096, "fs/inotify/max_user_watches": 524288}

# The group of the work of `up`: a later command ends what an interrupted one left running.
BUILD = "build"


def lock_path(settings: Settings) -> Path:
    """One lock for each network, independent of the lab's state and cache."""
    return Path("/run/lock", f"tritonhost-{settings.tag}.lock")


def cache_lock_path(settings: Settings) -> Path:
    """Labs on different networks share the cache."""
    return settings.cache / "build.lock"


def _work_folder(settings: Settings) -> Path:
    return settings.cache / f"unfinished-{settings.tag}"


def _clear_work(settings: Settings) -> None:
    """Remove what an interrupted build left; a finished one has moved its results out."""
    work = _work_folder(settings)
    disk.unmount(work)
    shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _own_group(settings: Settings) -> Iterator[None]:
    """Put this process and all that it starts into the lab's build group; first end what was left in it."""
    group = cgroups.Group(settings.tag, BUILD)
    group.kill()
    group.create()
    group.add(os.getpid())

    def end(*_: object) -> None:
        say("interrupted; run it again to continue, or `down` to remove everything")
        group.kill(timeout=0)

    # Threads wait for the programs that they started; ending all of them at once is the only way out without waiting.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    yield


def _raise_limits(settings: Settings) -> None:
    for name, wanted in LIMITS.items():
        file = Path("/proc/sys", name)
        before = int(file.read_text())
        if before < wanted:
            note = settings.state / f"limit-{file.name}"
            if not note.exists():
                note.write_text(str(before))
            file.write_text(str(wanted))


def _restore_limits(settings: Settings) -> None:
    for name in LIMITS:
        note = settings.state / f"limit-{Path(name).name}"
        with suppress(FileNotFoundError):
            Path("/proc/sys", name).write_text(note.read_text())


def _each(action: Callable[[Host], None], hosts: Sequence[Host]) -> None:
    """Do it for all hosts in parallel; the first failure is raised when all have ended."""
    if not hosts:
        return
    with ThreadPoolExecutor(len(hosts)) as pool:
        for future in [pool.submit(action, host) for host in hosts]:
            future.result()


def _refuse_other_kind(settings: Settings) -> None:
    known = record.read(settings)
    for key, variable, asked in (
        ("os_major", "LAB_OS", settings.os_major),
        ("gpus", "LAB_GPUS", settings.gpus),
    ):
        if known and existing(settings) and known[key] != asked:
            raise LabError(f"the running lab has {variable}={known[key]}, {asked} asked for: `down` first")


def up(settings: Settings, count: int) -> None:
    """Start hosts 1..count and the mirror, and write lab.json. What already runs is left unchanged."""
    with held(lock_path(settings)), _own_group(settings):
        _refuse_other_kind(settings)
        settings.state.mkdir(parents=True, exist_ok=True)
        disk.share_mounts(settings)
        _raise_limits(settings)
        if not settings.ssh_key.exists():
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", settings.ssh_key)
        network.create_bridge(settings)
        (settings.cache / "dnf").mkdir(parents=True, exist_ok=True)
        hosts = [Host(settings, number) for number in range(1, count + 1)]
        with held(cache_lock_path(settings)), ThreadPoolExecutor(4) as pool:
            _clear_work(settings)
            work = _work_folder(settings)
            work.mkdir(parents=True)
            # The userland, the packages and the mirror's content do not wait for each other.
            archive = pool.submit(userland.debian_archive, settings.cache, work)
            packages = pool.submit(repositories.build_all, settings.cache, settings.os_major, work)
            mirror_processes.start(settings)
            served = pool.submit(mirror_processes.build_served, settings)
            disk.mount_pool(settings)
            fingerprints = packages.result()
            archive.result()
            base = userland.base_image(settings, work)
            _start_hosts(settings, hosts, base)
            # The hosts are recorded even if the mirror's content could not be made, so that they can be inspected.
            failure = served.exception()
            record.write(settings, fingerprints, *({}, {}, {}) if failure else served.result())
            _clear_work(settings)
        _each(Host.wait_until_reachable, hosts)
        everything = existing(settings)
        if isinstance(failure, LabError):
            raise failure
        if failure:
            log = settings.state / "mirror-content.log"
            log.write_text("".join(traceback.format_exception(failure)))
            words = f"{type(failure).__name__}: {failure}"
            raise LabError(f"the hosts are up, but what the mirror serves is incomplete: {words}; see {log}")
        say(f"{len(everything)} host{'s' if len(everything) != 1 else ''} up; described in {settings.record}")


def _start_hosts(settings: Settings, hosts: Sequence[Host], base: Path) -> None:
    """Boot all hosts; missing ones are made, and running ones are left unchanged."""
    with step("hosts made and started"):
        missing = [host for host in hosts if not host.configured]
        _each(lambda host: host.create(base), missing)
        record.write_known_hosts(settings)

        def start(host: Host) -> None:
            if not host.running:
                host.start()
            host.resume()
            network.heal(settings, host.number)

        _each(start, hosts)


def down(settings: Settings) -> None:
    """Remove the lab except its cache: processes, groups, mounts, loop devices, namespaces, links and files."""
    with held(lock_path(settings)):
        for name in cgroups.existing(settings.tag):
            cgroups.Group(settings.tag, name, limits=True).kill()
        network.remove_all(settings)
        disk.remove_all(settings)
        cgroups.remove_all(settings.tag)
        _restore_limits(settings)
        shutil.rmtree(settings.state, ignore_errors=True)
        if settings.state.exists():
            raise LabError(f"{settings.state} could not be removed: see what holds it with `fuser -vm`")
        _clear_work(settings)


def left_behind(settings: Settings) -> list[str]:
    """Everything of the lab that exists on this machine, one line each; empty after `down`."""
    tag = settings.tag
    lines = [f"cgroup {tag}/{name}" for name in cgroups.existing(tag)]
    lines += [
        f"link {link}"
        for link in sorted(network.links())
        if link == settings.bridge or link.startswith(f"{tag}-h")
    ]
    lines += [f"namespace {path.name}" for path in Path("/run/netns").glob(f"{tag}-h*")]
    lines += [f"mount {point}" for point in disk.mounts_under(settings.state)]
    lines += [
        f"loop device {device}"
        for device in [*disk.loops_under(settings.pool_mount), *disk.loops_of(settings.pool_image)]
    ]
    lines += [f"folder {settings.state}"] if settings.state.exists() else []
    return lines
