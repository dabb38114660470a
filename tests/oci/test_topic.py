"""A message to a topic of OCI Notifications: signed, tried once, and in one line where it is not taken."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from operations import notification_sender
from operations.intake import secrets
from tests.oci.conftest import Controller
from tests.oci.service import COMPARTMENT, Fault, Tenancy

CHECKOUT = Path(__file__).resolve().parents[2]
TOPIC = "ocid1.onstopic.oc1.iad.aaaatopic"
BODY = '{"version": 1, "event": "down"}'


@pytest.fixture
def topic(controller: Controller, tenancy: Tenancy, monkeypatch: pytest.MonkeyPatch) -> Tenancy:
    """A topic that the inventory's own authentication may publish to."""
    inventory = controller.home / "oci.toml"
    inventory.write_text(
        f"[oci]\ncompartments = ['{COMPARTMENT}']\nconfig_file = '{controller.config}'\n"
        f"endpoint = '{controller.url}'\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(secrets, "INVENTORY", inventory)
    tenancy.topics[TOPIC] = []
    return tenancy


def sent(ocid: str = TOPIC) -> str:
    problem = notification_sender.oci_topic(ocid, "tritonhost down: " + "x" * 500, BODY)
    assert "\n" not in problem
    return problem


def test_message_is_published_with_a_signature_that_is_right(topic: Tenancy) -> None:
    assert sent() == ""
    [message] = topic.topics[TOPIC]
    assert message["body"] == BODY
    assert message["title"].startswith("tritonhost down: xxx") and len(message["title"]) == 200
    assert topic.refused == []


def test_message_that_is_not_signed_is_refused(topic: Tenancy) -> None:
    # what makes the test above worth something
    topic.api_keys.clear()
    assert "found HTTP 401 NotAuthenticated, expected a signature that OCI accepts" in sent()
    assert (topic.topics[TOPIC], topic.refused) == ([], ["unknown keyId"])


def test_wrong_clock_is_named(topic: Tenancy) -> None:
    topic.ahead = timedelta(hours=1)
    assert "this machine's clock is" in sent()


def test_topic_that_is_not_there_names_the_policy(topic: Tenancy) -> None:
    line = sent("ocid1.onstopic.oc1.iad.another")
    assert "publish to ocid1.onstopic.oc1.iad.another in us-ashburn-1: found HTTP 404" in line
    assert "to use ons-topics in compartment" in line


@pytest.mark.parametrize("status", [429, 500, 503])
def test_message_is_tried_once(topic: Tenancy, status: int) -> None:
    topic.faults.append(Fault("/20181201/", status=status, code="No"))
    line = sent()
    assert f"found HTTP {status} No" in line
    assert "gave up after one attempt" in line
    assert len(topic.requests) == 1


@pytest.mark.slow
def test_silence_is_given_up(topic: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notification_sender, "ANSWER_SECONDS", 1)
    topic.faults.append(Fault("/20181201/", seconds=3))
    began = time.monotonic()
    assert "found no answer in time" in sent()
    assert time.monotonic() - began < 2.5


@pytest.mark.slow
def test_process_publishes_within_its_time(topic: Tenancy, controller: Controller) -> None:
    # with the import of the SDK, in a project of its own
    project = controller.home / "project"
    (project / "inventories").mkdir(parents=True)
    shutil.copy(controller.home / "oci.toml", project / "inventories" / "oci.toml")
    given = {"oci_topic": TOPIC, "title": "tritonhost down", "body": BODY}
    done = subprocess.run(
        [sys.executable, "-m", "operations.notification_sender"],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        env={**os.environ, "TRITONHOST_PROJECT": str(project)},
        timeout=30,
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
    assert [message["body"] for message in topic.topics[TOPIC]] == [BODY]
