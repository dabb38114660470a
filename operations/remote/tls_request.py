"""A request over TLS to a program of a host, whose certificate is compared with the inventory's."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping

ASKED_SECONDS = 10
OTHER_CERTIFICATE = "found another certificate, expected the inventory's"


def status_of(endpoint: str, certificate: bytes, path: str, headers: Mapping[str, str] | None = None) -> int:
    """
    The status of a GET at host:port. 0: another certificate was shown, and nothing was asked.

    + certificate: DER; who signed it does not matter

    Raises what a lost connection raises.
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    name, _, port = endpoint.rpartition(":")
    with (
        socket.create_connection((name, int(port)), timeout=ASKED_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname="tritonhost") as encrypted,
    ):
        if encrypted.getpeercert(binary_form=True) != certificate:
            return 0
        connection = http.client.HTTPConnection(name, int(port))
        connection.sock = encrypted
        connection.request("GET", path, headers=dict(headers or {}))
        return connection.getresponse().status
