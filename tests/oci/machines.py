"""The part of OCI's stand-in that makes and ends instances: retry tokens, capacity, work requests and consoles.

Written from the API's reference (https://docs.oracle.com/en-us/iaas/api/#/en/iaas/20160918/) and from the texts of errors that
people report; no request of it was ever held against the real service.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, field
from typing import Any

Answer = tuple[int, Any]
MISSING = {
    "code": "NotAuthorizedOrNotFound",
    "message": "Authorization failed or requested resource not found.",
}
GONE = ("TERMINATING", "TERMINATED")
_BODY = {
    *("compartmentId", "availabilityDomain", "displayName", "shape", "sourceDetails", "createVnicDetails", "metadata"),
    *("freeformTags", "definedTags", "instanceOptions", "capacityReservationId", "computeClusterId"),
    "preemptibleInstanceConfig",
}  # fmt: skip


def host_key(name: str) -> str:
    """The public key of a machine of that name, as its console shows it."""
    kind = b"ssh-ed25519"
    secret = hashlib.sha256(name.encode()).digest()
    data = struct.pack(">I", len(kind)) + kind + struct.pack(">I", len(secret)) + secret
    return f"ssh-ed25519 {base64.b64encode(data).decode()}"


def printed(name: str) -> str:
    """What cloud-init prints to the console at the first boot, among the kernel's lines."""
    key = host_key(name)
    digest = base64.b64encode(hashlib.sha256(base64.b64decode(key.split()[1])).digest()).decode().rstrip("=")
    before = "<14>Dec  1 08:00:00 cloud-init: "
    lines = [
        "-----BEGIN SSH HOST KEY FINGERPRINTS-----",
        f"256 SHA256:{digest} root@{name} (ED25519)",
        "-----END SSH HOST KEY FINGERPRINTS-----",
        "-----BEGIN SSH HOST KEY KEYS-----",
        f"{key} root@{name}",
        "-----END SSH HOST KEY KEYS-----",
    ]
    return "[    9.1] systemd[1]: Reached target\n" + "\n".join(before + line for line in lines) + "\n"


