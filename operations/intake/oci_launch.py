"""Make and end instances of OCI, and read what their consoles show. Each request may be sent again without a second effect."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from operations.intake.oci_instances import READ_INSTANCES
from operations.intake.oci_session import Session, all_pages, answered
from operations.plan.errors import PlanError

# https://docs.oracle.com/en-us/iaas/Content/Identity/policyreference/corepolicyreference.htm
LAUNCH = (
    "Allow group GROUP to manage instance-family in compartment COMPARTMENT; "
    "Allow group GROUP to use virtual-network-family in compartment COMPARTMENT; "
    "Allow group GROUP to use volume-family in compartment COMPARTMENT; "
    "Allow group GROUP to use compute-capacity-reservations in compartment COMPARTMENT; "
    "Allow group GROUP to use compute-clusters in compartment COMPARTMENT"
)
TERMINATE = "Allow group GROUP to manage instance-family in compartment COMPARTMENT"
CONSOLE = "Allow group GROUP to manage console-histories in compartment COMPARTMENT"
# What OCI says if an availability domain or fault domain has no such host left, and if the tenancy may have no more
_NO_CAPACITY = ("out of host capacity", "out of capacity", "LimitExceeded", "QuotaExceeded")
CAPTURE_SECONDS = 60
CONSOLE_BYTES = 1024 * 1024  # what OCI keeps


class NoCapacity(PlanError):
    """OCI has no such host there, or the tenancy may have no more of them there: another availability domain may do."""


class UsedToken(PlanError):
    """The retry token was used for an instance that is gone, or with another body."""


def launch(session: Session, what: str, details: dict[str, Any], token: str) -> str:
    """
    Ask for an instance; returns its OCID as soon as OCI has accepted the request.

    + what: for errors, such as `launch gpu-1 in Uocm:IAD-AD-1`
    + token: a request with the same one within 24 hours makes no second instance

    Raises NoCapacity, UsedToken, and PlanError for anything else.
    """
    client = _compute(session, gives_up=_out_of_capacity)
    kinds = ((_out_of_capacity, NoCapacity), (_used, UsedToken))
    with answered(session, what, LAUNCH, telling=True, kinds=kinds):
        return str(client.launch_instance(details, opc_retry_token=token).data.id)


def _compute(session: Session, gives_up: Callable[[Any], bool] | None = None) -> Any:
    import oci

    return session.client(oci.core.ComputeClient, "iaas", gives_up)


def out_of_capacity(text: str) -> bool:
    """Whether OCI says that it, or the tenancy, has none left: its error is a plain 500, only the message tells."""
    text = text.lower()
    return any(words.lower() in text for words in _NO_CAPACITY)


def _out_of_capacity(error: Any) -> bool:
    return out_of_capacity(f"{getattr(error, 'code', '')}: {getattr(error, 'message', '')}")


def _used(error: Any) -> bool:
    return bool(error.status == 409 and error.code == "InvalidatedRetryToken")


def state(session: Session, name: str, ocid: str) -> str:
    """An instance's lifecycle state now. Raises PlanError."""
    client = _compute(session)
    with answered(session, f"get {name}", READ_INSTANCES):
        return str(client.get_instance(ocid).data.lifecycle_state)


def reason(session: Session, name: str, compartment: str, ocid: str) -> str:
    """Why an instance ended before it ran, in OCI's words; empty if OCI does not say. Raises PlanError."""
    import oci

    client = session.client(oci.work_requests.WorkRequestClient, "iaas")
    with answered(session, f"list the work requests of {name}", READ_INSTANCES):
        found = all_pages(client.list_work_requests, compartment, resource_id=ocid)
        errors = [error for each in found for error in all_pages(client.list_work_request_errors, each.id)]
    return "; ".join(dict.fromkeys(f"{error.code}: {error.message}" for error in errors))


def terminate(session: Session, name: str, ocid: str, keep_boot_volume: bool) -> bool:
    """
    Ask OCI to end an instance. False: it is being changed, ask again.

    Raises PlanError. A 404 is one: of an instance that is gone, and of one that may not be ended.
    """
    import oci

    client = _compute(session)
    with answered(session, f"terminate {name}", TERMINATE, telling=True):
        try:
            client.terminate_instance(ocid, preserve_boot_volume=keep_boot_volume)
        except oci.exceptions.ServiceError as error:
            if error.status != 409:
                raise
            return False
    return True


def console(session: Session, name: str, ocid: str, sleep: Callable[[float], None] = time.sleep) -> str:
    """
    The last megabyte that an instance has printed to its serial console, which only the instance and OCI can write to.

    Empty if OCI cannot show it now. Raises PlanError if it may not be read.
    """
    import oci

    client = _compute(session)
    with answered(session, f"read the console of {name}", CONSOLE, telling=True):
        capture = client.capture_console_history({"instanceId": ocid}).data
        try:
            for _ in range(CAPTURE_SECONDS // 2):
                if capture.lifecycle_state in ("SUCCEEDED", "FAILED"):
                    break
                sleep(2)
                capture = client.get_console_history(capture.id).data
            if capture.lifecycle_state != "SUCCEEDED":
                return ""
            content = client.get_console_history_content(capture.id, offset=0, length=CONSOLE_BYTES).data
        finally:
            # a capture that stays costs nothing
            with suppress(oci.exceptions.ServiceError, oci.exceptions.RequestException):
                client.delete_console_history(capture.id)
    return content if isinstance(content, str) else bytes(content).decode("utf-8", "replace")
