"""A token that must be found nowhere: a gated model deployed and failed in several ways, at every verbosity.

While each run lasts, the command lines and environments of all its processes here and of all processes of the host are
read many times a second, and so are the modes of the host's short-lived files; afterwards everything that stays.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.lab.e2e.one_host import DATA_ROOT, DEPLOY, Done, OneHost
from tests.lab.settings import REPOSITORY

TOKEN = "hf_lab_token_for_tests"  # the one the lab's hub knows; a made-up one would get no further than its answer
GATED = {"weights": {"repository": "tritonhost-lab/smollm2-135m-gated", "gated": True}}
API = r"/api/models/tritonhost-lab/smollm2-135m-gated"
VERBOSITIES = [["-v"], ["-vv"], ["-vvv"], ["--debug"], ["-vvv", "--debug"]]

# The pattern comes on standard input and lives in a file on tmpfs, which is left out of what is searched.
PATTERN = "/dev/shm/token-pattern"
LISTS = "grep --recursive --files-with-matches --fixed-strings --binary-files=text --file"
AFTERWARDS = f"""
umask 077; cat >{PATTERN}
{LISTS} {PATTERN} /run /etc /root /home /tmp /var/tmp /var/log /var/spool /dev/shm {DATA_ROOT} \
    /var/lib/docker/containers /var/lib/docker/image /var/lib/docker/volumes /var/lib/systemd 2>/dev/null |
    grep -v -x -e {PATTERN} -e /run/planted
journalctl --no-pager --output=export | grep --quiet --text --fixed-strings --file {PATTERN} && echo journal
for kind in container image; do
    docker $kind inspect $(docker $kind ls --all --quiet) 2>/dev/null |
        grep --quiet --fixed-strings --file {PATTERN} && echo "docker $kind inspect"
done
for image in $(docker image ls --quiet); do
    docker image history --no-trunc $image | grep --quiet --fixed-strings --file {PATTERN} && echo "history of $image"
done
# what the serving image adds to its base is small; its base comes from a registry
docker image save $(docker image ls --quiet tritonhost/serving | head -1) 2>/dev/null |
    grep --quiet --text --fixed-strings --file {PATTERN} && echo docker image save
rm {PATTERN}"""

# Every process of the host, and every file that others may read, again and again; ends when /run/watching is gone.
WATCH = f"""
umask 077; cat >{PATTERN}; : >/run/watching; : >/run/seen; n=0
while [ -e /run/watching ]; do
    grep --files-with-matches --text --fixed-strings --file {PATTERN} /proc/[0-9]*/cmdline /proc/[0-9]*/environ \
        >>/run/seen 2>/dev/null
    find /run /tmp /var/tmp /dev/shm /home /root -xdev -type f -perm /077 -size -64k -print0 2>/dev/null |
        xargs -0 -r {LISTS} {PATTERN} >>/run/seen 2>/dev/null
    find /run/tritonhost -name token -type f -printf 'token %m %u\\n' >>/run/tokens 2>/dev/null
    n=$((n + 1)); echo $n >/run/rounds
done"""


@dataclass
class Watched:
    """What was seen of a run while it lasted."""

    output: str = ""
    code: int = -1
    rounds: int = 0
    seen: set[str] = field(default_factory=set)


def tree_of(root: int) -> list[int]:
    """The process and all its descendants, on this machine."""
    found = [root]
    children: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
            children.setdefault(parent, []).append(int(path.name))
    for pid in found:
        found += children.get(pid, [])
    return found


def watch_client(process: subprocess.Popen[str], watched: Watched, secrets: Sequence[str] = (TOKEN,)) -> None:
    """Command lines and environments of the run's own processes, 50 times a second; its tree anew each tenth time."""
    tree = [process.pid]
    while process.poll() is None:
        if watched.rounds % 10 == 0:
            tree = tree_of(process.pid)
        watched.rounds += 1
        for pid in tree:
            for name in ("cmdline", "environ"):
                try:
                    content = Path(f"/proc/{pid}/{name}").read_bytes()
                    if any(secret.encode() in content for secret in secrets):
                        watched.seen.add(f"client: {name} of {Path(f'/proc/{pid}/comm').read_text().strip()}")
                except OSError:
                    continue
        time.sleep(0.02)


