"""OCI's side of the wire, on 127.0.0.1: what is asked for, pages, and failures, for requests whose signature is right.

It checks signatures with the public key alone, as the service does, and takes none of the SDK's code to do it:
https://docs.oracle.com/en-us/iaas/Content/API/Concepts/signingrequests.htm. What it was written from is that page, the
API reference of each operation, and what the SDK sends; no request of it was ever held against the real service.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.oci.machines import Machines

TENANCY = "ocid1.tenancy.oc1..aaaatenancy"
USER = "ocid1.user.oc1..aaaauser"
COMPARTMENT = "ocid1.compartment.oc1..aaaagpus"
REGION = "us-ashburn-1"
SKEW = timedelta(minutes=5)


@cache
def key_named(name: str) -> rsa.RSAPrivateKey:
    """One key for each name: making one takes longer than most tests."""
    return rsa.generate_private_key(65537, 2048)


@dataclass
class Fault:
    """What the next requests to a path get instead of an answer."""

    path: str
    status: int = 0  # 0: nothing at all, for `seconds`
    code: str = ""
    times: int = 1_000_000
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    seconds: float = 0
    method: str = ""  # empty: all
    done: bool = False  # the request has its effect, and only its answer is this


@dataclass
class Tenancy:
    """What the service holds, whom it knows, and how it is to fail."""

    instances: list[dict[str, Any]] = field(default_factory=list)
    attachments: list[dict[str, Any]] = field(default_factory=list)
    vnics: dict[str, dict[str, Any]] = field(default_factory=dict)
    compartments: list[dict[str, Any]] = field(default_factory=list)
    secrets: dict[str, bytes] = field(default_factory=dict)
    topics: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # what was published to each
    page: int = 2  # items, whatever limit is asked for
    faults: list[Fault] = field(default_factory=list)
    ahead: timedelta = timedelta()  # of this machine's clock
    slow: float = 0  # seconds before each answer
    at_once: int = 0  # requests that wait for their answer now
    most_at_once: int = 0
    api_keys: dict[str, rsa.RSAPublicKey] = field(default_factory=dict)  # keyId -> key
    requests: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    # signs the tokens of sessions and of instance principals
    issuer: rsa.RSAPrivateKey = field(default_factory=lambda: key_named("issuer"))
    # the instance whose metadata service this is as well
    leaf: rsa.RSAPrivateKey = field(default_factory=lambda: key_named("leaf"))
    tokens_issued: int = 0
    machines: Machines = field(default_factory=Machines)

    def add(self, name: str, shape: str = "BM.GPU4.8", **more: Any) -> str:
        """An instance with one VNIC; returns its OCID."""
        number = len(self.instances) + 1
        ocid = f"ocid1.instance.oc1.iad.inst{number:04d}"
        vnic = f"ocid1.vnic.oc1.iad.vnic{number:04d}"
        public = more.pop("public", None)
        compartment = more.pop("compartment", COMPARTMENT)
        self.instances.append(
            {
                "id": ocid,
                "compartmentId": compartment,
                "displayName": name,
                "shape": shape,
                "lifecycleState": "RUNNING",
                "availabilityDomain": f"Uocm:IAD-AD-{number % 3 + 1}",
                "region": "iad",
                "timeCreated": "2026-11-21T08:00:00.000Z",
                "freeformTags": {},
                "definedTags": {},
                **more,
            }
        )
        self.attach(ocid, vnic, compartment, {"privateIp": f"10.0.0.{10 + number}", "publicIp": public})
        return ocid

    def attach(self, instance: str, vnic: str, compartment: str, data: dict[str, Any]) -> None:
        """One more VNIC of an instance; its first one unless `isPrimary` says otherwise."""
        self.attachments.append(
            {
                "id": vnic.replace("vnic", "attachment"),
                "instanceId": instance,
                "vnicId": vnic,
                "compartmentId": compartment,
                "availabilityDomain": "Uocm:IAD-AD-1",
                "lifecycleState": "ATTACHED",
                "timeCreated": "2026-11-21T08:00:00.000Z",
            }
        )
        self.vnics[vnic] = {
            "id": vnic,
            "compartmentId": compartment,
            "availabilityDomain": "Uocm:IAD-AD-1",
            "lifecycleState": "AVAILABLE",
            "isPrimary": True,
            "subnetId": "ocid1.subnet.oc1.iad.s",
            "timeCreated": "2026-11-21T08:00:00.000Z",
            **data,
        }

    def token(self, key: rsa.RSAPublicKey, lasts: timedelta = timedelta(hours=1)) -> str:
        """A token that says which key its bearer signs with."""
        self.tokens_issued += 1
        claims = {
            "sub": USER,
            "exp": datetime.now(UTC) + lasts,
            "jwk": jwt.algorithms.RSAAlgorithm.to_jwk(key),
        }
        return jwt.encode(claims, self.issuer, algorithm="RS256")

    def key_of(self, key_id: str) -> rsa.RSAPublicKey:
        """The public key that a signature of this keyId has to be made with; KeyError for an unknown keyId."""
        if key_id.startswith("ST$"):
            claims = jwt.decode(key_id[3:], self.issuer.public_key(), algorithms=["RS256"])
            found = jwt.algorithms.RSAAlgorithm.from_jwk(claims["jwk"])
            assert isinstance(found, rsa.RSAPublicKey)
            return found
        if key_id == f"{TENANCY}/fed-x509/{fingerprint(self.certificate())}":
            return self.leaf.public_key()
        return self.api_keys[key_id]

    def certificate(self) -> x509.Certificate:
        """The instance's own, which says whose tenancy it is in."""
        if not hasattr(self, "_certificate"):
            name = x509.Name(
                [
                    x509.NameAttribute(x509.NameOID.COMMON_NAME, "ocid1.instance.oc1.iad.controller"),
                    x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, f"opc-tenant:{TENANCY}"),
                ]
            )
            now = datetime.now(UTC)
            self._certificate = (
                x509.CertificateBuilder()
                .subject_name(name)
                .issuer_name(name)
                .public_key(self.leaf.public_key())
                .serial_number(1)
                .not_valid_before(now - timedelta(days=1))
                .not_valid_after(now + timedelta(days=1))
                .sign(self.leaf, hashes.SHA256())
            )
        return self._certificate


