"""The mirror's server: dnf, git, git-lfs and wheels on one port, the Hub on another, in one process until SIGTERM.

python -m tests.lab.mirror.server --cache DIR --bind 10.99.0.1
"""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.mirror.faults import Rules
from tests.lab.mirror.githttp import GitHandler
from tests.lab.mirror.handler import MirrorServer
from tests.lab.mirror.hub import HubHandler

HTTP_PORT = 8000
HUB_PORT = 8001


@dataclass(frozen=True)
class Addresses:
    """Where the running mirror answers."""

    http: str
    hub: str


@contextmanager
def serving(
    cache: Path, bind: str, http_port: int = HTTP_PORT, hub_port: int = HUB_PORT
) -> Iterator[Addresses]:
    """The mirror answers on both ports while the context lasts; port 0 takes a free one."""
    rules = Rules()
    with (
        MirrorServer((bind, http_port), GitHandler, cache, rules) as http,
        MirrorServer((bind, hub_port), HubHandler, cache, rules) as hub,
    ):
        threads = [threading.Thread(target=server.serve_forever, daemon=True) for server in (http, hub)]
        for thread in threads:
            thread.start()
        try:
            yield Addresses(*(f"http://{bind}:{server.server_address[1]}" for server in (http, hub)))
        finally:
            for server in (http, hub):
                server.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--cache", type=Path, required=True, help="the lab's cache: dnf/, git/, git-lfs/, hub/, pypi/"
    )
    parser.add_argument("--bind", required=True, help="address to answer on")
    parser.add_argument("--http-port", type=int, default=HTTP_PORT)
    parser.add_argument("--hub-port", type=int, default=HUB_PORT)
    given = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with serving(given.cache, given.bind, given.http_port, given.hub_port) as at:
        print(
            f"mirror: stand-in for the internet, http {at.http}, hub {at.hub}, cache {given.cache}",
            flush=True,
        )
        ended.wait()
    print("mirror: ended", flush=True)


if __name__ == "__main__":
    main()