@contextmanager
def host_watched(site: OneHost, watched: Watched, secrets: Sequence[str] = (TOKEN,)) -> Iterator[None]:
    """The host is watched while the block runs."""
    lines = "".join(f"{secret}\n" for secret in secrets)
    thread = threading.Thread(target=lambda: site.try_root(WATCH, stdin=lines))
    site.root("rm -f /run/tokens /run/seen /run/rounds")
    thread.start()
    until(lambda: site.try_root("test -s /run/rounds")[0] == 0)
    try:
        yield
    finally:
        site.root("rm -f /run/watching")
        thread.join()
        rounds = int(site.root("cat /run/rounds"))
        watched.seen |= {f"host: {line}" for line in site.root(f"cat /run/seen; rm {PATTERN}").splitlines()}
        assert rounds > 10, "it watched"


def until(condition: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def deploy(
    site: OneHost,
    options: Sequence[str],
    token: Path,
    meanwhile: Callable[[subprocess.Popen[str]], None] = lambda process: None,
) -> Watched:
    """A deploy of the gated model with both ends watched; `meanwhile` is what goes wrong while it runs."""
    data = ["--data", f"profile_overrides={json.dumps(GATED)}"]
    return watched_deploy(site, [*data, *options], {"HF_TOKEN_PATH": str(token)}, meanwhile)


def watched_deploy(
    site: OneHost,
    options: Sequence[str],
    environment: Mapping[str, str],
    meanwhile: Callable[[subprocess.Popen[str]], None] = lambda process: None,
    secrets: Sequence[str] = (TOKEN,),
) -> Watched:
    """A deploy with both ends watched for some secrets; `meanwhile` is what goes wrong while it runs."""
    watched = Watched()
    with host_watched(site, watched, secrets):
        process = subprocess.Popen(
            [*DEPLOY, *options],
            env={**site.environment, **environment},
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        watching = threading.Thread(target=watch_client, args=(process, watched, secrets))
        watching.start()
        wrong = threading.Thread(target=meanwhile, args=(process,))
        wrong.start()
        watched.output, _ = process.communicate()
        watched.code = process.returncode
        watching.join()
        wrong.join()
    return watched


def leaks(site: OneHost, watched: Watched, secrets: Sequence[str] = (TOKEN,)) -> list[str]:
    """Where a secret was seen: while the run lasted, in what it said, and in what it left."""
    found = sorted(watched.seen)
    log = REPOSITORY / "pyinfra-debug.log"
    for name, text in (
        ("output", watched.output),
        ("pyinfra-debug.log", log.read_text() if log.exists() else ""),
    ):
        found += [name] if any(secret in text for secret in secrets) else []
        found += [f"{name}: the archive that carries it, which anybody can unpack"] if "H4sI" in text else []
    lines = "".join(f"{secret}\n" for secret in secrets)
    return found + site.try_root(AFTERWARDS, stdin=lines)[1].splitlines()


def without_weights(site: OneHost) -> None:
    """
    The largest file of the gated model has to be fetched again.

    The directory stays: a server that has it open need not be started anew for a test of what is downloaded.
    """
    site.root(
        f"cd {DATA_ROOT}/weights 2>/dev/null || exit 0; places=$(grep -l smollm2-135m-gated */manifest.json | xargs -r dirname); "
        "for place in $places .*.partial; do [ ! -d $place ] || find $place -name '*model.safetensors*' -delete; done"
    )


def downloading(site: OneHost) -> str:
    """The unit that downloads, as soon as it runs."""
    listed = "systemctl list-units --plain --no-legend --state=running 'tritonhost-weights-*' | cut -d' ' -f1"
    until(lambda: bool(site.root(listed)))
    return site.root(listed)


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n", encoding="utf-8")
    path.chmod(0o600)
    return path


@pytest.fixture(autouse=True)
def sudo_logs(site: OneHost) -> Iterator[None]:
    """sudo writes every command it runs into a file of its own as well."""
    place = "/etc/sudoers.d/10-log"
    site.root(f"printf 'Defaults logfile=/var/log/sudo.log\\n' >{place}; chmod 440 {place}")
    yield
    site.faults()
    site.root(f"rm -f {place} /var/log/sudo.log")


def test_the_search_finds_what_is_there(converged: OneHost, tmp_path: Path) -> None:
    # so that the tests below cannot pass by searching nothing
    planted = "/home/opc/.bash_history /var/log/planted /run/tritonhost/planted /tmp/planted"
    watched = Watched(output=f"x {TOKEN}")
    environment = {**os.environ, "A": TOKEN}
    with host_watched(converged, watched):
        converged.root(
            f"umask 022; t=$(cat); for f in {planted}; do echo $t >$f; done; export T=$t; sleep 1 & : $t; logger $t; wait",
            stdin=TOKEN,
        )
        process = subprocess.Popen(["sleep", "1"], env=environment, text=True)
        watch_client(process, watched)
    found = leaks(converged, watched)
    # the journal is not emptied for a test: what is said above stays in it, so it is vacuumed
    converged.root(f"rm -f {planted}; journalctl --quiet --rotate --vacuum-size=1K; : >/var/log/sudo.log")
    for place in (*planted.split(), "output", "client: environ of sleep", "journal"):
        assert place in found, found
    assert any(line.startswith("host: /proc/") and line.endswith("environ") for line in found), found
    assert any(line == "host: /tmp/planted" for line in found), found
    assert leaks(converged, Watched()) == []


def test_a_token_is_seen_nowhere_while_everything_succeeds(site: OneHost, token: Path) -> None:
    without_weights(site)
    for number, options in enumerate(VERBOSITIES):
        watched = deploy(site, options, token)
        assert watched.code == 0, watched.output
        assert watched.rounds > 20
        assert "Download the weights" in watched.output
        assert leaks(site, watched) == [], options
        if number == 0:
            assert set(site.root("sort -u /run/tokens").splitlines()) == {"token 600 root"}, (
                "it was there, once"
            )
        assert site.root("find / -xdev -name token -path '*tritonhost*' -type f") == ""
        without_weights(site)


def test_a_token_is_seen_nowhere_when_a_step_fails(site: OneHost, token: Path) -> None:
    slow = {"path_regex": r"/model\.safetensors$", "method": "GET", "bytes_per_second": 4_000_000}

    def killed(process: subprocess.Popen[str]) -> None:
        site.root(f"systemctl kill --signal=KILL {downloading(site)}")

    def client_killed(process: subprocess.Popen[str]) -> None:
        downloading(site)
        time.sleep(1)
        process.kill()

    def interrupted(process: subprocess.Popen[str]) -> None:
        downloading(site)
        time.sleep(1)
        process.terminate()

    def nothing(process: subprocess.Popen[str]) -> None:
        pass

    cases: list[tuple[str, list[str], list[dict[str, object]], Callable[[subprocess.Popen[str]], None]]] = [
        ("the hub refuses it", ["-v"], [{"path_regex": API, "status": 401}], nothing),
        ("the hub fails", ["-vv"], [{"path_regex": API, "status": 500}], nothing),
        ("the download is killed", ["-vvv"], [slow], killed),
        ("the client is killed", ["--debug"], [slow], client_killed),
        ("the client is ended", ["-vvv", "--debug"], [slow], interrupted),
    ]
    for what, options, rules, meanwhile in cases:
        without_weights(site)
        site.faults(*rules)
        watched = deploy(site, options, token, meanwhile)
        assert watched.code != 0, what
        assert "Traceback" not in watched.output, what
        if "client" in what:
            # the download goes on by itself, and its token with it until it ends
            units = site.root("ls /run/tritonhost").split()
            site.root("systemctl stop 'tritonhost-weights-*'")
            assert any(unit.startswith("tritonhost-weights-") for unit in units), what
        assert leaks(site, watched) == [], what
        assert "tritonhost-weights" not in site.root("ls /run/tritonhost"), what
    site.faults()


def test_no_room_for_the_token_leaves_none(site: OneHost, token: Path) -> None:
    without_weights(site)

    # the file system of the units' files has room for the lock alone: the archive cannot be unpacked
    try:
        site.root("mount -t tmpfs -o size=8k,mode=700 none /run/tritonhost")
        watched = deploy(site, ["-vvv", "--debug"], token)
    finally:
        site.root("umount /run/tritonhost")
    assert watched.code != 0
    assert leaks(site, watched) == []


def test_later_steps_know_nothing_of_it(site: OneHost, token: Path) -> None:
    """An engine build that is killed, then a success: serving needs no token."""
    without_weights(site)
    site.root(f"rm -rf {DATA_ROOT}/engines/* {DATA_ROOT}/checkpoints/*")

    def killed(process: subprocess.Popen[str]) -> None:
        listed = "systemctl list-units --plain --no-legend --state=running 'tritonhost-checkpoint-*' 'tritonhost-engine-*' | cut -d' ' -f1"
        until(lambda: bool(site.root(listed)))
        site.root(f"systemctl kill --signal=KILL $({listed})")

    watched = deploy(site, ["-vvv", "--debug"], token, killed)
    assert watched.code != 0, watched.output
    assert leaks(site, watched) == []

    done: Done = site.deploy("-vvv", "--debug", overrides=GATED)
    assert done.code == 0, "the weights are there, so that no token is asked for"
    assert leaks(site, Watched(output=done.output)) == []
