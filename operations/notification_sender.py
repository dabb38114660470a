"""Send one message about a run, and print why it could not be sent. A process of its own, which ends in seconds whatever hangs.

Reads {"webhook": URL, "token_variable": NAME, "body": …} or {"oci_topic": OCID, "title": …, "body": …} from its standard input.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import sys
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import IO, Any

SECONDS = 4.5  # from the start of the process to its end
ANSWER_SECONDS = 4
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")


class _NotFollowed(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer like any other: the token is for the host that the inventory names."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        return None


def webhook(url: str, token_variable: str, body: str, loopback: bool) -> str:
    """
    POST the message. Returns why it was not taken, or an empty string; nothing of the answer, the URL's path or the token is in it.

    + loopback: the URL is this machine's, so that no proxy is asked
    """
    headers = {"Content-Type": "application/json", "User-Agent": "tritonhost"}
    if token_variable:
        token = os.environ.get(token_variable, "").strip()
        if not token:
            return f"{token_variable} is not set, expected the token"
        if not _TOKEN.fullmatch(token):
            return f"{token_variable} holds characters that no token has (not shown)"
        headers["Authorization"] = f"Bearer {token}"
    proxies = [urllib.request.ProxyHandler({})] if loopback else []
    opener = urllib.request.build_opener(_NotFollowed(), *proxies)
    try:
        request = urllib.request.Request(url, body.encode(), headers, method="POST")
        with opener.open(request, timeout=ANSWER_SECONDS):
            return ""
    except urllib.error.HTTPError as error:
        redirect = ", a redirect, which is not followed" if 300 <= error.code < 400 else ""
        return f"found HTTP {error.code}{redirect}, expected 2xx"
    except (OSError, HTTPException, ValueError) as error:
        return _said(error)


def _said(error: Exception) -> str:
    """A failed request in words of our own: the library's may quote the URL."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return "found a certificate that is not trusted; set SSL_CERT_FILE to its CA"
    if isinstance(reason, ssl.SSLError):
        return "found no TLS, expected https"
    if isinstance(reason, TimeoutError):
        return f"no answer within {ANSWER_SECONDS} s"
    if isinstance(reason, socket.gaierror):
        return "found a name that does not resolve"
    if isinstance(reason, ConnectionRefusedError):
        return "connection refused"
    return f"no whole answer ({type(reason).__name__})"


def oci_topic(topic: str, title: str, body: str) -> str:
    """Publish the message to a topic of OCI Notifications, signed as the inventory's other requests. Returns why not."""
    from operations.intake.oci_topic import publish
    from operations.plan.errors import PlanError

    try:
        publish(topic, title, body, ANSWER_SECONDS)
    except PlanError as error:
        return str(error)
    return ""


def main() -> int:
    """The program; the parent waits no longer than it lives."""
    signal.setitimer(signal.ITIMER_REAL, SECONDS)  # SIGALRM ends the process, also in a name server's silence
    given = json.load(sys.stdin)
    if "oci_topic" in given:
        problem = oci_topic(given["oci_topic"], given["title"], given["body"])
    else:
        problem = webhook(given["webhook"], given["token_variable"], given["body"], given["loopback"])
    print(problem)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
