"""A message to a topic of OCI Notifications, signed as the inventory's other requests to OCI are."""

from __future__ import annotations

from dataclasses import replace

from operations.intake.oci_session import answered, open_session
from operations.intake.secrets import oci_access
from operations.plan.inventory.oci import OciAccess

PUBLISH = "Allow group GROUP to use ons-topics in compartment COMPARTMENT"
LONGEST_TITLE = 200  # characters


def publish(topic: str, title: str, body: str, seconds: int) -> None:
    """
    Publish a message; it is tried once.

    + topic: its OCID, whose fourth part is its region
    + seconds: for the answer

    Raises PlanError.
    """
    # imported here: the oci package takes a third of a second
    import oci

    given, where = oci_access()
    region = topic.split(".")[3]
    own = oci.regions.REGIONS_SHORT_NAMES.get(region, region)
    session = replace(open_session(_in_time(given, own, seconds), where), attempts=1)
    client = session.client(oci.ons.NotificationDataPlaneClient, "notification")
    details = oci.ons.models.MessageDetails(title=title[:LONGEST_TITLE], body=body)
    with answered(session, f"publish to {topic}", PUBLISH):
        client.publish_message(topic, details)


def _in_time(given: OciAccess, region: str, seconds: int) -> OciAccess:
    return given.model_copy(update={"region": region, "timeout_s": min(given.timeout_s, seconds)})
