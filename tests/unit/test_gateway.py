"""TLS and API keys in front: what the inventory may say, what its files may hold, and what nginx is told."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from operations.intake import gateway_secrets
from operations.plan.catalog.version_floors import check_floors
from operations.plan.difference import difference
from operations.plan.difference_rows import ExpectedFile
from operations.plan.errors import PlanError
from operations.plan.explain import explain
from operations.plan.exposure import certificates, firewall, gateway, network
from operations.plan.inventory.settings import from_host_data
from operations.plan.inventory.versions import components
from operations.plan.observed.observed import LoadedGateway, Observed
from operations.plan.permissions import Permissions
from operations.plan.planning import plan_release
from operations.plan.release import Release
from operations.remote import host_files
from tests.unit.builders import DATA, DIGEST, converged, gpu, profile, settings
from tests.unit.builders import release as plain_release
from tests.unit.certificates import API_KEY, NOW, Pair, gateway_files, pair
from tests.unit.stubs import Stubs

IMAGE = "library/nginx:1.30.7"
PLACE = {
    "certificate": "h1: gateway.certificate: chain.pem",
    "private_key": "h1: gateway.private_key: key.pem",
}


@pytest.fixture(scope="module")
def made() -> Pair:
    return pair()


@pytest.fixture
def files(tmp_path: Path, made: Pair) -> dict[str, str]:
    return gateway_files(tmp_path, made)


def release_of(files: dict[str, str], **changed: Any) -> Release:
    """A release behind a gateway, which people reach from 10.0.0.0/16."""
    own = {k: changed.pop(k) for k in ("port", "image") if k in changed}
    data: dict[str, Any] = {
        "gateway": {**files, **own},
        "bind_address": "10.0.0.5",
        "allowed_sources": ["10.0.0.0/16"],
        "image_digests": {**DATA["image_digests"], own.get("image", IMAGE): DIGEST},
        **changed,
    }
    return plan_release(settings(**data), [gpu()], "9", profile())


def own_files(release: Release) -> dict[str, str]:
    assert release.gateway and release.settings.gateway
    return host_files.gateway_files(release.gateway, gateway_secrets.load(release.settings.gateway, "h1"))


# What a client without a key can hold


def test_gateway_limits_clients_without_a_key(tmp_path: Path) -> None:
    wanted = release_of(gateway_files(tmp_path, pair()))
    assert wanted.gateway and wanted.settings.gateway
    secrets = gateway_secrets.load(wanted.settings.gateway, "h1")
    text = host_files.gateway_files(wanted.gateway, secrets)["nginx.conf"]
    for line in ("limit_conn each 256;", "http2_max_concurrent_streams 32;", "worker_rlimit_core 0;"):
        assert f" {line}" in text.replace("\n", " ")
    health = text.split("location ~ ^/v2/health/")[1].split("proxy_pass http")[0]
    for line in (
        'if ($http_content_length ~ "[1-9]")',
        "if ($http_transfer_encoding)",
        "proxy_read_timeout 5s;",
    ):
        assert line in health
    # what somebody without a key asks for is no line of the journal
    log = text.split("log_format")[1].split(";")[0]
    assert "$uri" not in log and "$request_method" not in log and '"$asked"' in log
    assert "--memory 4g" in " ".join(wanted.gateway.run)


def test_proxy_limits_each_source() -> None:
    wanted = plain_release({"front": "haproxy"})
    text = host_files.rendered(wanted)["/etc/triton-front.cfg"].text
    assert "timeout http-request 10s" in text
    assert text.count("tcp-request connection reject if { sc0_conn_cur gt 1000 }") == 3


# API keys: M46


@pytest.mark.requirement("M46")
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "no key"),
        ("# a comment\n\n", "no key"),
        (f"\ufeffme {API_KEY}\n", "a byte order mark"),
        (f"me {API_KEY}\r\n", "Windows line ends"),
        (f"{API_KEY}\n", "1 word (not shown)"),
        (f"me {API_KEY} more\n", "a word after the key that is no limit (not shown)"),
        (f"me:you {API_KEY}\n", "a name with other characters"),
        (f"{'n' * 65} {API_KEY}\n", "a name with other characters"),
        ("me short-key\n", "a key of 9 characters"),
        (f"me {API_KEY[:31]}\n", "a key of 31 characters"),
        (f"me {API_KEY};\n", "a key of 37 characters, some of which no key has"),
        (f"me {API_KEY}.*\n", "a key of 38 characters, some of which no key has"),
        (f'me "{API_KEY}"\n', "a key of 38 characters, some of which no key has"),
        (f"me {API_KEY * 8}\n", "a key of 288 characters, some of which no key has"),
        (f"me {'ab' * 20}\n", "a key of few different characters"),
        (f"me hf_{API_KEY.replace('-', '').replace('_', '')}\n", "a Hugging Face token"),
        (f"me {API_KEY}\nyou {API_KEY}\n", "a key that another line has too"),
    ],
)
def test_invalid_key_list_is_refused_and_not_shown(text: str, found: str) -> None:
    with pytest.raises(PlanError) as error:
        gateway.api_keys(text, "h1: gateway.api_keys: keys")
    message = str(error.value)
    assert message.startswith("h1: gateway.api_keys: keys")
    assert f"found {found}" in message
    assert ", expected " in message
    assert API_KEY not in message and API_KEY[:31] not in message


def test_a_name_may_have_two_keys_and_a_line_a_comment() -> None:
    other = API_KEY.swapcase()
    found = gateway.api_keys(f"# who may\nshop {API_KEY}  # until March\n\nshop {other}\n", "x")
    assert found == ((("shop", API_KEY), ("shop", other)), {})


def test_key_map_matches_whole_keys_with_exact_case(files: dict[str, str]) -> None:
    secrets = gateway_secrets.load(release_of(files).settings.gateway, "h1")
    [(pattern, name)] = re.findall(r'^"~(.*)" (\S+);$', secrets.map, re.MULTILINE)
    assert name == "tests"
    for header, matches in (
        (f"Bearer {API_KEY}", True),
        (f"bearer {API_KEY}", True),
        (f"Bearer {API_KEY.lower()}", False),
        (f"Bearer {API_KEY}x", False),
        (f"Bearer {API_KEY[:-1]}", False),
        (f"Basic {API_KEY}", False),
        (f" Bearer {API_KEY}", False),
        (API_KEY, False),
        ("", False),
    ):
        assert bool(re.search(pattern, header)) == matches, header


# Certificates


def read(chain: bytes, key: bytes) -> tuple[str, bytes, Any, tuple[str, ...]]:
    return certificates.tls(chain, key, PLACE, NOW, "the gateway")


def test_chain_and_key_become_one_file(made: Pair) -> None:
    root = pair("root")
    own = pair(signer=root)
    text, certificate, ends, warnings = read(own.pem + root.pem, own.key_pem())
    assert text.encode().startswith(own.pem + root.pem)
    assert text.count("BEGIN PRIVATE KEY") == 1
    assert certificate and ends == own.certificate.not_valid_after_utc
    assert warnings == ()
    assert read(made.pem, made.key_pem())[0] == read(made.pem, made.key_pem())[0]


def test_certificate_and_key_mistakes_are_distinguished(made: Pair) -> None:
    root, other = pair("root"), pair("other")
    own = pair(signer=root)
    old = pair(ends=NOW - timedelta(hours=1), begins=NOW - timedelta(days=9))
    young = pair(begins=NOW + timedelta(days=2))
    weak = pair(rsa_bits=1024)
    for name, found, chain, key in (
        ("certificate", "no certificate", b"", made.key_pem()),
        ("certificate", "no certificate", b"something else", made.key_pem()),
        ("certificate", "a private key (not shown)", made.key_pem(), made.key_pem()),
        (
            "certificate",
            "certificate 2 is not the one that signed certificate 1",
            own.pem + other.pem,
            own.key_pem(),
        ),
        ("certificate", "certificate 1 ended on ", old.pem, old.key_pem()),
        ("certificate", "certificate 1 begins on ", young.pem, young.key_pem()),
        ("private_key", "no private key", made.pem, b""),
        ("private_key", "no private key", made.pem, made.pem),
        ("private_key", "a key with a passphrase", made.pem, made.key_pem(b"secret")),
        ("private_key", "the key of another certificate", made.pem, other.key_pem()),
        ("private_key", "the key of another certificate", root.pem + own.pem, own.key_pem()),
        ("private_key", "an RSA key of 1024 bits", weak.pem, weak.key_pem()),
    ):
        with pytest.raises(PlanError) as error:
            read(chain, key)
        assert str(error.value).startswith(f"{PLACE[name]}: found {found}"), str(error.value)
        assert "PRIVATE KEY-----" not in str(error.value)


def test_expiring_or_unnamed_certificate_is_a_warning() -> None:
    soon = pair(ends=NOW + timedelta(days=12, hours=1), named=False)
    warnings = read(soon.pem, soon.key_pem())[3]
    assert [re.sub(r"\d{4}-\d\d-\d\d", "DAY", text) for text in warnings] == [
        "the gateway's certificate ends on DAY, in 12 days; renew it",
        "the gateway's certificate has no subjectAltName: today's clients refuse it",
    ]


def test_exposed_missing_or_invalid_files_are_refused(files: dict[str, str]) -> None:
    wanted = release_of(files).settings.gateway
    assert wanted
    Path(files["api_keys"]).chmod(0o640)
    with pytest.raises(PlanError, match=r"^h1: gateway.api_keys: .*: found mode 0640, expected .*chmod 600"):
        gateway_secrets.load(wanted, "h1")
    Path(files["api_keys"]).chmod(0o600)
    for name in ("certificate", "private_key", "api_keys"):
        with pytest.raises(PlanError, match=rf"^h1: gateway\.{name}: /nowhere: found no such file"):
            gateway_secrets.load(wanted.model_copy(update={name: "/nowhere"}), "h1")
        with pytest.raises(PlanError, match=r"found something else, expected a file"):
            gateway_secrets.load(wanted.model_copy(update={name: "/dev"}), "h1")
    Path(files["api_keys"]).write_bytes(b"\xff\xfe")
    with pytest.raises(PlanError, match="found no text in UTF-8"):
        gateway_secrets.load(wanted, "h1")
    Path(files["api_keys"]).write_bytes(b"#" * (gateway.LARGEST_FILE + 1))
    with pytest.raises(PlanError, match="found more than 65536 bytes"):
        gateway_secrets.load(wanted, "h1")


def test_secrets_are_not_in_their_repr(files: dict[str, str]) -> None:
    secrets = gateway_secrets.load(release_of(files).settings.gateway, "h1")
    assert API_KEY not in repr(secrets)
    assert "PRIVATE" not in repr(secrets)


# What the inventory may say


@pytest.mark.parametrize("name", ["certificate", "private_key", "api_keys"])
@pytest.mark.parametrize(
    "value", ["-----BEGIN PRIVATE KEY-----\nMIIEvg\n", API_KEY, ["me", API_KEY], {"me": API_KEY}, 7]
)
def test_secret_in_the_inventory_is_refused_and_not_shown(
    files: dict[str, str], name: str, value: object
) -> None:
    with pytest.raises(PlanError) as error:
        from_host_data({**DATA, "gateway": {**files, name: value}}, "h1")
    assert str(error.value).startswith(
        f"h1: gateway.{name}: found something else (not shown), expected the path"
    )
    assert API_KEY not in str(error.value) and "MIIE" not in str(error.value)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"port": 443}, "gateway.port: found 443, expected a whole number from 1024 to 65535"),
        ({"port": "8443"}, 'gateway.port: found "8443", expected a whole number from 1024 to 65535'),
        (
            {"image": "library/nginx:latest"},
            'gateway.image: found "library/nginx:latest", expected a version of',
        ),
        ({"image": "library/nginx:1.31.7"}, "stable branch, whose second number is even"),
        ({"image": "docker.io/library/caddy:2.9.1"}, "expected an image of nginx"),
        ({"ports": 8443}, "unknown key ports"),
    ],
)
def test_invalid_gateway_table_is_refused(files: dict[str, str], changed: dict[str, Any], said: str) -> None:
    with pytest.raises(PlanError, match=re.escape(said)):
        from_host_data({**DATA, "gateway": {**files, **changed}}, "h1")


def test_gateway_port_of_a_server_is_refused(files: dict[str, str]) -> None:
    for port, front in ((8000, "none"), (18001, "haproxy"), (28002, "haproxy")):
        with pytest.raises(
            PlanError, match=f"gateway.port: found {port}, expected a port that no server has"
        ):
            release_of(files, port=port, front=front)


def test_nginx_has_a_floor(files: dict[str, str]) -> None:
    release = release_of(files, image="library/nginx:1.30.3")
    found = components(release.settings, release.profile)
    assert ("nginx", "1.30.3") in found
    with pytest.raises(PlanError, match=r"h1: nginx version: found 1\.30\.3, expected at least 1\.30\.7"):
        check_floors("h1", [("nginx", "1.30.3")], [], NOW.date())
    assert check_floors("h1", [("nginx", "1.30.7")], [], NOW.date()) == ()


# What becomes of it


def test_server_behind_a_gateway_listens_only_on_loopback(files: dict[str, str]) -> None:
    for front in ("none", "haproxy"):
        release = release_of(files, front=front)
        assert release.address == "127.0.0.1"
        published = re.findall(r"--publish=(\S+?):\d+:", "".join(release.files.values()))
        assert set(published) == {"127.0.0.1"}
        if front == "haproxy":
            bound = re.findall(r"bind (\S+):", host_files.rendered(release)["/etc/triton-front.cfg"].text)
            assert set(bound) == {"127.0.0.1"}


def test_only_the_gateway_s_port_is_opened(files: dict[str, str]) -> None:
    release = release_of(files)
    rules = firewall.rules(release.settings, release.ports)
    assert [rule.split('port port="')[1].split('"')[0] for rule in rules] == ["8443"]
    guard = host_files.rendered(release)["/etc/triton-guard.nft"].text
    assert "tcp dport { 8000, 8001, 8002, 8443 } jump published" in guard
    assert network.guard(release.settings, release.ports).fronted


def test_gateway_user_may_connect_only_to_loopback(files: dict[str, str]) -> None:
    guard = host_files.rendered(release_of(files))["/etc/triton-guard.nft"].text
    chain = guard.split("chain from_gateway {")[1].split("\n    }")[0]
    assert f"meta skuid {gateway.USER} jump from_gateway" in guard
    assert 'oifname { "lo", "triton0" } meta l4proto tcp accept' in chain
    assert chain.rstrip().endswith("counter drop")
    without = plan_release(settings(), [gpu()], "9", profile())
    assert "gateway" not in host_files.rendered(without)["/etc/triton-guard.nft"].text


def test_release_does_not_depend_on_the_certificate(files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = gateway_files(tmp_path / "other", pair("other"))
    assert release_of(files).id == release_of(other).id == release_of(files, port=9443).id


def test_nginx_passes_only_inference_paths(files: dict[str, str]) -> None:
    text = own_files(release_of(files))[gateway.CONFIGURATION]
    # \z of PCRE is \Z of Python
    patterns = [re.compile(p.replace("\\z", "\\Z")) for p in re.findall(r"location ~ (\^\S+\\z) \{", text)]
    assert len(patterns) == text.count("location ~ ") == 4
    exact = re.findall(r"location = (\S+) \{", text)

    def passes(path: str) -> bool:
        return path in exact or any(pattern.search(path) for pattern in patterns)

    for path in (
        *("/v2", "/v2/health/ready", "/v2/health/live", "/metrics", "/v2/models/ensemble"),
        *(
            f"/v2/models/a-b.c_1{version}/{verb}"
            for version in ("", "/versions/2")
            for verb in ("ready", "infer")
        ),
        *("/v2/models/ensemble/generate", "/v2/models/ensemble/generate_stream"),
        *(f"/inference.GRPCInferenceService/{name}" for name in gateway.GRPC_METHODS),
    ):
        assert passes(path), path
    for path in (
        *(
            "/",
            "/v2/repository/index",
            "/v2/repository/models/x/load",
            "/v2/models/x/config",
            "/v2/models/stats",
        ),
        *("/v2/logging", "/v2/trace/setting", "/v2/systemsharedmemory/status", "/v2/cudasharedmemory/status"),
        *(
            "/v2/models/x/infer/",
            "/v2/models/x\n/infer",
            "/v2/models/x y/infer",
            "/v2/models/x/versions/a/infer",
        ),
        *("/v2\n", "/v2/health/ready\n", "/v2/models/x/infer\n", "/v2/models/stats\n", "/metrics\n"),
        *("/v3/v2", "/metrics/", "/v2/models/x/trace/setting", "/v2/health/ready/x"),
        *(
            f"/inference.GRPCInferenceService/{name}"
            for name in (
                "RepositoryModelLoad",
                "ModelConfig",
                "LogSettings",
                "SystemSharedMemoryRegister",
                "",
            )
        ),
    ):
        assert not passes(path), path


def test_only_health_needs_no_key_and_no_key_is_forwarded(files: dict[str, str]) -> None:
    text = own_files(release_of(files))[gateway.CONFIGURATION]
    places = re.findall(r"^        location ([^{]+) \{\n(.*?)^        \}", text, re.MULTILINE | re.DOTALL)
    without = [name for name, body in places if 'if ($client = "") {' not in body]
    health = [r"~ ^/v2/health/(live|ready)\z", "= /v2/health/release", "@not_ready", "= /ready"]
    assert without == ["@without_key", "@too_many", *health]
    internal = next(body for name, body in places if name == "= /ready")
    assert internal.startswith("            internal;\n")
    for header in ('proxy_set_header Authorization "";', 'grpc_set_header Authorization "";'):
        assert header in text
    # or those of the whole server would not hold
    assert [name for name, body in places if "_set_header" in body] == []
    log = re.search(r"log_format request .*", text)
    assert log and "http_authorization" not in log[0] and "args" not in log[0] and "request_uri" not in log[0]


@pytest.mark.parametrize(("image", "directive"), [("library/nginx:1.22.1", False), (IMAGE, True)])
def test_http2_directive_matches_the_nginx_version(
    files: dict[str, str], image: str, directive: bool
) -> None:
    text = own_files(release_of(files, image=image))[gateway.CONFIGURATION]
    assert ("http2 on;" in text) == directive
    assert ("listen 10.0.0.5:8443 ssl http2;" in text) != directive


def test_container_runs_unprivileged_and_read_only(files: dict[str, str]) -> None:
    release = release_of(files)
    assert release.gateway
    words = " ".join(release.gateway.run)
    for option in (
        *("--read-only", "--cap-drop ALL", "--security-opt no-new-privileges", "--network host"),
        *("--user 60601:60601", "--pids-limit 256", "/var/lib/tritonhost/gateway:/etc/tritonhost:ro"),
    ):
        assert option in words, option
    assert "$image" in release.gateway.run


@pytest.mark.parametrize("label", ["", "<no value>"])
def test_foreign_gateway_container_is_refused(files: dict[str, str], stubs: Stubs, label: str) -> None:
    stubs.add("docker", f"echo '{label}'")
    done = stubs.run(f"set -- serve\n{own_files(release_of(files))['gateway.sh']}")
    assert done.returncode == 64
    assert done.stderr == (
        "tritonhost: container triton-gateway: found one that is not ours, expected none of that name; remove or rename "
        "it, or change service_name\n"
    )
    assert [call.split()[1] for call in stubs.calls] == ["inspect"]


def test_secrets_are_not_in_units_or_scripts(files: dict[str, str]) -> None:
    release = release_of(files)
    own = own_files(release)
    texts = {path: file.text for path, file in host_files.rendered(release).items()}
    open_files = {**texts, "conf": own["nginx.conf"], "script": own["gateway.sh"]}
    for path, text in open_files.items():
        assert API_KEY not in text and "PRIVATE KEY" not in text, path
    assert API_KEY not in json.dumps(release.document())


# What differs


def seen(release: Release, **changed: Any) -> tuple[Observed, list[ExpectedFile], LoadedGateway]:
    """A host with the gateway, but for what is changed; the expected files; what its unit should have written."""
    assert release.gateway
    own = own_files(release)
    expected = [*host_files.expected(release), *host_files.gateway_expected(release.gateway, own)]
    loaded = host_files.gateway_loaded(release.gateway, own)
    base = converged(release)
    unit = {"ActiveState": "active", "UnitFileState": "enabled"}
    observed = replace(
        base,
        file_digests={
            **base.file_digests,
            **{file.path: file.digest for file in expected},
            gateway.released(release.settings.state_root): host_files.digest(f"{release.id}\n"),
        },
        units={**base.units, "triton-gateway.service": unit},
        images={**base.images, release.gateway.image.tag: DIGEST},
        image_records={**base.image_records, release.gateway.image.key: DIGEST},
        gateway=loaded,
        gateway_modes=gateway.modes(release.gateway.directory),
    )
    return replace(observed, **changed), expected, loaded


def gateway_rows(release: Release, **changed: Any) -> list[tuple[str, str]]:
    observed, expected, loaded = seen(release, **changed)
    return [
        (row.what, row.found)
        for row in difference(release, observed, expected, loaded)
        if row.stage == "gateway"
    ]


def test_matching_gateway_is_not_a_difference(files: dict[str, str]) -> None:
    assert gateway_rows(release_of(files)) == []


@pytest.mark.parametrize(
    ("text", "found"), [("", "none: load balancers send nothing here"), ("another\n", "another release")]
)
def test_host_left_out_of_its_load_balancers_is_a_difference(
    files: dict[str, str], text: str, found: str
) -> None:
    release = release_of(files)
    path = gateway.released(release.settings.state_root)
    digests = {name: digest for name, digest in seen(release)[0].file_digests.items() if name != path}
    if text:
        digests[path] = host_files.digest(text)
    assert gateway_rows(release, file_digests=digests) == [("release for load balancers", found)]


def test_load_balancers_say_whose_request_it_is(files: dict[str, str]) -> None:
    assert "real_ip" not in own_files(release_of(files))[gateway.CONFIGURATION]
    text = own_files(release_of({**files, "proxies": ["10.0.1.5/32"]}))[gateway.CONFIGURATION]  # type: ignore[dict-item]
    assert "set_real_ip_from 10.0.1.5/32;" in text
    with pytest.raises(ValidationError, match="a network of at most /16"):
        release_of({**files, "proxies": ["10.0.0.0/8"]})  # type: ignore[dict-item]


def test_files_nginx_has_not_loaded_are_a_difference(files: dict[str, str]) -> None:
    release = release_of(files)
    assert release.gateway
    read = gateway_rows(release, gateway=LoadedGateway(release.gateway.key, "0" * 64))
    assert read == [("container triton-gateway", "not what its files say")]
    assert gateway_rows(release, gateway=LoadedGateway()) == [
        ("container triton-gateway", "of other options")
    ]


def test_changed_secret_is_a_difference_that_shows_no_secret(files: dict[str, str]) -> None:
    release = release_of(files)
    digests = dict(seen(release)[0].file_digests)
    digests["/var/lib/tritonhost/gateway/keys.map"] = "0" * 64
    del digests["/var/lib/tritonhost/gateway/tls.pem"]
    rows = gateway_rows(release, file_digests=digests)
    assert sorted(rows) == [
        ("/var/lib/tritonhost/gateway/keys.map", "another content"),
        ("/var/lib/tritonhost/gateway/tls.pem", "absent"),
    ]


def test_file_readable_by_others_is_a_difference(files: dict[str, str]) -> None:
    release = release_of(files)
    path = "/var/lib/tritonhost/gateway/tls.pem"
    modes = {**gateway.modes("/var/lib/tritonhost/gateway"), path: Permissions("444", "60601", "60601")}
    assert gateway_rows(release, gateway_modes=modes) == [(path, "mode:user:group 444:60601:60601")]


def test_files_left_by_a_killed_run_are_a_difference(files: dict[str, str]) -> None:
    release = release_of(files)
    left = "/var/lib/tritonhost/gateway/.new"
    modes = {**gateway.modes("/var/lib/tritonhost/gateway"), left: Permissions("750", "0", "60601")}
    assert gateway_rows(release, gateway_modes=modes) == [(left, "left by a run that was interrupted")]


def test_gateway_key_depends_on_wildcard_address_and_service(files: dict[str, str]) -> None:
    one = release_of(files).gateway
    other = release_of(files, bind_address="10.0.0.6").gateway
    everywhere = release_of(files, bind_address="0.0.0.0", expose=True).gateway
    assert one and other and everywhere
    assert one.key == other.key != everywhere.key
    assert one.key != replace(one, service="other-gateway").key


@pytest.mark.parametrize(("image", "kept"), [("library/nginx:1.28.2", False), (IMAGE, True)])
def test_upstream_keepalive_is_disabled_per_nginx_version(
    files: dict[str, str], image: str, kept: bool
) -> None:
    text = own_files(release_of(files, image=image))[gateway.CONFIGURATION]
    assert text.count("keepalive 0;") == (3 if kept else 0)


def test_removed_gateway_is_a_difference(files: dict[str, str]) -> None:
    with_one = seen(release_of(files))[0]
    without = plan_release(settings(), [gpu()], "9", profile())
    found = [row for row in difference(without, with_one, []) if row.stage == "gateway"]
    assert [(row.what, row.wanted) for row in found[:1]] == [
        ("triton-gateway.service", "stopped: the inventory has no gateway")
    ]
    assert [(row.found, row.wanted) for row in found[1:]] == [("left of a gateway", "absent")]


def test_explain_works_without_the_gateway_image_digest(files: dict[str, str]) -> None:
    for gateway_data in (files, {**files, "image": "library/nginx:1.28.2"}):
        shown = explain("gpt2-medium", {**DATA, "gateway": gateway_data}, "NVIDIA A10:1")
        assert f"{gateway_data.get('image', IMAGE).split(':')[0]}@" in shown
