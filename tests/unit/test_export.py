"""`tritonhost export`: the texts are what other programs take, checked with what those programs publish."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes.client as api
import pytest
import yaml  # type: ignore[import-untyped]

from operations.plan.errors import PlanError
from operations.plan.explain import explained
from operations.plan.export import dynamo, endpoints, kubernetes, served, slurm
from operations.plan.inventory.hosts import read_group_data
from operations.plan.inventory.settings import from_host_data
from operations.plan.monitoring.watched import Target, Watched
from operations.plan.release import Release
from tests.command_line import PROJECT

IMAGE = f"registry.example/triton@sha256:{'1' * 64}"
DATA = read_group_data(PROJECT / "inventories/group_data/all.py")
# https://lws.sigs.k8s.io/docs/reference/leaderworkerset.v1/: the fields of each table, and which of them must be there
LEADER_WORKER_SET = {
    "spec": {"replicas", "leaderWorkerTemplate", "rolloutStrategy", "startupPolicy", "networkConfig"},
    "leaderWorkerTemplate": {"leaderTemplate", "workerTemplate", "size", "restartPolicy", "subGroupPolicy"},
    "rolloutStrategy": {"type", "rollingUpdateConfiguration"},
    "rollingUpdateConfiguration": {"partition", "maxUnavailable", "maxSurge"},
}


def release_of(model: str, **data: Any) -> Release:
    return explained(model, {**DATA, **data})


def one_of(model: str, **data: Any) -> served.Served:
    return served.served(release_of(model, **data), IMAGE, ("gpu-1", "gpu-2"))


def checked(value: Any, kind: str) -> None:
    """A value against the models that Kubernetes generates from its published schema: known keys, their types, those that must be there."""
    if found := re.fullmatch(r"(?i)list\[(.+)\]", kind):
        assert isinstance(value, list), kind
        for each in value:
            checked(each, found[1])
    elif found := re.fullmatch(r"(?i)dict[\[(]str, (.+)[\])]", kind):
        assert isinstance(value, dict), kind
        for each in value.values():
            checked(each, found[1])
    elif hasattr(api, kind) and kind != "object":
        model = getattr(api, kind)
        names = {outside: inside for inside, outside in model.attribute_map.items()}
        assert isinstance(value, dict), (kind, value)
        assert {*value} <= {*names}, (kind, {*value} - {*names})
        for name, inner in value.items():
            checked(inner, model.openapi_types[names[name]])
        # it raises where something that must be there is not
        model(**{names[name]: inner for name, inner in value.items()})
    elif kind in ("str", "int", "bool"):
        assert type(value) is {"str": str, "int": int, "bool": bool}[kind], (kind, value)
    else:
        assert kind in ("object", "datetime"), kind


def manifests(text: str) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(text) if each]


@pytest.mark.parametrize("claim", ["", "models"])
@pytest.mark.parametrize(
    "model", ["gpt2-medium", "llama-2-7b", "mixtral-8x7b", "llama-3.1-8b-llmapi", "clip-search"]
)
def test_manifests_are_as_kubernetes_publishes_them(model: str, claim: str) -> None:
    if model == "clip-search":
        with pytest.raises(PlanError, match="without a database"):
            one_of(model)
        return
    one = one_of(model, shape=None)
    text = kubernetes.manifests(one, 2, "serving", claim)

    deployment, service, budget = manifests(text)
    for each, kind in (
        (deployment, "V1Deployment"),
        (service, "V1Service"),
        (budget, "V1PodDisruptionBudget"),
    ):
        checked(each, kind)
        assert each["metadata"]["namespace"] == "serving"
    pod = deployment["spec"]["template"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert service["spec"]["selector"] == budget["spec"]["selector"]["matchLabels"]
    volumes = {each["name"] for each in pod["spec"]["volumes"]}
    [container] = pod["spec"]["containers"]
    assert {each["name"] for each in container["volumeMounts"]} == volumes
    targets = {each["mountPath"] for each in container["volumeMounts"]}
    assert {"/release", *one.mounts.values(), "/tmp", "/dev/shm"} <= targets
    ports = {each["name"] for each in container["ports"]}
    assert {each["targetPort"] for each in service["spec"]["ports"]} == ports


def test_a_check_of_manifests_can_fail() -> None:
    good = manifests(kubernetes.manifests(one_of("gpt2-medium"), 1))[0]
    for path, wrong in (
        (("spec", "replicass"), 1),
        (("spec", "replicas"), "1"),
        (("spec", "template", "spec", "containers", 0, "env"), {}),
        (("spec", "selector"), None),
    ):
        bad = json.loads(json.dumps(good))
        at = bad
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = wrong
        with pytest.raises((AssertionError, ValueError)):
            checked(bad, "V1Deployment")


def test_a_leader_worker_set_has_the_fields_of_its_reference() -> None:
    text = kubernetes.manifests(one_of("gpt2-medium"), 3, leader_worker_set=True)
    found, service, budget = manifests(text)

    assert found["apiVersion"] == "leaderworkerset.x-k8s.io/v1" and found["kind"] == "LeaderWorkerSet"
    spec = found["spec"]
    template, rollout = spec["leaderWorkerTemplate"], spec["rolloutStrategy"]
    for name, table in (
        ("spec", spec),
        ("leaderWorkerTemplate", template),
        ("rolloutStrategy", rollout),
        ("rollingUpdateConfiguration", rollout["rollingUpdateConfiguration"]),
    ):
        assert {*table} <= LEADER_WORKER_SET[name]
    checked(template["workerTemplate"], "V1PodTemplateSpec")
    assert (spec["replicas"], template["size"]) == (3, 1)
    # it makes a Service of its own name, and its pods have its label of the worker
    assert service["metadata"]["name"] != found["metadata"]["name"]
    assert service["spec"]["selector"]["leaderworkerset.sigs.k8s.io/worker-index"] == "0"
    checked(budget, "V1PodDisruptionBudget")


def test_the_command_of_a_pod_is_the_one_of_the_host() -> None:
    release = release_of("mixtral-8x7b")
    one = served.served(release, IMAGE, ())
    # as Kubernetes hands it on
    command = manifests(kubernetes.manifests(one, 1))[0]["spec"]["template"]["spec"]["containers"][0]["args"][
        2
    ]
    script = command.replace("$$", "$").replace("exec mpirun", "printf '%s\\n'")
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)

    words = done.stdout.splitlines()
    wanted = release.server_command[1:]
    assert [re.sub(r"tritonhost-key=[0-9a-f]{64}$", "tritonhost-key=$key", word) for word in words] == wanted
    # the host's own script has the same words
    assert all(word in release.files["serve"] for word in wanted if "$" not in word)


def test_the_label_of_a_gpu_is_nvidias() -> None:
    for name, label in (
        ("NVIDIA A10", "NVIDIA-A10"),
        ("NVIDIA A100-SXM4-80GB", "NVIDIA-A100-SXM4-80GB"),
        ("NVIDIA H100 80GB HBM3", "NVIDIA-H100-80GB-HBM3"),
    ):
        assert kubernetes.product(name) == label


def test_nccls_settings_are_those_of_the_shape() -> None:
    one = one_of("mixtral-8x7b", shape="BM.GPU4.8")
    found = manifests(kubernetes.manifests(one, 1, nccl=True))[-1]

    checked(found, "V1ConfigMap")
    assert found["data"]["NCCL_IB_HCA"].startswith("=mlx5_0,mlx5_2,")
    assert (
        len(manifests(kubernetes.manifests(one_of("gpt2-medium", shape="VM.GPU.A10.1"), 1, nccl=True))) == 3
    )


def test_an_image_that_hosts_make_has_to_be_named() -> None:
    with pytest.raises(PlanError, match="docker tag tritonhost/serving:"):
        served.served(release_of("mixtral-8x7b"), "", ())
    pulled = served.served(release_of("gpt2-medium"), "", ())
    assert served.IMAGE.fullmatch(pulled.image) and pulled.image.startswith("nvcr.io/nvidia/tritonserver@")


def job(model: str, ranks: int, **options: str) -> str:
    release = release_of(model, shape="BM.GPU4.8")
    return slurm.batch_job(
        served.served(release, IMAGE, ()), ranks, *release.rank_commands, options, nccl=True
    )


@pytest.mark.parametrize(("model", "ranks"), [("gpt2-medium", 1), ("mixtral-8x7b", 8)])
def test_each_rank_of_a_batch_job_gets_its_command(tmp_path: Path, model: str, ranks: int) -> None:
    """The script runs with an srun that does what pyxis does with a task: its words, in a shell of the image."""
    text = job(model, ranks)
    (tmp_path / "job").write_text(text, encoding="utf-8")
    (tmp_path / "srun").write_text(
        '#!/bin/sh\necho "srun $*" >>"$OUT/srun.log"\nwhile [ "$1" != sh ]; do shift; done\n'
        f'rank=0\nwhile [ $rank -lt {ranks} ]; do SLURM_PROCID=$rank "$@"; rank=$((rank + 1)); done\n',
        encoding="utf-8",
    )
    (tmp_path / "tritonserver").write_text(
        '#!/bin/sh\necho "$SLURM_PROCID $HOME $*" >>"$OUT/ranks.log"\n', encoding="utf-8"
    )
    for name in ("srun", "tritonserver"):
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "OUT": str(tmp_path), "HOME": "/home/me"}
    subprocess.run(["bash", str(tmp_path / "job")], env=environment, check=True)

    lines = (tmp_path / "ranks.log").read_text(encoding="utf-8").splitlines()
    assert len(lines) == ranks
    assert all(
        line.startswith(f"{rank} /tmp --model-repository=/release/model_repository")
        for rank, line in enumerate(lines)
    )
    assert re.search(r"tritonhost-key=[0-9a-f]{64}( |$)", lines[0])
    for rank, line in enumerate(lines[1:], start=1):
        assert (
            "--load-model=tensorrt_llm" in line and f"prefix{rank}_" in line and "tritonhost-key" not in line
        )
    words = (tmp_path / "srun.log").read_text(encoding="utf-8")
    assert f"--container-image=registry.example#triton@sha256:{'1' * 64} " in words
    assert f"--mpi={'pmix' if ranks > 1 else 'none'} " in words


def test_directives_of_a_batch_job() -> None:
    lines = job("mixtral-8x7b", 8, partition="gpu", gres="gpu:8").splitlines()
    directives = [line for line in lines if line.startswith("#SBATCH")]
    assert "#SBATCH --partition=gpu" in directives and "#SBATCH --ntasks-per-node=8" in directives
    assert "#SBATCH --exclusive" in directives
    # one of the two, or Slurm refuses the job
    assert "#SBATCH --gres=gpu:8" in directives and not [
        line for line in directives if "gpus-per-node" in line
    ]
    # sbatch reads none behind the first command
    assert lines.index(directives[-1]) < lines.index("set -eu")


def settings(**data: Any) -> Any:
    return from_host_data({**DATA, "model": "gpt2-medium", **data}, "gpu-1")


def test_endpoints_of_llm_d() -> None:
    wide = settings(bind_address="0.0.0.0", expose=True, allowed_sources=["10.0.0.0/8"])
    found = [endpoints.endpoint(f"gpu-{n}", wide, f"10.0.0.{n}", (8000, 8001, 8002)) for n in (1, 2)]
    text = endpoints.llm_d(found)

    [table] = manifests(text)
    assert {*table} == {"endpoints"}
    first, second = table["endpoints"]
    assert first == {
        "name": "gpu-1",
        "address": "10.0.0.1",
        "port": "8000",
        "labels": {"llm-d.ai/engine-type": "triton-tensorrt-llm", "model": "gpt2-medium"},
    }
    assert second["name"] == "gpu-2" and all(isinstance(value, str) for value in first["labels"].values())
    assert "metrics-data-source: {port: 8002}" in text
    assert endpoints.remarks(found) == []


@pytest.mark.parametrize(
    ("data", "reached", "said"),
    [
        ({}, "10.0.0.1", "an address that the network reaches"),
        (
            {"bind_address": "0.0.0.0", "expose": True, "allowed_sources": ["10.0.0.0/8"]},
            "gpu-1.example",
            "llm-d takes no names",
        ),
    ],
)
def test_what_llm_d_would_stop_at_is_refused(data: dict[str, Any], reached: str, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        endpoints.endpoint("gpu-1", settings(**data), reached, (8000, 8001, 8002))


def test_hosts_with_other_metrics_ports_are_refused() -> None:
    wide = settings(bind_address="0.0.0.0", expose=True, allowed_sources=["10.0.0.0/8"])
    found = [endpoints.endpoint(f"gpu-{n}", wide, f"10.0.0.{n}", (8000, 8001, 8002 + n)) for n in (1, 2)]
    with pytest.raises(PlanError, match="one for all"):
        endpoints.llm_d(found)


def test_targets_of_prometheus_are_what_file_sd_takes() -> None:
    entries = [
        Watched(
            "gpu-1",
            "triton",
            (
                Target("triton-gateway", "10.0.0.1:443", (("host", "gpu-1"), ("service", "triton"))),
                Target("node", "10.0.0.1:9100", (("host", "gpu-1"),)),
            ),
        )
    ]
    groups = json.loads(endpoints.prometheus(entries))

    assert len(groups) == 2
    for group in groups:
        # Prometheus refuses other keys, and values that are no text
        assert {*group} == {"targets", "labels"}
        assert all(
            isinstance(value, str) and re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", key)
            for key, value in group["labels"].items()
        )
    assert groups[0]["labels"] | {"host": ""} == {
        "host": "", "service": "triton", "job": "triton", "__metrics_path__": "/metrics", "__scheme__": "https",
    }  # fmt: skip


def test_a_graph_of_dynamo_is_for_one_rank_with_an_image() -> None:
    one = one_of("gpt2-medium")
    [graph] = manifests(dynamo.graph(one, 1, IMAGE, 2, "serving", "models"))

    front, worker = graph["spec"]["components"]
    assert (front["type"], worker["type"], worker["replicas"]) == ("frontend", "worker", 2)
    for each in (front, worker):
        pod = each["podTemplate"]
        checked(pod, "V1PodTemplateSpec")
        # Dynamo's operator completes the container of that name
        assert [container["name"] for container in pod["spec"]["containers"]] == ["main"]
    for ranks, image, claim, said in (
        (2, IMAGE, "m", "one rank"),
        (1, "", "m", "--image"),
        (1, IMAGE, "", "--claim"),
    ):
        with pytest.raises(PlanError, match=said):
            dynamo.graph(one, ranks, image, 1, "serving", claim)


def test_two_hosts_that_llm_d_would_take_for_one_are_refused() -> None:
    wide = settings(bind_address="0.0.0.0", expose=True, allowed_sources=["10.0.0.0/8"])
    found = [
        endpoints.endpoint(name, wide, "10.0.0.1", (8000, 8001, 8002)) for name in ("gpu-1/a", "gpu-1-a")
    ]
    with pytest.raises(PlanError, match="two of the name gpu-1-a"):
        endpoints.llm_d(found)


def test_a_batch_job_has_one_copy_on_one_node() -> None:
    with pytest.raises(PlanError, match="--sbatch array=0-3"):
        job("gpt2-medium", 1, nodes="2")
    assert "%x-%A_%a.out" in job("gpt2-medium", 1, array="0-3")
