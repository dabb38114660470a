import json
from typing import Any

import pytest

from operations.plan.artifacts import commands
from operations.plan.errors import PlanError
from operations.plan.explain import explained, text
from operations.plan.release import Release
from tests.unit.builders import CALIBRATION, COMMIT, DATA, DIGEST, gpu, release

KEYS = ("source", "image", "weights", "checkpoint", "engine", "release")


def keys(wanted: Release) -> dict[str, str]:
    images = {"image": wanted.image.key, "release": wanted.id}
    return {name: images.get(name) or wanted.artifact(name).key for name in KEYS}


def changed(other: Release) -> set[str]:
    before, after = keys(release()), keys(other)
    return {name for name in KEYS if before[name] != after[name]}


DOWNSTREAM_OF_IMAGE = {"image", "checkpoint", "engine", "release"}


# who may reach it is the guard's, and not part of a release
SOURCES = {"allowed_sources": ["10.0.0.0/16"]}


@pytest.mark.requirement("R44")
@pytest.mark.parametrize(
    ("data", "tables", "gpus", "expected"),
    [
        # nothing that a file on the host depends on
        ({"ssh": None}, {}, [gpu()], set()),
        ({"docker_packages": {"docker-ce": "3:29.0.0-1.el9"}}, {}, [gpu()], set()),
        ({"hub_endpoint": "https://mirror.invalid"}, {}, [gpu()], set()),
        ({"git_mirrors": {"https://github.com/": "https://mirror.invalid/"}}, {}, [gpu()], set()),
        ({"image_registry": "mirror.invalid:5000"}, {}, [gpu()], set()),
        # Triton is told to end its requests before that
        ({"stop_timeout_s": 90}, {}, [gpu()], {"release"}),
        ({"server_user": "2000:2000"}, {}, [gpu()], {"release"}),
        ({"pids_limit": 4096}, {}, [gpu()], {"release"}),
        ({}, {"server": {"admin_apis": True}}, [gpu()], {"release"}),
        # how it is upgraded
        ({"record_golden": False, "golden_directory": "g", "golden_agreement": 0.1}, {}, [gpu()], set()),
        ({"soak_s": 60, "latency_factor": 9.0, "drain_s": 5, "max_unavailable": 2}, {}, [gpu()], set()),
        ({"bench_share": 0.5, "measurements_directory": "m"}, {}, [gpu()], set()),
        (SOURCES, {}, [gpu()], set()),
        ({"selinux": "off"}, {}, [gpu()], set()),
        ({"keep_releases": 9, "retry_failed": True}, {}, [gpu()], set()),
        ({"front": "haproxy"}, {}, [gpu()], {"release"}),
        ({}, {"summary": "another"}, [gpu()], set()),
        ({}, {}, [gpu(driver="590.44.01")], set()),
        ({}, {}, [gpu(uuid="GPU-other", memory_free_mib=1)], set()),
        ({}, {}, [gpu(0), gpu(1)], set()),
        # how it is served
        ({"http_port": 9000}, {}, [gpu()], {"release"}),
        ({}, {"server": {"metrics_port": 9002}}, [gpu()], {"release"}),
        ({"bind_address": "10.0.0.11", **SOURCES}, {}, [gpu()], {"release"}),
        # it asks for names then
        ({"egress": ["10.9.0.0/24"]}, {}, [gpu()], {"release"}),
        ({"start_timeout_s": 60}, {}, [gpu()], {"release"}),
        ({"tritonserver_arguments": ["--log-verbose=1"]}, {}, [gpu()], {"release"}),
        ({"gpu_ids": [0]}, {}, [gpu()], {"release"}),
        ({"data_root": "/mnt/nvme/tritonhost"}, {}, [gpu()], {"release"}),
        ({}, {"server": {"environment": {"NCCL_DEBUG": "INFO"}}}, [gpu()], {"release"}),
        ({}, {"repository": {"parameters": {"triton_max_batch_size": 4}}}, [gpu()], {"release"}),
        (
            {},
            {"repository": {"model_parameters": {"preprocessing": {"triton_max_batch_size": 4}}}},
            [gpu()],
            {"release"},
        ),
        # how it is made
        ({}, {"engine": {"max_batch_size": 4}}, [gpu()], {"engine", "release"}),
        ({}, {"engine": {"max_beam_width": 2}}, [gpu()], {"engine", "release"}),
        ({}, {}, [gpu(name="NVIDIA H200", compute_capability="9.0")], {"engine", "release"}),
        ({}, {}, [gpu(compute_capability="8.0")], {"engine", "release"}),
        ({}, {"checkpoint": {"dtype": "bfloat16"}}, [gpu()], {"checkpoint", "engine", "release"}),
        (
            {},
            {"checkpoint": {"quantization": {"format": "int4_awq", "calibration": CALIBRATION}}},
            [gpu()],
            {"checkpoint", "engine", "release"},
        ),
        (
            {},
            {"weights": {"revision": "d" * 40}},
            [gpu()],
            {"weights", "checkpoint", "engine", "release"},
        ),
        ({}, {"weights": {"gated": True}}, [gpu()], set()),
        ({}, {"weights": {"include": ["*.safetensors"]}}, [gpu()], set(KEYS) - {"source", "image"}),
        (
            {"image_digests": {"nvidia/tritonserver:24.09-trtllm-python-py3": f"sha256:{'c' * 64}"}},
            {},
            [gpu()],
            DOWNSTREAM_OF_IMAGE,
        ),
    ],
)
def test_change_alters_only_the_keys_that_depend_on_it(
    data: dict[str, Any], tables: dict[str, Any], gpus: list[Any], expected: set[str]
) -> None:
    data.pop("ssh", None)
    assert changed(release(data, tables, gpus)) == expected