@dataclass
class Machines:
    """What can be launched, and what becomes of it."""

    capacity: dict[str, int] = field(default_factory=dict)  # of an availability domain; not in it: enough
    capacity_late: dict[str, int] = field(default_factory=dict)  # the same, found out after the answer
    looks: int = 2  # lists until a launched instance runs
    captures: int = 1  # of a console, until it shows the keys
    broken: dict[str, str] = field(default_factory=dict)  # host -> why its launch fails after the answer
    wrong_image: str = ""
    tokens: dict[str, tuple[str, str]] = field(default_factory=dict)  # -> digest of the body, OCID
    bodies: list[dict[str, Any]] = field(default_factory=list)  # of each instance that was made
    pending: dict[str, int] = field(default_factory=dict)  # OCID -> lists that are left
    reasons: dict[str, str] = field(default_factory=dict)  # OCID -> of its work request
    taken: dict[str, int] = field(default_factory=dict)  # OCID -> captures of its console
    consoles: dict[str, str] = field(default_factory=dict)  # capture -> OCID
    busy: int = 0  # requests to terminate that are answered with a conflict
    forgotten: set[str] = field(default_factory=set)  # OCIDs that are listed no more
    kept_volumes: list[str] = field(default_factory=list)

    def look(self, instances: list[dict[str, Any]]) -> None:
        """A list was asked for: time has passed."""
        for instance in instances:
            ocid = instance["id"]
            if instance["lifecycleState"] == "TERMINATING":
                instance["lifecycleState"] = "TERMINATED"
            if instance["lifecycleState"] == "PROVISIONING":
                self.pending[ocid] -= 1
                if self.pending[ocid] <= 0:
                    instance["lifecycleState"] = "TERMINATING" if ocid in self.reasons else "RUNNING"

    def launch(self, tenancy: Any, body: dict[str, Any], token: str) -> Answer:
        """POST /instances."""
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        if token in self.tokens:
            before, ocid = self.tokens[token]
            found = next(each for each in tenancy.instances if each["id"] == ocid)
            if before != digest or found["lifecycleState"] in GONE:
                return 409, {
                    "code": "InvalidatedRetryToken",
                    "message": "The provided retry token was used in an earlier request",
                }
            return 200, found
        if (
            not 1 <= len(token) <= 64
            or {*body} - _BODY
            or not {"compartmentId", "availabilityDomain"} <= {*body}
        ):
            return 400, {"code": "InvalidParameter", "message": "Unable to process JSON input"}
        if body["sourceDetails"]["imageId"] == self.wrong_image:
            message = f"Shape {body['shape']} is not valid for image {self.wrong_image}."
            return 400, {"code": "InvalidParameter", "message": message}
        domain = body["availabilityDomain"]
        if self.capacity.get(domain, 1) <= 0:
            return 500, {"code": "InternalError", "message": "Out of host capacity."}
        if domain in self.capacity:
            self.capacity[domain] -= 1
        ocid = tenancy.add(
            body["displayName"],
            body["shape"],
            compartment=body["compartmentId"],
            availabilityDomain=domain,
            lifecycleState="PROVISIONING",
            freeformTags=body.get("freeformTags", {}),
            definedTags=body.get("definedTags", {}),
        )
        self.bodies.append(body)
        self.pending[ocid] = self.looks
        if self.capacity_late.get(domain, 1) <= 0:
            self.reasons[ocid] = "Out of host capacity."
        elif why := self.broken.get(body["displayName"]):
            self.reasons[ocid] = why
        self.tokens[token] = (digest, ocid)
        return 200, tenancy.instances[-1]

    def terminate(self, tenancy: Any, ocid: str, query: dict[str, str]) -> Answer:
        """DELETE /instances/{id}."""
        found = next((each for each in tenancy.instances if each["id"] == ocid), None)
        if found is None or found["lifecycleState"] == "TERMINATED":
            return 404, MISSING
        if self.busy > 0:
            self.busy -= 1
            message = f"instance {ocid} is currently being modified, try again later."
            return 409, {"code": "Conflict", "message": message}
        found["lifecycleState"] = "TERMINATING"
        if query.get("preserveBootVolume") == "true":
            self.kept_volumes.append(ocid)
        return 204, None

    def route(
        self, tenancy: Any, method: str, path: str, query: dict[str, str], data: bytes, token: str
    ) -> Answer | None:
        """The answer to a request about one machine; None: it is about something else."""
        what, _, rest = path.removeprefix("/20160918/").partition("/")
        known = {each["id"]: each for each in tenancy.instances}
        if what == "instances" and method == "POST":
            return self.launch(tenancy, json.loads(data), token)
        if what == "instances" and rest:
            if method == "DELETE":
                return self.terminate(tenancy, rest, query)
            return (200, known[rest]) if rest in known else (404, MISSING)
        if what == "workRequests":
            return self._work_requests(rest, query)
        if what == "instanceConsoleHistories":
            return self._console(tenancy, method, rest, data)
        return None

    def _work_requests(self, rest: str, query: dict[str, str]) -> Answer:
        if not rest:
            ocid = query["resourceId"]
            item = {
                "id": ocid.replace("instance", "workrequest"),
                "operationType": "Launch Instance",
                "status": "FAILED" if ocid in self.reasons else "SUCCEEDED",
                "compartmentId": query["compartmentId"],
                "percentComplete": 100.0,
                "timeAccepted": "2026-11-21T08:00:00.000Z",
            }
            return 200, [item]
        ocid = rest.partition("/")[0].replace("workrequest", "instance")
        why = self.reasons.get(ocid)
        error = {"code": "InternalError", "message": why, "timestamp": "2026-11-21T08:00:00.000Z"}
        return 200, [error] if why else []

    def _console(self, tenancy: Any, method: str, rest: str, data: bytes) -> Answer:
        if method == "POST":
            ocid = json.loads(data)["instanceId"]
            self.taken[ocid] = self.taken.get(ocid, 0) + 1
            capture = f"ocid1.consolehistory.oc1.iad.{len(self.consoles)}"
            self.consoles[capture] = ocid
            return 200, self._capture(capture, "REQUESTED")
        capture, _, of_it = rest.partition("/")
        if capture not in self.consoles:
            return 404, MISSING
        if method == "DELETE":
            return 204, None
        ocid = self.consoles[capture]
        if of_it:
            name = next(each["displayName"] for each in tenancy.instances if each["id"] == ocid)
            shows = self.taken[ocid] >= self.captures
            return 200, (printed(name) if shows else "[    0.0] Linux version 5.15\n").encode()
        return 200, self._capture(capture, "SUCCEEDED")

    def _capture(self, capture: str, state: str) -> dict[str, Any]:
        return {
            "id": capture,
            "instanceId": self.consoles[capture],
            "compartmentId": "ocid1.compartment.oc1..aaaagpus",
            "availabilityDomain": "Uocm:IAD-AD-1",
            "lifecycleState": state,
            "timeCreated": "2026-11-21T08:00:00.000Z",
        }
