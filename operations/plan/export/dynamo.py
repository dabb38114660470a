"""A release as a graph of NVIDIA Dynamo: its frontend, and Triton in a worker of Dynamo's own.

Dynamo finds workers by leases that they renew every few seconds and speaks a protocol of its own with them (ai-dynamo/dynamo,
lib/runtime/src/storage/kv/file.rs, docs/design-docs/request-plane.md): a server that runs elsewhere cannot be named in a file. What a
release can be is the model repository of `python3 -m dynamo.triton` (docs/backends/triton), in an image that has Triton and Dynamo.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from operations.plan.errors import PlanError
from operations.plan.export.kubernetes import environment, placement
from operations.plan.export.served import Served
from operations.plan.monitoring.yaml_text import document


def graph(one: Served, ranks: int, image: str, replicas: int, namespace: str, claim: str) -> str:
    """
    The DynamoGraphDeployment.

    + image: one with Triton of the release's version and Dynamo; Dynamo publishes none
    + claim: a PersistentVolumeClaim that holds a copy of data_root

    Raises PlanError for an engine of several ranks, which such a worker does not start, and for what is missing.
    """
    if ranks > 1:
        then = "use export kubernetes"
        raise PlanError("model", one.model, "one with an engine of one rank", then, reference="no-export")
    if not image:
        then = "build it from the release's image: docs/how-to/export.md"
        raise PlanError("--image", "nothing", "an image with Triton and Dynamo", then, reference="no-image")
    if not claim:
        raise PlanError("--claim", "nothing", "the claim that holds the release", reference="no-claim")
    head = (
        f"# Release {one.release} of {one.model}, written by tritonhost export: changes are overwritten.\n"
        "# KServe's gRPC alone. It was written without an operator of Dynamo to try it with.\n"
    )
    return document(
        {
            "apiVersion": "nvidia.com/v1beta1",
            "kind": "DynamoGraphDeployment",
            "metadata": {"name": one.name, "namespace": namespace},
            "spec": {"components": [_frontend(one, image), _worker(one, image, replicas, claim)]},
        },
        head,
    )


def _frontend(one: Served, image: str) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": image,
        "command": ["python3", "-m", "dynamo.frontend"],
        "args": ["--kserve-grpc-server", f"--http-port={one.ports[0]}"],
    }
    pod = {"spec": {"containers": [container]}}
    return {"name": "frontend", "type": "frontend", "replicas": 1, "podTemplate": pod}


def _worker(one: Served, image: str, replicas: int, claim: str) -> dict[str, Any]:
    mounts = [
        {"name": "data", "mountPath": target, "subPath": path, "readOnly": True}
        for path, target in one.mounts.items()
    ]
    container = {
        "name": "main",
        "image": image,
        "command": ["python3", "-m", "dynamo.triton"],
        "args": ["--model-repository=/release/model_repository"],
        "env": environment(replace(one, environment=one.without_cache)),
        "resources": {"limits": {"nvidia.com/gpu": str(one.gpus)}},
        "volumeMounts": mounts,
    }
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
    return {
        "name": "triton",
        "type": "worker",
        "replicas": replicas,
        "sharedMemorySize": f"{one.shm_mib}Mi",
        "podTemplate": {"spec": {**placement(one), "containers": [container], "volumes": [volume]}},
    }