def test_the_tag_s_commit_is_an_input_of_the_checkout() -> None:
    assert "source" in changed(release({"backend_commits": {"v0.13.0": "e" * 40}}))


def test_built_image_depends_on_tree_base_and_digest() -> None:
    build = {"image": {"source": "build", "base": "nvidia/tritonserver:24.09-py3"}}
    first = {"image_digests": {"nvidia/tritonserver:24.09-py3": f"sha256:{'c' * 64}"}}
    built = release(first, build)
    again = release({"image_digests": {"nvidia/tritonserver:24.09-py3": DIGEST}}, build)
    assert {"image"} < changed(built)
    assert built.image.key != again.image.key
    assert built.artifact("source").key == again.artifact("source").key
    assert built.image.inputs["tree"] == built.artifact("source").key
    [base_tag] = [word for word in again.image.commands[0] if word.startswith("--build-arg=BASE_TAG")]
    assert base_tag == f"--build-arg=BASE_TAG=24.09-py3@{DIGEST}"
    # the tag a release asks for appears last, on what was built to the end and looked into
    assert [command[1] for command in again.image.commands[1:]] == ["run", "tag", "rmi"]


@pytest.mark.requirement("R56")
def test_image_is_pulled_by_digest_and_checked_before_its_tag() -> None:
    pull, look, tag = release().image.commands
    reference = f"nvcr.io/nvidia/tritonserver@{DIGEST}"
    assert pull == ("docker", "pull", reference)
    assert look[-1] == "0.13.0"
    assert look[look.index("--network") + 1] == "none"
    assert tag == ("docker", "tag", reference, release().image.tag)


def test_planning_is_pure() -> None:
    assert keys(release()) == keys(release())
    assert release().files == release().files


def test_every_artifact_is_made_in_its_partial_directory() -> None:
    wanted = release()
    for artifact in (wanted.artifact("weights"), wanted.artifact("checkpoint"), wanted.artifact("engine")):
        words = [word for command in artifact.commands for word in command]
        assert f"{artifact.path.rsplit('/', 1)[0]}/.{artifact.key}.partial:{commands.OUTPUT}" in words
        assert artifact.path not in words
    assert f"/sources/.{wanted.artifact('source').key}.partial/tree" in " ".join(
        wanted.artifact("source").commands[-1]
    )


