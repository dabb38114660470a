"""The token must not leak: a gated model is deployed, and fails in several ways, at every verbosity.

During each run, the test reads many times a second the command lines and environments of all its processes here and of
all processes of the host, and the modes of the host's temporary files; afterwards it searches all files that remain.
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

TOKEN = "hf_lab_token_for_tests"  # the token that the lab's hub accepts; another one would be refused at once
GATED = {"weights": {"repository": "tritonhost-lab/smollm2-135m-gated", "gated": True}}
API = r"/api/models/tritonhost-lab/smollm2-135m-gated"
VERBOSITIES = [["-v"], ["-vv"], ["-vvv"], ["--debug"], ["-vvv", "--debug"]]

# The pattern comes on standard input and is kept in a file on tmpfs, which is excluded from the search.
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

# Reads every process of the host and every file that others may read, in a loop until /run/watching is removed.
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
    """What the test observed during a run."""

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
    """Read command lines and environments of the run's processes 50 times a second; list the processes every tenth time."""
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
    """Watch the host while the block runs."""
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
    """Deploy the gated model and watch both machines; `meanwhile` causes the failure during the run."""
    data = ["--data", f"profile_overrides={json.dumps(GATED)}"]
    return watched_deploy(site, [*data, *options], {"HF_TOKEN_PATH": str(token)}, meanwhile)


def watched_deploy(
    site: OneHost,
    options: Sequence[str],
    environment: Mapping[str, str],
    meanwhile: Callable[[subprocess.Popen[str]], None] = lambda process: None,
    secrets: Sequence[str] = (TOKEN,),
) -> Watched:
    """Deploy and watch both machines for some secrets; `meanwhile` causes the failure during the run."""
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
    """Where a secret was seen: during the run, in its output, and in the files it left."""
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
    Remove the largest file of the gated model, so that it has to be fetched again.

    The directory stays, so that a server that has it open need not be restarted for a test of the download.
    """
    site.root(
        f"cd {DATA_ROOT}/weights 2>/dev/null || exit 0; places=$(grep -l smollm2-135m-gated */manifest.json | xargs -r dirname); "
        "for place in $places .*.partial; do [ ! -d $place ] || find $place -name '*model.safetensors*' -delete; done"
    )


def downloading(site: OneHost) -> str:
    """Wait for the unit that downloads. Returns its name."""
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
    """Let sudo also write every command to its own log file."""
    place = "/etc/sudoers.d/10-log"
    site.root(f"printf 'Defaults logfile=/var/log/sudo.log\\n' >{place}; chmod 440 {place}")
    yield
    site.faults()
    site.root(f"rm -f {place} /var/log/sudo.log")


# Puts the token into a container's environment; a file of an image's layer, a label and a comment; sudo's log; command
# lines and an environment. It comes on standard input.
PLANT = """
umask 022; t=$(cat); for f in {planted}; do echo $t >$f; done
docker create --name planted --env T=$t {tag} true >/dev/null
docker cp /tmp/planted planted:/planted
docker commit --message "$t" --change "LABEL planted=$t" planted tritonhost/serving:planted >/dev/null
sudo true $t; logger $t
export T=$t; sleep 2 & sh -c 'sleep 2; :' $t & wait
"""


def test_token_search_finds_planted_tokens(converged: OneHost, tmp_path: Path) -> None:
    # otherwise the tests below could pass with a search that finds nothing
    planted = "/home/opc/.bash_history /var/log/planted /run/tritonhost/planted /tmp/planted"
    tag = converged.current()["image"]["tag"]
    watched = Watched(output=f"x {TOKEN}")
    environment = {**os.environ, "A": TOKEN}
    try:
        with host_watched(converged, watched):
            converged.root(PLANT.format(planted=planted, tag=tag), stdin=TOKEN)
            for command in (["sleep", "1"], ["sh", "-c", "sleep 1; :", TOKEN]):
                process = subprocess.Popen(command, env=environment, text=True)
                watch_client(process, watched)
        found = leaks(converged, watched)
    finally:
        # remove the token from the journal, too
        converged.root(
            "docker rm --force planted; docker rmi tritonhost/serving:planted; "
            f"rm -f {planted}; journalctl --quiet --rotate --vacuum-size=1K; : >/var/log/sudo.log"
        )
    places = (*planted.split(), "output", "journal", "/var/log/sudo.log", "docker image save")
    looked_into = ("client: environ of sleep", "client: cmdline of sh")
    described = ("docker container inspect", "docker image inspect")
    for place in (*places, *looked_into, *described):
        assert place in found, f"{place}: {found}"
    for kind in ("environ", "cmdline"):
        assert any(line.startswith("host: /proc/") and line.endswith(kind) for line in found), (
            f"{kind}: {found}"
        )
    assert any(line.startswith("history of ") for line in found), found
    assert any(line == "host: /tmp/planted" for line in found), found
    assert leaks(converged, Watched()) == []


@pytest.mark.requirement("R52")
def test_token_is_not_leaked_when_every_step_succeeds(site: OneHost, token: Path) -> None:
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


@pytest.mark.requirement("R52")
def test_token_is_not_leaked_when_a_step_fails(site: OneHost, token: Path) -> None:
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
            # the download continues by itself, and the token stays until it ends
            units = site.root("ls /run/tritonhost").split()
            site.root("systemctl stop 'tritonhost-weights-*'")
            assert any(unit.startswith("tritonhost-weights-") for unit in units), what
        assert leaks(site, watched) == [], what
        assert "tritonhost-weights" not in site.root("ls /run/tritonhost"), what
    site.faults()


def test_token_is_not_leaked_when_its_directory_is_full(site: OneHost, token: Path) -> None:
    without_weights(site)

    # the file system of the units' files has room only for the lock: the archive cannot be unpacked
    try:
        site.root("mount -t tmpfs -o size=8k,mode=700 none /run/tritonhost")
        watched = deploy(site, ["-vvv", "--debug"], token)
    finally:
        site.root("umount /run/tritonhost")
    assert watched.code != 0
    assert leaks(site, watched) == []


@pytest.mark.requirement("R53")
def test_steps_after_the_download_need_no_token(site: OneHost, token: Path) -> None:
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
