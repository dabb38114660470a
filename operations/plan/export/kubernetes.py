"""A release as Kubernetes runs it: a Deployment or a LeaderWorkerSet, a Service, a budget for disruptions.

Sources: the API's reference of apps/v1, v1 and policy/v1, https://lws.sigs.k8s.io/docs/reference/leaderworkerset.v1/, and
triton-inference-server/server, deploy/k8s-onprem, for the probes. The label nvidia.com/gpu.product is written by NVIDIA's GPU
feature discovery: its name of the GPU, with - for blanks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from operations.plan.catalog.nccl import NCCL
from operations.plan.export.served import Served
from operations.plan.monitoring.yaml_text import document
from operations.plan.profile.field_types import mib_of
from operations.plan.release import TMP_SIZE

PORTS = ("http", "grpc", "metrics")
_LEADER = {"leaderworkerset.sigs.k8s.io/worker-index": "0"}


def product(gpu: str) -> str:
    """GPU feature discovery's label of a GPU. + gpu: nvidia-smi's name"""
    return re.sub(r"[^A-Za-z0-9._-]", "", gpu.replace(" ", "-"))


def manifests(
    one: Served,
    replicas: int,
    namespace: str = "default",
    claim: str = "",
    leader_worker_set: bool = False,
    nccl: bool = False,
) -> str:
    """
    The manifests of one release, as YAML.

    + replicas: nodes that serve it
    + claim: a PersistentVolumeClaim that holds a copy of data_root; empty: each node has it at its path
    + leader_worker_set: a set of one pod a group, where other tools expect one
    + nccl: also a ConfigMap of NCCL's settings for engines that span hosts
    """
    workload = (
        _leader_worker_set(one, replicas, namespace, claim)
        if leader_worker_set
        else _deployment(one, replicas, namespace, claim)
    )
    selector = _selector(one, leader_worker_set)
    found = [workload, _service(one, namespace, selector), _budget(one, namespace, selector)]
    if nccl and one.shape in NCCL:
        found.append(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(one, namespace, "-nccl"), "data": dict(NCCL[one.shape])}
        )  # fmt: skip
    return _head(one, claim) + "".join(f"---\n{document(each, head='')}" for each in found)


def _head(one: Served, claim: str) -> str:
    lines = [f"Release {one.release} of {one.model}, written by tritonhost export: changes are overwritten."]
    place = f"the claim {claim}" if claim else f"{one.data_root} of each node"
    lines.append(f"It is read from {place}, which has from a host of tritonhost, below {one.data_root}:")
    lines += [f"    {path}" for path in one.mounts]
    lines.append("An engine runs only on the GPU that it was made for, and only in this image.")
    return "".join(f"# {line}\n" for line in lines)


def _labels(one: Served) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "triton",
        "app.kubernetes.io/instance": one.name,
        "app.kubernetes.io/version": one.release,
        "app.kubernetes.io/managed-by": "tritonhost",
    }


def _selector(one: Served, leader_worker_set: bool) -> dict[str, str]:
    # without the version: a Deployment's selector cannot be changed
    found = {"app.kubernetes.io/name": "triton", "app.kubernetes.io/instance": one.name}
    return {**found, **_LEADER} if leader_worker_set else found


def _metadata(one: Served, namespace: str, suffix: str = "") -> dict[str, Any]:
    return {"name": f"{one.name}{suffix}", "namespace": namespace, "labels": _labels(one)}


def _deployment(one: Served, replicas: int, namespace: str, claim: str) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(one, namespace),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": _selector(one, False)},
            # a pod more would wait for a GPU that the old one still has
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "template": {"metadata": {"labels": _labels(one)}, "spec": _pod(one, claim)},
        },
    }


def _leader_worker_set(one: Served, replicas: int, namespace: str, claim: str) -> dict[str, Any]:
    rolling = {"maxSurge": 0, "maxUnavailable": 1}
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": _metadata(one, namespace),
        "spec": {
            "replicas": replicas,
            "startupPolicy": "LeaderCreated",
            "rolloutStrategy": {"type": "RollingUpdate", "rollingUpdateConfiguration": rolling},
            "leaderWorkerTemplate": {
                "size": 1,
                "workerTemplate": {"metadata": {"labels": _labels(one)}, "spec": _pod(one, claim)},
            },
        },
    }


def _pod(one: Served, claim: str) -> dict[str, Any]:
    volumes = [
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{one.shm_mib}Mi"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": f"{mib_of(TMP_SIZE)}Mi"}},
    ]
    mounts: list[dict[str, Any]] = [
        {"name": "shm", "mountPath": "/dev/shm"},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    if one.cache:
        volumes.append({"name": "cache", "emptyDir": {}})
        mounts.append({"name": "cache", "mountPath": one.cache})
    if claim:
        volumes.append({"name": "data", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}})
    for number, (path, target) in enumerate(one.mounts.items()):
        if claim:
            mounts.append({"name": "data", "mountPath": target, "subPath": path, "readOnly": True})
            continue
        name = f"data-{number}"
        host_path = {"path": f"{one.data_root}/{path}", "type": "Directory"}
        volumes.append({"name": name, "hostPath": host_path})
        mounts.append({"name": name, "mountPath": target, "readOnly": True})
    return {
        **placement(one),
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": one.stop_s + 30,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": one.user,
            "runAsGroup": one.group,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(one, mounts)],
        "volumes": volumes,
    }


def _container(one: Served, mounts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": "triton",
        "image": one.image,
        # not `command`: the image's entrypoint makes CUDA's libraries for an older driver visible
        "args": ["sh", "-c", literal(one.command)],
        "workingDir": "/tmp",
        "env": environment(one),
        "ports": [{"name": name, "containerPort": port} for name, port in zip(PORTS, one.ports, strict=True)],
        "resources": {"limits": {"nvidia.com/gpu": str(one.gpus)}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # an engine takes minutes to load: the others begin when it is there
        "startupProbe": _probe("ready", 10, -(-one.start_s // 10)),
        "readinessProbe": _probe("ready", 5, 3),
        "livenessProbe": _probe("live", 10, 3),
        "volumeMounts": mounts,
    }


def literal(text: str) -> str:
    """A text in which Kubernetes replaces nothing: it takes $(NAME) for a variable, and $$ for $."""
    return text.replace("$", "$$")


def environment(one: Served) -> list[dict[str, str]]:
    """The environment of the server's container."""
    return [{"name": name, "value": literal(value)} for name, value in one.environment.items()]


def placement(one: Served) -> dict[str, Any]:
    """The nodes that have the GPU that the engine was made for."""
    return {
        "nodeSelector": {"nvidia.com/gpu.product": product(one.gpu)},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    }


def _probe(what: str, period: int, failures: int) -> Mapping[str, Any]:
    return {
        "httpGet": {"path": f"/v2/health/{what}", "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _service(one: Served, namespace: str, selector: Mapping[str, str]) -> dict[str, Any]:
    # a LeaderWorkerSet makes a Service of its own name
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(one, namespace, "-api"),
        "spec": {
            "selector": dict(selector),
            "ports": [
                {"name": name, "port": port, "targetPort": name}
                for name, port in zip(PORTS, one.ports, strict=True)
            ],
        },
    }


def _budget(one: Served, namespace: str, selector: Mapping[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(one, namespace),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": dict(selector)}},
    }