def fingerprint(certificate: x509.Certificate) -> str:
    return ":".join(f"{byte:02X}" for byte in certificate.fingerprint(hashes.SHA1()))


def pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class Unsigned(Exception):
    """The request is not signed as it has to be; the text says how."""


def check_signature(tenancy: Tenancy, method: str, target: str, headers: Any, body: bytes) -> None:
    """Raises Unsigned unless the request is signed by a key the tenancy knows, now, with all that must be signed."""
    match = re.fullmatch(r"Signature (.+)", headers.get("authorization", ""))
    if not match:
        raise Unsigned("no signature")
    fields = dict(re.findall(r'(\w+)="([^"]*)"', match[1]))
    if (fields.get("algorithm"), fields.get("version")) != ("rsa-sha256", "1"):
        raise Unsigned("another algorithm or version")
    signed = fields["headers"].split()
    # the federation endpoint asks for no host
    required = {"date", "(request-target)"} | (set() if target.startswith("/v1/x509") else {"host"})
    if method in ("POST", "PUT", "PATCH"):
        required |= {"content-length", "content-type", "x-content-sha256"}
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        if headers.get("x-content-sha256") != digest or headers.get("content-length") != str(len(body)):
            raise Unsigned("another body")
    if missing := required - set(signed):
        raise Unsigned(f"not signed: {', '.join(sorted(missing))}")
    try:
        sent = parsedate_to_datetime(headers.get("date", ""))
    except ValueError:
        raise Unsigned("no date") from None
    if abs(datetime.now(UTC) + tenancy.ahead - sent) > SKEW:
        raise Unsigned("date is not within the allowed clock skew")
    lines = [
        f"(request-target): {method.lower()} {target}"
        if name == "(request-target)"
        else f"{name}: {headers[name]}"
        for name in signed
    ]
    try:
        tenancy.key_of(fields["keyId"]).verify(
            base64.b64decode(fields["signature"]),
            "\n".join(lines).encode(),
            padding.PKCS1v15(),
            hashes.SHA256(),
        )
    except KeyError:
        raise Unsigned("unknown keyId") from None
    except jwt.PyJWTError as error:
        raise Unsigned(f"a token that is not valid: {type(error).__name__}") from None
    except InvalidSignature:
        raise Unsigned("another signature") from None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    tenancy: Tenancy

    def do_GET(self) -> None:
        self._answer(b"")

    def do_DELETE(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("content-length", 0))))

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, body: bytes) -> None:
        url = urlsplit(self.path)
        self.tenancy.requests.append(f"{self.command} {self.path}")
        self.tenancy.at_once += 1
        self.tenancy.most_at_once = max(self.tenancy.most_at_once, self.tenancy.at_once)
        time.sleep(self.tenancy.slow)
        self.tenancy.at_once -= 1
        for fault in self.tenancy.faults:
            if url.path.startswith(fault.path) and fault.times > 0 and fault.method in ("", self.command):
                fault.times -= 1
                if fault.done:
                    self._of_machines(url.path, {}, body)
                self._fail(fault)
                return
        if url.path.startswith("/opc/v2/"):
            self._metadata(url.path.removeprefix("/opc/v2/"))
            return
        try:
            check_signature(self.tenancy, self.command, self.path, self.headers, body)
        except Unsigned as error:
            self.tenancy.refused.append(str(error))
            message = "The required information to complete authentication was not provided or was incorrect."
            self._send(401, {"code": "NotAuthenticated", "message": message})
            return
        self._route(url.path, {name: values[0] for name, values in parse_qs(url.query).items()}, body)

    def _route(self, path: str, query: dict[str, str], body: bytes) -> None:
        tenancy = self.tenancy
        compartment = query.get("compartmentId", "")
        known = {TENANCY, COMPARTMENT, *(c["id"] for c in tenancy.compartments)}
        if path == "/v1/x509":
            data = base64.b64decode(json.loads(body)["publicKey"])
            key = serialization.load_der_public_key(data)
            assert isinstance(key, rsa.RSAPublicKey)
            self._send(200, {"token": tenancy.token(key)})
        elif (answer := self._of_machines(path, query, body)) is not None:
            status, data = answer
            if status == 204:
                self._raw(status, b"", {})
            elif isinstance(data, bytes):
                self._raw(status, data, {"content-type": "application/octet-stream"})
            else:
                self._send(status, data, {"opc-work-request-id": "ocid1.workrequest"})
        elif compartment and compartment not in known:
            self._missing()
        elif path == "/20160918/instances":
            if "page" not in query:
                tenancy.machines.look(tenancy.instances)
            listed = [i for i in tenancy.instances if i["id"] not in tenancy.machines.forgotten]
            self._list([i for i in listed if i["compartmentId"] == compartment], query)
        elif path == "/20160918/vnicAttachments":
            self._list([a for a in tenancy.attachments if a["compartmentId"] == compartment], query)
        elif path.startswith("/20160918/vnics/") and (vnic := path.rpartition("/")[2]) in tenancy.vnics:
            self._send(200, tenancy.vnics[vnic])
        elif path == "/20160918/compartments" or path == "/20160918/compartments/":
            if query.get("compartmentIdInSubtree") == "true":
                if compartment != TENANCY:
                    self._send(400, {"code": "InvalidParameter", "message": "not the tenancy"})
                    return
                self._list(tenancy.compartments, query)
                return
            self._list([c for c in tenancy.compartments if c["compartmentId"] == compartment], query)
        elif path.startswith("/20190301/secretbundles/") and (ocid := path.split("/")[3]) in tenancy.secrets:
            content = base64.b64encode(tenancy.secrets[ocid]).decode()
            bundle = {"contentType": "BASE64", "content": content}
            self._send(200, {"secretId": ocid, "versionNumber": 1, "secretBundleContent": bundle})
        elif path.startswith("/20181201/topics/") and (ocid := path.split("/")[3]) in tenancy.topics:
            # https://docs.oracle.com/en-us/iaas/api/#/en/notification/20181201/NotificationTopic/PublishMessage
            if self.command != "POST" or not path.endswith("/messages") or len(body) > 64 * 1024:
                self._send(400, {"code": "InvalidParameter", "message": "not a message"})
                return
            tenancy.topics[ocid].append(json.loads(body))
            self._send(202, {"messageId": f"message-{len(tenancy.topics[ocid])}"})
        else:
            self._missing()

    def _of_machines(self, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any] | None:
        token = self.headers.get("opc-retry-token", "")
        return self.tenancy.machines.route(self.tenancy, self.command, path, query, body, token)

    def _list(self, items: list[dict[str, Any]], query: dict[str, str]) -> None:
        start = int(query.get("page", "0"))
        end = start + self.tenancy.page
        more = {"opc-next-page": str(end)} if end < len(items) else {}
        self._send(200, items[start:end], more)

    def _missing(self) -> None:
        message = "Authorization failed or requested resource not found."
        self._send(404, {"code": "NotAuthorizedOrNotFound", "message": message})

    def _metadata(self, name: str) -> None:
        tenancy = self.tenancy
        if self.headers.get("authorization") != "Bearer Oracle":
            self._send(403, {})
            return
        certificate = tenancy.certificate().public_bytes(serialization.Encoding.PEM)
        answers = {
            "instance/region": b"iad",
            "identity/cert.pem": certificate,
            "identity/key.pem": pem(tenancy.leaf),
            "identity/intermediate.pem": certificate,
        }
        self._raw(200 if name in answers else 404, answers.get(name, b""), {"content-type": "text/plain"})

    def _fail(self, fault: Fault) -> None:
        time.sleep(fault.seconds)
        if not fault.status:
            self.close_connection = True
            return
        if fault.body is not None:
            self._raw(fault.status, fault.body, {"content-type": "application/json", **fault.headers})
            return
        self._send(fault.status, {"code": fault.code, "message": "no"}, fault.headers)

    def _send(self, status: int, data: Any, headers: dict[str, str] | None = None) -> None:
        self._raw(status, json.dumps(data).encode(), {"content-type": "application/json", **(headers or {})})

    def _raw(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        try:
            self.send_response_only(status)
            self.send_header("date", format_datetime(datetime.now(UTC) + self.tenancy.ahead, usegmt=True))
            self.send_header("opc-request-id", "REQUEST/ID")
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True  # the client has given up


@contextmanager
def serving(tenancy: Tenancy) -> Iterator[str]:
    """The service's URL, while the block runs."""
    handler = type("Handler", (Handler,), {"tenancy": tenancy})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