@pytest.mark.requirement("R55")
def test_only_the_download_reaches_the_network() -> None:
    wanted = release()
    networks = {
        artifact.kind: [c[c.index("--network") + 1] for c in artifact.commands if "--network" in c]
        for artifact in (wanted.artifact("weights"), wanted.artifact("checkpoint"), wanted.artifact("engine"))
    }
    assert networks == {"weights": ["host"], "checkpoint": ["none"], "engine": ["none"]}


def test_weights_request_has_repository_revision_and_endpoint() -> None:
    weights = release(tables={"weights": {"gated": True}}).artifact("weights")
    request = json.loads(weights.files["request.json"])
    assert (request["repository"], request["revision"]) == ("owner/name", "c" * 40)
    assert request["endpoint"] == "https://huggingface.co"
    assert weights.needs_token
    assert weights.resumable
    assert not release().artifact("weights").needs_token


def test_readiness_urls_use_the_published_address() -> None:
    wanted = release({"bind_address": "10.0.0.11", "http_port": 9000, **SOURCES})
    assert wanted.ready_urls == {
        "ensemble": "http://10.0.0.11:9000/v2/models/ensemble/ready",
        "tensorrt_llm_bls": "http://10.0.0.11:9000/v2/models/tensorrt_llm_bls/ready",
    }
    everywhere = release({"bind_address": "0.0.0.0", "expose": True, **SOURCES})
    assert everywhere.ready_urls["ensemble"].startswith("http://127.0.0.1:8000/")


def test_ports_are_published_on_one_address() -> None:
    script = release({"bind_address": "10.0.0.11", **SOURCES}).files["serve"]
    for port in (8000, 8001, 8002):
        assert f"--publish=10.0.0.11:{port}:{port}" in script
    assert "--network triton-network" in script.replace(" \\\n    ", " ")


def test_release_document_names_the_inputs_for_auditors() -> None:
    wanted = release()
    document = json.loads(json.dumps(wanted.document()))
    assert document["release"] == wanted.id
    assert document["stack"]["tensorrt_llm"] == "0.13.0"
    assert document["artifacts"]["source"]["inputs"]["commit"] == COMMIT
    assert document["artifacts"]["weights"]["inputs"]["revision"] == "c" * 40
    assert document["artifacts"]["engine"]["key"] == wanted.artifact("engine").key
    assert document["image"]["inputs"]["digest"] == DIGEST


@pytest.mark.parametrize(
    ("data", "tables", "gpus", "expected"),
    [
        ({}, {}, [], "GPUs: found none, expected at least one GPU"),
        ({"gpu_ids": [8]}, {}, [gpu()], "gpu_ids: found [8], expected indices from 0 to 0"),
        (
            {},
            {},
            [gpu(0), gpu(1, name="NVIDIA H200")],
            "expected GPUs of one model; choose them with gpu_ids",
        ),
        ({}, {}, [gpu(mig=True)], "GPU 0: found MIG enabled, expected GPUs that are not partitioned"),
        ({}, {"checkpoint": {"tensor_parallel": 2}}, [gpu()], "found 2, expected at most 1"),
        (
            {"gpu_ids": [0]},
            {"checkpoint": {"tensor_parallel": 2}},
            [gpu(0), gpu(1)],
            "found 2, expected at most 1",
        ),
        ({"http_port": 8001}, {}, [gpu()], "found 8001, 8001, 8002, expected three different ports"),
        ({"image_digests": {}}, {}, [gpu()], "image_digests['nvidia/tritonserver:24.09-trtllm-python-py3']"),
        (
            {},
            {"image": {"release": "26.07", "source": "build"}},
            [gpu()],
            "image.source: found build, expected pull for release 26.07",
        ),
        (
            {},
            {"repository": {"parameters": {"max_beam_widht": 1}}},
            [gpu()],
            "repository.parameters.max_beam_widht: found unknown parameter max_beam_widht",
        ),
        ({}, {"engine": {"max_batchsize": 8}}, [gpu()], "did you mean max_batch_size?"),
        ({}, {"checkpoint": {"flags": {"use_qserve": True}}}, [gpu()], "checkpoint.flags.use_qserve"),
    ],
)
def test_impossible_deployment_is_refused(
    data: dict[str, Any], tables: dict[str, Any], gpus: list[Any], expected: str
) -> None:
    with pytest.raises(PlanError) as caught:
        release(data, tables, gpus)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_gpus_are_chosen_by_index() -> None:
    wanted = release({"gpu_ids": [2, 1]}, gpus=[gpu(0, name="NVIDIA T4"), gpu(1), gpu(2)])
    assert [g.index for g in wanted.gpus] == [2, 1]
    assert any("NVIDIA_VISIBLE_DEVICES=2,1" in command for command in wanted.artifact("engine").commands)


