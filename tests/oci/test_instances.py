"""operations/intake/oci_instances.py and oci_session.py against a service that checks every signature."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import oci
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from operations.intake.oci_instances import Found, found_by
from operations.intake.oci_session import ATTEMPTS, open_session, retries
from operations.plan.errors import PlanError
from operations.plan.inventory.oci import from_table
from tests.oci.conftest import KEY, Controller
from tests.oci.service import COMPARTMENT, TENANCY, Fault, Tenancy, pem

WHERE = "inventories/oci.toml"


def find(controller: Controller, **changed: Any) -> Found:
    table = {
        "compartments": [COMPARTMENT],
        "config_file": str(controller.config),
        "endpoint": controller.url,
        "timeout_s": 5,
        **changed,
    }
    wanted = from_table({k: v for k, v in table.items() if v is not None}, WHERE)
    return found_by(wanted, WHERE, controller.home / "ssh_config", "/base/ssh_config")


def complaint(controller: Controller, **changed: Any) -> str:
    with pytest.raises(PlanError) as caught:
        find(controller, **changed)
    text = str(caught.value)
    assert text.startswith(WHERE)
    assert "\n" not in text
    return text


# --- what is found


@pytest.mark.slow
def test_every_page_becomes_hosts_and_groups(controller: Controller, tenancy: Tenancy) -> None:
    for number in range(1, 6):
        tenancy.add(f"gpu-{number}", "BM.GPU4.8" if number < 4 else "BM.GPU.H100.8")
    found = find(controller)
    assert [(name, data["ssh_hostname"], data["shape"]) for name, data in found.hosts] == [
        ("gpu-1", "10.0.0.11", "BM.GPU4.8"),
        ("gpu-2", "10.0.0.12", "BM.GPU4.8"),
        ("gpu-3", "10.0.0.13", "BM.GPU4.8"),
        ("gpu-4", "10.0.0.14", "BM.GPU.H100.8"),
        ("gpu-5", "10.0.0.15", "BM.GPU.H100.8"),
    ]
    assert found.groups["bm_gpu4_8"] == ["gpu-1", "gpu-2", "gpu-3"]
    assert found.groups["bm_gpu_h100_8"] == ["gpu-4", "gpu-5"]
    assert sum("/instances" in request for request in tenancy.requests) == 3
    assert tenancy.refused == []


@pytest.mark.slow
def test_host_address_is_that_of_the_primary_vnic(controller: Controller, tenancy: Tenancy) -> None:
    ocid = tenancy.add("gpu-1", public="203.0.113.9")
    second = {"privateIp": "10.9.9.9", "publicIp": None, "isPrimary": False}
    tenancy.attach(ocid, "ocid1.vnic.oc1.iad.second", COMPARTMENT, second)
    tenancy.attachments.reverse()
    assert find(controller).hosts[0][1]["ssh_hostname"] == "10.0.0.11"
    assert find(controller, address="public").hosts[0][1]["ssh_hostname"] == "203.0.113.9"


@pytest.mark.slow
def test_detached_vnic_is_ignored(controller: Controller, tenancy: Tenancy) -> None:
    tenancy.add("gpu-1")
    tenancy.attachments[0]["lifecycleState"] = "DETACHED"
    assert "gpu-1: found no primary VNIC" in complaint(controller)


@pytest.mark.slow
def test_subtree_compartments_are_searched(controller: Controller, tenancy: Tenancy) -> None:
    def compartment(name: str, parent: str, state: str = "ACTIVE") -> str:
        ocid = f"ocid1.compartment.oc1..{name}"
        item = {"id": ocid, "compartmentId": parent, "lifecycleState": state, "name": name}
        tenancy.compartments.append(item)
        return ocid

    child = compartment("child", COMPARTMENT)
    grandchild = compartment("grandchild", child)
    deleted = compartment("deleted", COMPARTMENT, "DELETED")
    for name, where in (("gpu-1", COMPARTMENT), ("gpu-2", grandchild), ("gpu-3", deleted)):
        tenancy.add(name, compartment=where)
    assert [name for name, _ in find(controller).hosts] == ["gpu-1"]
    assert [name for name, _ in find(controller, include_subtree=True).hosts] == ["gpu-1", "gpu-2"]
    # compartments may be named twice, and one below another
    both = [child, COMPARTMENT, child]
    assert len(find(controller, include_subtree=True, compartments=both).hosts) == 2


@pytest.mark.slow
def test_tenancy_tree_is_listed_in_one_query(controller: Controller, tenancy: Tenancy) -> None:
    for number in range(5):
        ocid = f"ocid1.compartment.oc1..c{number}"
        parent = tenancy.compartments[-1]["id"] if tenancy.compartments else TENANCY
        tenancy.compartments.append({"id": ocid, "compartmentId": parent, "lifecycleState": "ACTIVE"})
    tenancy.add("gpu-1", compartment="ocid1.compartment.oc1..c4")
    tenancy.add("gpu-2", compartment=TENANCY)
    assert len(find(controller, include_subtree=True, compartments=[TENANCY]).hosts) == 2
    listed = [request for request in tenancy.requests if "/compartments" in request]
    assert len(listed) == 3, "three pages of one list"


def test_excluded_instance_is_reported_with_its_state(
    controller: Controller, tenancy: Tenancy, capsys: pytest.CaptureFixture[str]
) -> None:
    tenancy.add("gpu-1")
    tenancy.add("gpu-2", lifecycleState="STOPPED")
    assert [name for name, _ in find(controller).hosts] == ["gpu-1"]
    assert capsys.readouterr().err == f"tritonhost: {WHERE}: left out, not RUNNING: gpu-2 (STOPPED)\n"


@pytest.mark.slow
def test_no_matching_host_lists_what_each_filter_excluded(controller: Controller, tenancy: Tenancy) -> None:
    tenancy.add("bastion", "VM.Standard.E4.Flex")
    tenancy.add("gpu-1", lifecycleState="STOPPED")
    tenancy.add("gpu-2", freeformTags={"stage": "test"})
    text = complaint(controller, freeform_tags={"stage": "live"})
    assert "found no hosts among 3 instances" in text
    assert "freeform_tags.stage live: bastion, gpu-1, gpu-2" in text
    text = complaint(controller, display_name="gpu-1")
    assert "display_name gpu-1: bastion, gpu-2; lifecycle_state RUNNING (STOPPED): gpu-1" in text


def test_compartment_without_instances_is_refused(controller: Controller) -> None:
    assert "found no hosts among 0 instances" in complaint(controller)


@pytest.mark.slow
def test_a_bastion_gets_an_ssh_configuration(controller: Controller, tenancy: Tenancy) -> None:
    tenancy.add("gpu-1")
    tenancy.add("gpu-2")
    found = find(controller, bastion="opc@203.0.113.7:2222")
    path = controller.home / "ssh_config"
    assert {data["ssh_config_file"] for _, data in found.hosts} == {str(path)}
    text = path.read_text(encoding="utf-8")
    assert "Include /base/ssh_config\n" in text
    assert "Host 203.0.113.7\n    StrictHostKeyChecking yes\n" in text
    assert "Host 10.0.0.11 10.0.0.12\n    ProxyJump opc@203.0.113.7:2222\n" in text
    before = path.stat().st_mtime_ns
    find(controller, bastion="opc@203.0.113.7:2222")
    assert path.stat().st_mtime_ns == before, "not written again"
    assert [entry.name for entry in controller.home.glob("ssh_config*")] == ["ssh_config"]


# --- who signs


def test_a_session_s_token_signs(controller: Controller, tenancy: Tenancy) -> None:
    tenancy.add("gpu-1")
    controller.sign_in()
    assert len(find(controller, auth="session_token").hosts) == 1
    assert tenancy.refused == []


def test_an_expired_session_is_refused_before_a_request(controller: Controller, tenancy: Tenancy) -> None:
    token = controller.sign_in()
    token.write_text(tenancy.token(KEY.public_key(), timedelta(seconds=-90)), encoding="utf-8")
    text = complaint(controller, auth="session_token")
    assert "a token that expired 9" in text
    assert "oci session authenticate --profile-name DEFAULT" in text
    assert tenancy.requests == []


@pytest.mark.slow
def test_rejected_session_error_says_how_to_sign_in(controller: Controller, tenancy: Tenancy) -> None:
    controller.sign_in()
    tenancy.issuer = rsa.generate_private_key(65537, 2048)
    text = complaint(controller, auth="session_token")
    assert "HTTP 401 NotAuthenticated" in text
    assert "oci session authenticate --profile-name DEFAULT" in text


@pytest.mark.parametrize("content", ["", "no token", "a.b.c"])
def test_a_file_without_a_token_is_refused(controller: Controller, content: str) -> None:
    controller.sign_in().write_text(content, encoding="utf-8")
    assert "found no token (not shown)" in complaint(controller, auth="session_token")


def test_session_profile_used_as_api_key_is_explained(controller: Controller) -> None:
    controller.sign_in()
    assert (
        'user missing, expected the keys of an API key; the profile holds a session: set auth = "session_'
        in (complaint(controller))
    )


@pytest.mark.slow
def test_an_instance_principal_signs(
    controller: Controller, tenancy: Tenancy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCI_METADATA_BASE_URL", f"{controller.url}/opc/v2")
    tenancy.add("gpu-1")
    controller.config.unlink()
    assert len(find(controller, auth="instance_principal").hosts) == 1
    assert tenancy.tokens_issued == 1
    assert tenancy.refused == []


@pytest.mark.slow
def test_instance_principal_without_a_policy_is_explained(
    controller: Controller, tenancy: Tenancy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCI_METADATA_BASE_URL", f"{controller.url}/opc/v2")
    tenancy.faults.append(Fault("/v1/x509", 401, "NotAuthenticated"))
    assert "is the instance in a dynamic group" in complaint(controller, auth="instance_principal")


@pytest.mark.slow
def test_instance_principal_outside_oci_is_refused(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    # nothing listens on the port of a socket that was closed
    monkeypatch.setenv("OCI_METADATA_BASE_URL", "http://127.0.0.1:9/opc/v2")
    text = complaint(controller, auth="instance_principal")
    assert "found no metadata service, expected to run on an OCI instance" in text


# --- configuration file and key


def test_oci_config_file_variable_is_read(
    controller: Controller, tenancy: Tenancy, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenancy.add("gpu-1")
    monkeypatch.setenv("OCI_CONFIG_FILE", str(controller.config))
    assert len(find(controller, config_file=None).hosts) == 1


def test_missing_configuration_file_is_refused(controller: Controller) -> None:
    text = complaint(controller, config_file="/nowhere/config")
    assert "config_file: found no file /nowhere/config" in text
    assert "oci setup config" in text


def test_directory_as_configuration_file_is_refused(controller: Controller) -> None:
    assert "Is a directory" in complaint(controller, config_file=str(controller.home))


@pytest.mark.parametrize(
    "content",
    [
        b"pass_phrase=CANARY\n",
        b"[DEFAULT]\nCANARY\n",
        b"[DEFAULT]\na=1\n[DEFAULT\n",
        b"[a]\n[a]\n",
        "[DEFAULT]\ntenancy=é".encode("latin-1"),
    ],
)
def test_a_malformed_configuration_file_is_not_quoted(controller: Controller, content: bytes) -> None:
    controller.config.write_bytes(content)
    text = complaint(controller)
    assert "expected [PROFILE] and key=value lines" in text
    assert "CANARY" not in text


def test_an_unknown_profile_gets_a_suggestion(controller: Controller) -> None:
    controller.config.write_text(controller.config.read_text() + "[PRODUCTION]\nregion=x\n", encoding="utf-8")
    assert "did you mean PRODUCTION?" in complaint(controller, profile="PRODUCTON")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"user": None}, "user missing"),
        ({"fingerprint": "12:34"}, "fingerprint malformed"),
        ({"tenancy": "me", "user": None}, "tenancy malformed, user missing"),
        ({"key_file": "/nowhere/key.pem"}, "key_file: found no file /nowhere/key.pem"),
        ({"region": None}, "region: found nothing, expected a region"),
        ({"key_content": "CANARY"}, "found key_content, expected key_file"),
    ],
)
def test_a_profile_that_cannot_sign_is_refused(
    controller: Controller, tenancy: Tenancy, changed: dict[str, str | None], expected: str
) -> None:
    controller.write(**changed)
    text = complaint(controller)
    assert expected in text
    assert "CANARY" not in text
    assert tenancy.requests == []


def test_key_readable_by_others_is_refused(controller: Controller, tenancy: Tenancy) -> None:
    controller.key.chmod(0o644)
    text = complaint(controller)
    assert "found mode 0644 of /" in text
    assert f"expected a key nobody else can read; run: chmod 600 {controller.key}" in text
    assert tenancy.requests == []


def test_key_of_an_unsupported_kind_is_refused(controller: Controller) -> None:
    def public() -> bytes:
        return KEY.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def private(key: Any, encryption: Any) -> bytes:
        data = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        assert isinstance(data, bytes)
        return data

    encrypted = private(KEY, serialization.BestAvailableEncryption(b"CANARY"))
    elliptic = private(ec.generate_private_key(ec.SECP256R1()), serialization.NoEncryption())
    for content, expected in (
        (public(), "found a public key"),
        (b"CANARY", "found no private key, or one with another passphrase"),
        (encrypted, "found an encrypted key, expected pass_phrase in the profile"),
    ):
        controller.key.write_bytes(content)
        text = complaint(controller)
        assert expected in text
        assert "CANARY" not in text
    controller.key.write_bytes(elliptic)
    assert "found a key of another kind, expected an RSA private key in PEM" in complaint(controller)
    controller.sign_in()
    assert "found a key of another kind" in complaint(controller, auth="session_token")
    controller.write()
    controller.write(pass_phrase="CANARYno")
    controller.key.write_bytes(encrypted)
    assert "CANARY" not in complaint(controller)


def test_an_encrypted_key_with_its_passphrase_signs(controller: Controller, tenancy: Tenancy) -> None:
    tenancy.add("gpu-1")
    encryption = serialization.BestAvailableEncryption(b"secret")
    controller.key.write_bytes(
        KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    controller.write(pass_phrase="secret")
    assert len(find(controller).hosts) == 1


# --- how the service fails


@pytest.mark.slow
def test_key_unknown_to_the_service_is_explained(controller: Controller, tenancy: Tenancy) -> None:
    controller.key.write_bytes(pem(rsa.generate_private_key(65537, 2048)))
    text = complaint(controller)
    assert f"list instances of {COMPARTMENT} in us-ashburn-1: found HTTP 401 NotAuthenticated" in text
    assert "is the public key of key_file among the API keys" in text
    assert "opc-request-id REQUEST/ID" in text
    assert set(tenancy.refused) == {"another signature"}
    assert len(tenancy.refused) <= 2, "a refused signature is not sent again"


@pytest.mark.parametrize(("minutes", "expected"), [(20, "s behind OCI's"), (-20, "s ahead of OCI's")])
def test_a_clock_that_is_off_is_named(
    controller: Controller, tenancy: Tenancy, minutes: int, expected: str
) -> None:
    tenancy.ahead = timedelta(minutes=minutes)
    text = complaint(controller)
    assert "HTTP 401" in text
    assert expected in text
    assert set(tenancy.refused) == {"date is not within the allowed clock skew"}


@pytest.mark.slow
def test_unreadable_compartment_error_names_the_policy(controller: Controller, tenancy: Tenancy) -> None:
    text = complaint(controller, compartments=["ocid1.compartment.oc1..elsewhere"])
    assert "found HTTP 404 NotAuthorizedOrNotFound" in text
    assert "Allow group GROUP to read instances in compartment COMPARTMENT" in text
    text = complaint(controller, compartments=["ocid1.compartment.oc1..elsewhere"], include_subtree=True)
    assert "Allow group GROUP to inspect compartments in tenancy" in text


def test_unreadable_vnic_error_names_the_policy(controller: Controller, tenancy: Tenancy) -> None:
    tenancy.add("gpu-1")
    tenancy.vnics.clear()
    assert "Allow group GROUP to inspect vnics in compartment" in complaint(controller)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        Fault("/20160918/instances", 429, "TooManyRequests", times=2, headers={"retry-after": "1"}),
        Fault("/20160918/instances", 500, "InternalServerError", times=3),
        Fault("/20160918/vnics/", 503, "ServiceUnavailable", times=1),
        Fault("/20160918/vnicAttachments", times=1),
    ],
    ids=["429", "500", "503", "cut off"],
)
def test_transient_failure_is_retried(controller: Controller, tenancy: Tenancy, fault: Fault) -> None:
    tenancy.add("gpu-1")
    tenancy.faults.append(fault)
    assert len(find(controller).hosts) == 1
    assert fault.times == 0


@pytest.mark.parametrize(
    ("said", "calls"),
    [("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate", 1), ("Connection reset by peer", ATTEMPTS)],
)
def test_untrusted_certificate_is_not_retried_but_a_reset_is(
    said: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    asked = []

    def ask() -> None:
        asked.append(1)
        raise oci.exceptions.RequestException(said)

    with pytest.raises(oci.exceptions.RequestException):
        retries().make_retrying_call(ask)
    assert len(asked) == calls


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("/20160918/instances", 429, "TooManyRequests"), "HTTP 429 TooManyRequests"),
        (Fault("/20160918/instances", 500, "InternalServerError"), "HTTP 500 InternalServerError"),
        (Fault("/20160918/instances", 502, body=b"<html>"), "HTTP 502"),
        (Fault("/20160918/instances"), "found no connection"),
    ],
    ids=["429", "500", "a proxy's", "cut off"],
)
def test_lasting_failure_ends_after_four_attempts(
    controller: Controller, tenancy: Tenancy, fault: Fault, expected: str
) -> None:
    tenancy.add("gpu-1")
    tenancy.faults.append(fault)
    text = complaint(controller)
    assert expected in text
    assert "gave up after 4 attempts" in text
    assert sum("/instances" in request for request in tenancy.requests) == 4


@pytest.mark.slow
def test_a_service_that_hangs_is_not_waited_for(
    controller: Controller, tenancy: Tenancy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operations.intake.oci_session.ATTEMPTS", 2)
    tenancy.add("gpu-1")
    tenancy.faults.append(Fault("/20160918/vnics/", seconds=1.5))
    text = complaint(controller, timeout_s=1)
    assert "found no answer in time" in text
    assert "gave up after 2 attempts of at most 1 s, or 90 s in all" in text


@pytest.mark.slow
def test_first_failure_cancels_waiting_requests(controller: Controller, tenancy: Tenancy) -> None:
    tenancy.slow = 0.1
    nobody_s = [f"ocid1.compartment.oc1..nobody{number}" for number in range(30)]
    assert "HTTP 404" in complaint(controller, compartments=nobody_s)
    assert len(tenancy.requests) < 60, "two for each compartment"


@pytest.mark.slow
def test_display_name_cannot_write_terminal_escapes(
    controller: Controller, tenancy: Tenancy, capsys: pytest.CaptureFixture[str]
) -> None:
    tenancy.add("gpu-1")
    tenancy.add("\x1b]0;owned\x07\n", lifecycleState="STOPPED")
    find(controller)
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert said.count("\n") == 1
    assert "\x1b" not in complaint(controller, display_name="gpu-2")


def test_session_repr_holds_no_secret(controller: Controller) -> None:
    controller.write(pass_phrase="CANARY")
    wanted = from_table(
        {"compartments": [COMPARTMENT], "config_file": str(controller.config), "endpoint": controller.url},
        WHERE,
    )
    assert "CANARY" not in repr(open_session(wanted, WHERE))


def test_a_bad_request_is_not_sent_again(controller: Controller, tenancy: Tenancy) -> None:
    tenancy.faults.append(Fault("/20160918/instances", 400, "InvalidParameter"))
    assert "HTTP 400 InvalidParameter" in complaint(controller)
    assert sum("/instances" in request for request in tenancy.requests) == 1


@pytest.mark.parametrize("body", [b"", b"{", b'"text"', b"[1, 2]"])
def test_an_answer_that_is_not_oci_s_is_refused(
    controller: Controller, tenancy: Tenancy, body: bytes
) -> None:
    tenancy.faults.append(Fault("/20160918/instances", 200, body=body))
    assert complaint(controller)


@pytest.mark.slow
def test_endless_paging_is_stopped(
    controller: Controller, tenancy: Tenancy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operations.intake.oci_session.MOST_PAGES", 3)
    fault = Fault("/20160918/instances", 200, body=b"[]", headers={"opc-next-page": "again"})
    tenancy.faults.append(fault)
    assert "more than 3 pages" in complaint(controller)


def test_endpoint_that_does_not_resolve_is_named(controller: Controller) -> None:
    text = complaint(controller, endpoint="https://{service}.{region}.oci.invalid")
    assert "found a name that does not resolve" in text


# --- the fake itself: what it takes for signed


def test_service_refuses_unsigned_requests(controller: Controller, tenancy: Tenancy) -> None:
    import urllib.error
    import urllib.request

    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{controller.url}/20160918/instances?compartmentId={COMPARTMENT}", timeout=5)
    caught.value.close()
    assert caught.value.code == 401
    assert tenancy.refused == ["no signature"]


@pytest.mark.slow
def test_instances_are_queried_in_parallel(controller: Controller, tenancy: Tenancy) -> None:
    for number in range(16):
        tenancy.add(f"gpu-{number:02d}")
    tenancy.page = 100
    tenancy.slow = 0.2
    assert len(find(controller).hosts) == 16
    # counted by the service: the time that it takes says more of what else the machine does
    assert tenancy.most_at_once >= 4
    assert sum("/vnics/" in request for request in tenancy.requests) == 16


def test_no_ssh_configuration_is_written_without_a_bastion(controller: Controller, tenancy: Tenancy) -> None:
    tenancy.add("gpu-1")
    assert "ssh_config_file" not in find(controller).hosts[0][1]
    assert not (controller.home / "ssh_config").exists()
