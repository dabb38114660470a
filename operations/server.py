"""The running server: start it, and ask it what is known."""

from __future__ import annotations

import time
from collections.abc import Iterable

from pyinfra import logger
from pyinfra.api.host import Host

from operations.detached import follow, printed, shell
from operations.golden import proven
from operations.plan.profile_tables import Golden, SearchGolden
from operations.scripts import host_script
from operations.tunnel import forwarded

# A start is over when it succeeded, or failed once: systemd would try again three times, a quarter of a minute apart,
# which is right at boot and only a delay where someone watches.
STARTED = ("running", "dead", "failed", "exited", "auto-restart")
FOLLOWED = 30  # seconds of a soak that one command watches


def start(host: Host, service: str) -> str:
    """Restart the unit and wait for it; what went wrong, or nothing."""
    unit = f"{service}.service"
    began = time.monotonic()
    ok, output = shell(
        host,
        f"systemctl reset-failed {unit} 2>/dev/null; "
        "echo started: $(date +%s); "
        "journalctl --quiet --no-pager --lines=1 --output=cat --show-cursor | sed -n 's/^-- cursor: /cursor: /p'; "
        f"systemctl restart --no-block {unit}",
    )
    if not ok:
        return f"{unit} did not start: {' '.join(output[-3:])}"
    started = printed(output, "started")
    ended = follow(host, unit, service, printed(output, "cursor"), STARTED, began)
    if ended.properties.get("SubState") == "running":
        return ""
    shell(host, f"systemctl stop {unit}")
    # The reason is among the first lines: a refused option is followed by pages of usage text.
    _, written = shell(
        host,
        f"journalctl --quiet --no-pager --output=cat --unit={unit} --since=@{started} "
        "| grep -i -E -m 12 '^E[0-9]{4} |error|unrecognized|invalid|failed|expected|found' || :",
    )
    for line in written:
        logger.error(f"{host.print_prefix}    {line[:300]}")
    return f"{unit} did not get ready, expected its models to answer; see: journalctl --unit {unit}"


def answered(
    host: Host, address: str, port: int, requests: Iterable[Golden | SearchGolden], seed: str = ""
) -> str:
    """
    Ask golden requests, one after the other; what is wrong with the first answer that is not the known one, or nothing.

    + address, port: Triton's gRPC endpoint as the host reaches it
    + seed: the documents among which a search finds its picture
    """
    with forwarded(host, address, port) as endpoint:
        for golden in requests:
            answer, problem = proven(endpoint, golden, seed)
            if problem:
                return problem
            shown = " ".join(answer.split())[:90]
            logger.info(f"{host.print_prefix}{golden.model} gives the golden answer: {shown}")
    return ""


def judged(host: Host, data_root: str, release_id: str, verdict: str, reason: str = "") -> None:
    """Remember on the host what became of a release: proven, failed or withdrawn, and why."""
    variables = {
        "DATA_ROOT": data_root,
        "RELEASE": release_id,
        "VERDICT": verdict,
        "REASON": " ".join(reason.split())[:300],
    }
    shell(host, host_script("judge.sh", variables))


def soaked(host: Host, service: str, seconds: int) -> str:
    """Watch the server for a while; how it ended, or nothing."""
    if seconds:
        logger.info(f"{host.print_prefix}watching it for {seconds} s")
    began = 0
    while began < seconds:
        # in parts, so that a lost connection is noticed
        part = min(FOLLOWED, seconds - began)
        variables = {"SERVICE": service, "SOAK": str(part)}
        ok, output = shell(host, host_script("soak.sh", variables), timeout=part + 30)
        if not ok:
            return " ".join(output[-1:]) or "the host did not answer while the server was watched"
        began += part
    return ""
