"""The command line of the lab."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from tests.lab import life, machine, network
from tests.lab.host import Host, existing
from tests.lab.lock import held
from tests.lab.mirror_processes import processes
from tests.lab.settings import MOST_HOSTS, VARIABLES, Settings, from_environment
from tests.lab.shell import LabError

DESCRIPTION = (
    "Oracle-Linux-shaped hosts on this machine, each with its own systemd, disk and network address."
)


def _host_number(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_HOSTS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a host: expected a number from 1 to {MOST_HOSTS}")
    return int(text)


def _free_space(text: str) -> int | None:
    if text == "none":
        return None
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: expected MB to leave free, or none")
    return int(text)


def _ssh(host: Host, command: Sequence[str]) -> None:
    host.require()
    argv = host.ssh(*command)
    sys.stdout.flush()
    os.execvp(argv[0], argv)


def _status(settings: Settings) -> None:
    for process in processes(settings):
        print(
            f"{process.name:9} {settings.gateway:14} {'running' if process.group.populated() else 'stopped'}"
        )
    for host in existing(settings):
        print(f"{host.name:9} {host.address:14} {host.describe()}, booted {host.boots} times")
    if not life.left_behind(settings):
        print("no lab is up")


def _start(host: Host) -> None:
    host.require(running=False)
    host.start()
    host.wait_until_reachable()


def _running(action: Callable[[Host], None]) -> Callable[[Host], None]:
    def checked(host: Host) -> None:
        host.require(running=True)
        action(host)

    return checked


def _kill(host: Host) -> None:
    host.require()
    host.kill()


def _cable(action: Callable[[Settings, int], None]) -> Callable[[Host], None]:
    return _running(lambda host: action(host.settings, host.number))


# Commands that change one host: what they do, and how.
ON_ONE_HOST: dict[str, tuple[str, Callable[[Host], None]]] = {
    "reboot": ("reboot host I cleanly and wait until it answers", _running(Host.reboot)),
    "kill": ("take the power from host I; its disk is kept", _kill),
    "stop": ("shut host I down cleanly; its disk is kept", _running(Host.stop)),
    "start": ("start a stopped host I and wait until it answers", _start),
    "cut": ("pull the network cable of host I", _cable(network.cut)),
    "heal": ("put the network cable of host I back", _cable(network.heal)),
    "pause": ("freeze every process of host I", _running(Host.pause)),
    "resume": ("let the processes of host I go on", _running(Host.resume)),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lab",
        description=DESCRIPTION,
        epilog=VARIABLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")

    up = command("up", "bring hosts 1..N up, and the mirror that serves them; hosts that run are left alone")
    up.add_argument("count", metavar="N", type=_host_number)
    command("down", "remove every trace of the lab but its cache; also after an interrupted `up`")
    ssh = command("ssh", "run CMD on host I as opc, or log in")
    ssh.add_argument("host", metavar="I", type=_host_number)
    ssh.add_argument("argv", metavar="CMD", nargs=argparse.REMAINDER)
    for name, (text, _) in ON_ONE_HOST.items():
        command(name, text).add_argument("host", metavar="I", type=_host_number)
    fill = command(
        "fill", "fill the root file system of host I until MB megabytes are free; none removes the filler"
    )
    fill.add_argument("host", metavar="I", type=_host_number)
    fill.add_argument("free", metavar="MB", type=_free_space)
    command("status", "say what runs")
    wanted = command("packages", "print the Debian packages that the lab needs")
    chosen = wanted.add_mutually_exclusive_group()
    chosen.add_argument("--check", action="store_true", help="only those that `make check` needs")
    chosen.add_argument("--test", action="store_true", help="those that `make test` needs too")
    chosen.add_argument("--vm", action="store_true", help="those that `make test-vm` needs too")
    wanted.add_argument("--install", action="store_true", help="install those that are missing")
    return parser


def _dispatch(arguments: argparse.Namespace) -> None:
    if arguments.command == "packages":
        what = next((name for name in ("check", "test", "vm") if getattr(arguments, name)), "lab")
        if arguments.install:
            machine.install(what)
        else:
            print(*machine.packages(what))
        return
    settings = from_environment()
    # a lab that runs can be used, and removed, on a full disk
    if lacking := machine.missing(settings, boots=arguments.command == "up"):
        raise LabError("\nlab: ".join(lacking))
    if arguments.command == "up":
        life.up(settings, arguments.count)
    elif arguments.command == "down":
        life.down(settings)
    elif arguments.command == "status":
        _status(settings)
    else:
        host = Host(settings, arguments.host)
        if arguments.command == "ssh":
            command = arguments.argv[1:] if arguments.argv[:1] == ["--"] else arguments.argv
            _ssh(host, command)
        # Commands on different hosts may run at the same time, but not during `up` or `down`.
        with held(life.lock_path(settings), shared=True):
            if arguments.command == "fill":
                host.require(running=True)
                host.fill(arguments.free)
            else:
                ON_ONE_HOST[arguments.command][1](host)


def main(argv: Sequence[str]) -> int:
    """Status 0 if the command succeeded, 1 with one line if it failed, 2 on wrong usage."""
    arguments = _parser().parse_args(argv)
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    try:
        _dispatch(arguments)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; the same command may be run again", file=sys.stderr)
        return 130
    return 0