def test_engine_of_two_ranks_is_served_under_mpirun() -> None:
    wanted = release(tables={"checkpoint": {"tensor_parallel": 2}}, gpus=[gpu(0), gpu(1)])
    assert wanted.profile.ranks == 2
    assert "mpirun" in wanted.files["serve"]
    assert "mpirun" not in release().files["serve"]
    assert changed(wanted) == {"checkpoint", "engine", "release"}


def test_template_parameters_contain_no_host_path() -> None:
    wanted = release({"data_root": "/mnt/nvme/tritonhost"})
    assert wanted.parameters["engine_dir"] == "/engine"
    assert wanted.parameters["tokenizer_dir"] == "/weights"
    assert not [value for value in wanted.parameters.values() if "/mnt" in str(value)]


def test_from_0_17_on_a_pulled_image_brings_the_templates() -> None:
    image = "nvidia/tritonserver:25.01-trtllm-python-py3"
    wanted = release({"image_digests": {image: DIGEST}}, {"image": {"release": "25.01"}})
    assert wanted.image_first
    assert not release().image_first
    assert wanted.artifact("source").inputs["image"] == wanted.image.key
    assert wanted.image.tag in wanted.artifact("source").commands[0]
    assert wanted.template_directory == f"{wanted.artifact('source').path}/tree/templates"
    assert (
        release().template_directory
        == f"{release().artifact('source').path}/tree/all_models/inflight_batcher_llm"
    )


def test_templates_from_an_image_have_no_checksums() -> None:
    image = "nvidia/tritonserver:25.01-trtllm-python-py3"
    wanted = release({"image_digests": {image: DIGEST}}, {"image": {"release": "25.01"}})
    assert wanted.image_first
    assert not wanted.artifact("source").checksums
    assert wanted.artifact("weights").checksums


@pytest.mark.parametrize("name", ["26.08", "26.09", "26.10"])
def test_plain_images_are_planned_only_for_kind_plan(name: str) -> None:
    made = explained("clip-search", DATA, None, name)
    assert made.stack.tensorrt_llm == ""
    said = text(made)
    assert f"release {name}: Triton " in said and "TensorRT-LLM none" in said
    assert "allow-client-shm" in made.files["serve"] and "http-max-input-size" in made.files["serve"]
    for model in ("gpt2-medium", "llama-3.1-8b-llmapi"):
        with pytest.raises(PlanError, match=f"^image.release: found {name}, of which no image"):
            explained(model, DATA, "NVIDIA A10:1", name)


def test_explain_names_the_driver_a_release_needs() -> None:
    said = text(explained("gpt2-medium", DATA, "NVIDIA A10:1", "26.07"))
    assert (
        "driver: 580.65.06 or later for CUDA 13; made with 590.44.01; by NVIDIA 5861 580.178.04, 595.91.07 or 610.57.04, "
        "of its branch, or a newer branch"
    ) in said


@pytest.mark.parametrize(("tensor", "pipeline"), [(1, 1), (4, 2)])
def test_artifact_requires_a_file_of_every_rank(tensor: int, pipeline: int) -> None:
    tables = {"checkpoint": {"tensor_parallel": tensor, "pipeline_parallel": pipeline}}
    made = release(tables=tables, gpus=[gpu(n) for n in range(tensor * pipeline)])
    for kind, suffix in (("checkpoint", "safetensors"), ("engine", "engine")):
        artifact = made.artifact(kind)
        assert artifact.names == ("config.json", *(f"rank{n}.{suffix}" for n in range(tensor * pipeline)))
