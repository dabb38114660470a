"""One bridge; one network namespace and one cable per host. No route leads out of the lab."""

import json
import time
from pathlib import Path

from tests.lab.settings import Settings
from tests.lab.shell import attempt, run


def namespace(settings: Settings, number: int) -> str:
    return f"{settings.tag}-h{number}"


def links() -> set[str]:
    """Names of the network interfaces in the machine's own namespace."""
    return {entry["ifname"] for entry in json.loads(run("ip", "-json", "link", "show") or "[]")}


def create_bridge(settings: Settings) -> None:
    """Create the lab's bridge with the gateway's address."""
    if settings.bridge not in links():
        run("ip", "link", "add", settings.bridge, "type", "bridge")
    run("ip", "addr", "replace", f"{settings.gateway}/24", "dev", settings.bridge)
    run("ip", "link", "set", settings.bridge, "up")


def connect(settings: Settings, number: int) -> None:
    """Give host `number` its own namespace with one interface, eth0, on the bridge."""
    name = namespace(settings, number)
    if not Path("/run/netns", name).exists():
        run("ip", "netns", "add", name)
    if attempt("ip", "-n", name, "link", "show", "eth0").returncode != 0:
        attempt("ip", "link", "del", name)
        # A fixed hardware address: a host that is made again under the same address has no stale ARP entry.
        hardware = "02:00:" + ":".join(f"{int(part):02x}" for part in settings.address(number).split("."))
        run(
            "ip",
            "link",
            "add",
            name,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "address",
            hardware,
            "netns",
            name,
        )
    run("ip", "link", "set", name, "master", settings.bridge, "up")
    run("ip", "-n", name, "link", "set", "lo", "up")
    run("ip", "-n", name, "addr", "replace", f"{settings.address(number)}/24", "dev", "eth0")
    run("ip", "-n", name, "link", "set", "eth0", "up")


def disconnect(settings: Settings, number: int) -> None:
    """Remove the namespace and the cable of host `number`."""
    remove_by_name(namespace(settings, number))


def remove_by_name(name: str) -> None:
    """Remove the link before the namespace: with only the namespace, the link would disappear some time later."""
    attempt("ip", "link", "del", name)
    if Path("/run/netns", name).exists():
        run("ip", "netns", "del", name)


def cut(settings: Settings, number: int) -> None:
    """Cut the cable: packets are lost in both directions, connections stay open on both ends."""
    run("ip", "link", "set", namespace(settings, number), "down")


def heal(settings: Settings, number: int) -> None:
    run("ip", "link", "set", namespace(settings, number), "up")


def is_cut(settings: Settings, number: int) -> bool:
    output = run("ip", "-json", "link", "show", namespace(settings, number))
    return "UP" not in json.loads(output)[0]["flags"]


def remove_all(settings: Settings) -> None:
    """Remove the bridge, the cables and the namespaces of the lab."""
    prefix = f"{settings.tag}-h"
    for link in links():
        if link.startswith(prefix):
            attempt("ip", "link", "del", link)
    folder = Path("/run/netns")
    for found in sorted(folder.glob(f"{prefix}*")) if folder.is_dir() else []:
        remove_by_name(found.name)
    if settings.bridge in links():
        run("ip", "link", "del", settings.bridge)
    for _ in range(100):
        if not any(link == settings.bridge or link.startswith(prefix) for link in links()):
            break
        time.sleep(0.05)
