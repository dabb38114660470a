"""Hosts of an inventory that serve no model: what tells them apart, and which of the inventory's keys mean something to them."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from operations.plan.inventory import load_balancer_settings, monitoring_server_settings

# the key that makes a host one of them -> the group that they are in
GROUPS = {
    monitoring_server_settings.KEY: monitoring_server_settings.GROUP,
    load_balancer_settings.KEY: load_balancer_settings.GROUP,
}
# what all.py says of models and servers is not for them
KEPT = frozenset(
    (
        *(
            "model",
            "docker_repository_url",
            "docker_gpg_key_url",
            "docker_gpg_fingerprint",
            "docker_packages",
        ),
        *("nvidia_container_toolkit_repository_url", "nvidia_container_toolkit_gpg_key_url"),
        *("nvidia_container_toolkit_gpg_fingerprint", "nvidia_container_toolkit_packages"),
        *(
            "system_repositories",
            "extra_packages",
            "version_lock",
            "package_lock_wait_s",
            "waivers",
            "expose",
        ),
        *("selinux", "start_timeout_s", "drain_s", "haproxy_packages", "docker_daemon_settings"),
        *("docker_hub_registry", "image_digests", *GROUPS),
    )
)


def kind_of(data: Mapping[str, Any]) -> str:
    """The key that makes a host one without a model; empty: it serves."""
    return next((key for key in GROUPS if data.get(key) is not None), "")


def kept(data: Mapping[str, Any], known: Container[str]) -> dict[str, Any]:
    """
    A host's own keys; of a host without a model those that mean something to it, since all.py has what the others need as well.

    + known: all keys of an inventory: a misspelt one stays, and is refused
    """
    if not kind_of(data):
        return dict(data)
    return {key: value for key, value in data.items() if key in KEPT or key not in known}
