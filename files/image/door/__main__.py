"""Run the door, as its container does: the environment variable DOOR holds the configuration."""

from __future__ import annotations

import os
import signal
import sys

import uvicorn

from .app import Application
from .config import parse


def main() -> int:
    """Serve until SIGTERM, then finish what was begun, for drain_s seconds at most."""
    try:
        config = parse(os.environ["DOOR"])
    except (KeyError, ValueError, TypeError) as error:
        print(f"door: the variable DOOR cannot be read: {error!r}", file=sys.stderr)
        return 64
    # uvicorn sends itself the signal again once it has ended in order: that is no fault
    signal.signal(signal.SIGTERM, lambda *_: None)
    application = Application(config)
    uvicorn.run(
        application.asgi,
        host="127.0.0.1",
        port=config.listen,
        http="httptools",
        loop="asyncio",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=config.drain_s,
    )
    # requests that were given up at the end have counted what they used by now
    application.usage.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
