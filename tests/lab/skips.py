"""Which tests of tests/verify are skipped on a lab's host, why, and where each of them runs instead.

A complete verification must skip exactly these: otherwise a fixture that starts to skip would count as success.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

GPU = "a host with a GPU"
ORACLE_LINUX = "a real Oracle Linux host"


@dataclass(frozen=True)
class Skip:
    """
    A test that is skipped.

    + test: its file and name, without the host's name
    + reason: a regular expression for the whole reason
    + runs_on: where it runs instead
    + feature: with this feature a lab's host runs it too; without a feature no lab runs it
    """

    test: str
    reason: str
    runs_on: str
    feature: str = ""


_NO_DRIVER = "no NVIDIA kernel driver on this host: its GPU is a stand-in"
_CONTAINER = "this host is a container: it has no kernel.*"
_ARTIFACT = "a profile of kind [a-z]+ has no {}"

SKIPS = (
    *(
        Skip(f"test_hardware.py::{name}", _NO_DRIVER, GPU)
        for name in ("test_container_sees_the_chosen_gpus", "test_every_chosen_gpu_holds_a_part_of_the_model")
    ),
    *(
        Skip(f"test_hardware.py::{name}", _CONTAINER, ORACLE_LINUX)
        for name in (
            "test_selinux_is_enforcing",
            "test_docker_selinux_matches_the_inventory",
            "test_server_is_confined_without_denials",
            "test_data_root_is_labelled_for_containers_and_by_a_rule",
            "test_only_root_reaches_the_boot_volume",
            "test_only_the_host_reaches_the_metadata_service",
            "test_firewall_opens_no_port_of_a_private_server",
            "test_repositories_hold_the_unpinned_packages",
            "test_an_update_of_the_system_resolves",
        )
    ),
    Skip("test_hardware.py::test_the_kernel_of_the_next_boot_has_a_driver", _CONTAINER, GPU),
    *(
        Skip(f"test_preflight.py::test_real_host_check_has_an_answer[{name}]", _CONTAINER, ORACLE_LINUX)
        for name in ("shape", "kernel")
    ),
    *(
        Skip(f"test_preflight.py::test_a_real_gpu_is_healthy[{name}]", _NO_DRIVER, GPU)
        for name in ("ECC errors", "memory repairs", "MIG", "Xid errors", "NVLink", "fabric manager")
    ),
    Skip(
        "test_host.py::test_local_disks_hold_the_data_root",
        "the inventory wants no local disks",
        "a host with local NVMe disks",
    ),
    Skip(
        "test_exposure.py::test_container_has_a_process_limit",
        "this host's kernel or container has no pids cgroup: .*",
        "a host with the pids controller",
    ),
    *(
        Skip(
            f"test_gateway.py::{name}",
            "the inventory has no gateway",
            "tests/lab/e2e/test_gateway.py",
            "gateway",
        )
        for name in (
            "test_gateway_files_match_and_its_secrets_are_private",
            "test_gateway_runs_with_its_current_files",
            "test_gateway_container_has_no_rights",
            "test_gateway_can_connect_only_to_the_host",
            "test_gateway_shows_the_inventory_s_certificate",
            "test_gateway_refuses_old_tls",
            "test_gateway_refuses_requests_without_a_key",
            "test_gateway_keys_reach_only_the_models",
            "test_journal_contains_no_key",
        )
    ),
    *(
        Skip(
            f"test_monitoring.py::{name}",
            "the inventory has no monitoring",
            "tests/lab/e2e/test_monitoring.py",
            "monitoring",
        )
        for name in (
            "test_metrics_files_are_root_s_and_as_rendered",
            "test_timer_runs_and_is_enabled",
            "test_metrics_are_fresh_and_describe_the_release",
            "test_metrics_report_no_changed_file",
        )
    ),
    *(
        Skip(
            f"test_exporters.py::{name}",
            "the inventory has no exporters",
            "tests/lab/e2e/test_monitoring.py",
            "exporters",
        )
        for name in (
            "test_exporters_run_from_their_images_and_at_boot",
            "test_exporter_containers_have_no_rights",
            "test_exporters_listen_where_the_inventory_says",
            "test_exporters_can_connect_to_nobody",
            "test_node_exporter_shows_the_host_and_its_own_metrics",
            "test_dcgm_exporter_shows_each_gpu",
        )
    ),
    *(
        # the documents are embeddings of its plans
        Skip(f"test_database.py::{name}", ".* looks nothing up", "tests/lab/guides: clip-search", "plan")
        for name in (
            "test_database_runs_and_is_enabled",
            "test_database_runs_its_image_and_has_no_network",
            "test_only_root_reaches_the_database_s_socket",
            "test_server_can_only_read_from_the_database",
            "test_database_has_the_schema_and_documents",
            "test_vectors_of_each_encoder_have_an_index",
        )
    ),
    *(
        Skip(f"test_door.py::{name}", "the inventory has no door", "tests/lab/e2e/test_door.py", "door")
        for name in (
            "test_door_runs_from_its_image_and_at_boot",
            "test_door_container_has_no_rights",
            "test_door_listens_on_the_loopback_alone",
            "test_door_can_connect_only_to_the_servers",
            "test_door_reads_no_secret_of_the_host",
            "test_door_offers_the_running_model",
            "test_door_gives_the_golden_answers",
            "test_gateway_lets_only_keys_through_to_the_door",
            "test_journal_of_the_door_has_no_fault",
        )
    ),
    *(
        Skip(
            f"test_artifacts.py::{name}[{kind}]",
            _ARTIFACT.format(kind),
            f"tests/lab/guides: {profiles}",
            kind,
        )
        for name in ("test_manifest_records_the_planned_inputs", "test_every_file_has_its_checksum")
        for kind, profiles in (
            ("source", "kind engine"),
            ("weights-2", "clip-search"),
            ("engine", "kind engine"),
            ("plan", "clip-search"),
            ("plan-2", "clip-search"),
        )
    ),
    Skip(
        "test_artifacts.py::test_source_is_at_its_commit_and_unchanged",
        "the templates come from the image or from this project: there is no checkout",
        "tests/lab/guides: kind engine with a release before 0.17",
        "checkout",
    ),
    Skip(
        "test_release.py::test_every_config_is_the_filled_template",
        "the models are this project's own: .*",
        "tests/lab/guides: kind engine",
        "source",
    ),
)


def features(release: Mapping[str, object], *further: str) -> set[str]:
    """
    The features of a host, by its release.json: kinds of artifacts, a checkout.

    + further: features that release.json does not show
    """
    artifacts = release["artifacts"]
    assert isinstance(artifacts, dict)
    checkout = {"checkout"} if "commit" in artifacts.get("source", {}).get("inputs", {}) else set()
    return {*artifacts, *checkout, *further}


def expected(has: Set[str]) -> dict[str, Skip]:
    """Test -> its skip, on a host that has these features."""
    return {skip.test: skip for skip in SKIPS if not skip.feature or skip.feature not in has}


def differences(skipped: Mapping[str, str], has: Set[str], whole: bool = True) -> Iterator[str]:
    """
    One line for each skip that is not expected, has another reason, or did not happen.

    + skipped: test -> its reason
    + whole: all of tests/verify ran, not a selection
    """
    wanted = expected(has)
    for test, reason in skipped.items():
        if test not in wanted:
            yield f"{test} was skipped, expected it to run on a host with {', '.join(sorted(has))}: {reason}"
        elif not re.fullmatch(wanted[test].reason, reason):
            yield f"{test} was skipped, found {reason!r}, expected {wanted[test].reason!r}"
    for test in wanted if whole else ():
        if test not in skipped:
            yield f"{test} ran, expected a skip: take it out of tests/lab/skips.py"
