"""python -m operations.bundle make|verify|serve; exit code 2 for wrong usage, 1 for a failure."""

from __future__ import annotations

import argparse
import re
import signal
import sys
import threading
from pathlib import Path

from operations.bundle import sums
from operations.bundle.fetch import BundleError
from operations.bundle.make import make, releases_of, servers_of
from operations.bundle.server import BundleServer
from operations.intake.secrets import SecretMissing
from operations.plan.errors import PlanError
from operations.plan.machine.packages import SUPPORTED_OS_MAJORS


def _repository(text: str) -> tuple[str, str]:
    found = re.fullmatch(r"([a-z][a-z0-9-]{0,40})=(https?://\S+)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=URL, such as baseos=https://…/")
    return found[1], found[2]


def _url(text: str) -> str:
    if not re.fullmatch(r"http://[A-Za-z0-9.-]+:[0-9]{1,5}/?", text):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected http://ADDRESS:PORT, as hosts will reach the server"
        )
    return text.rstrip("/")


def _address(text: str) -> tuple[str, int]:
    address, _, port = text.rpartition(":")
    if not address or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r}: expected ADDRESS:PORT")
    return address, int(port)


PROGRAM = "python -m operations.bundle"


def parser(prog: str = PROGRAM) -> argparse.ArgumentParser:
    """The command's options. + prog: the name that its messages use"""
    parser = argparse.ArgumentParser(prog=prog, description="An air-gapped site's bundle.")
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser(
        "make", help="download everything that an inventory's hosts fetch into one directory"
    )
    made.add_argument("inventory", type=Path)
    made.add_argument("--output", type=Path, required=True, metavar="DIR")
    made.add_argument(
        "--url", type=_url, required=True, help="http://ADDRESS:PORT of the server, at the site"
    )
    made.add_argument(
        "--os", nargs="+", choices=SUPPORTED_OS_MAJORS, default=["9"], help="versions of Oracle Linux"
    )
    made.add_argument(
        "--system-repository", type=_repository, action="append", metavar="NAME=URL",
        help="a repository of the distribution; default: the inventory's system_repositories, or Oracle's",
    )  # fmt: skip
    made.add_argument(
        "--python",
        metavar="VERSION",
        help="version in images that install wheels; default: the support matrix's",
    )
    checked = commands.add_parser("verify", help="check every file against SHA256SUMS")
    checked.add_argument("bundle", type=Path)
    served = commands.add_parser("serve", help="serve it over HTTP, after verifying it")
    served.add_argument("bundle", type=Path)
    served.add_argument("--listen", type=_address, required=True, metavar="ADDRESS:PORT")
    return parser


def main(arguments: list[str] | None = None, prog: str = PROGRAM) -> int:
    """The command. Prints an error in one line."""
    given = parser(prog).parse_args(arguments)
    try:
        if given.command == "make":
            releases = releases_of(given.inventory, given.os)
            system = dict(given.system_repository) if given.system_repository else None
            servers = servers_of(given.inventory)
            count = make(
                releases, given.output, given.inventory.stem, given.url, system, given.python, servers
            )
            print(f"bundle: {count} files in {given.output}, for inventories with {given.output}/group_data")
        else:
            count = sums.verify(given.bundle)
            print(f"bundle: {count} files, each as {sums.NAME} lists it", flush=True)
            if given.command == "serve":
                _serve(given.bundle, given.listen)
    except PlanError as error:
        print(f"tritonhost: {error}", file=sys.stderr)
        return 2
    except (BundleError, SecretMissing, OSError) as error:
        print(f"bundle: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _serve(bundle: Path, address: tuple[str, int]) -> None:
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with BundleServer(address, bundle) as server:
        print(f"bundle: serves {bundle} at http://{address[0]}:{server.server_address[1]}", flush=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ended.wait()
        server.shutdown()


if __name__ == "__main__":
    sys.exit(main())
