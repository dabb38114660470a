"""The bill of materials: valid CycloneDX 1.6, stable, and everything by what it can be found with elsewhere."""

from __future__ import annotations

import json
from typing import Any

import pytest

from operations.plan.audit.bill_of_materials import bill_of_materials
from operations.plan.audit.provenance import Found, Image, Package, packages, provenance
from operations.plan.explain import explained
from operations.plan.profile.profiles import load_profile
from operations.plan.release import Release
from tests.unit.builders import DATA, release

RPMS = (
    Package("docker-ce", "3:28.5.2-1.el9", "x86_64", "1" * 64, "2" * 64, "d6"),
    Package("libstdc++", "0:11.5.0-5.el9", "x86_64", "3" * 64, "4" * 64, "72"),
)
SUBMODULES = {
    "tensorrt_llm": {"commit": "e" * 40, "repository": "https://github.com/NVIDIA/TensorRT-LLM.git"},
    "elsewhere": {"commit": "f" * 40, "repository": "https://git.invalid/a/b.git"},
}


def bill(wanted: Release, rpms: tuple[Package, ...] = RPMS) -> dict[str, Any]:
    files = {"model.safetensors": {"size": 5, "mtime": 1, "sha256": "5" * 64}}
    found = Found(
        packages=rpms,
        files={artifact.path: files for artifact in wanted.artifacts},
        images={image.tag: Image(f"sha256:{'9' * 64}", ()) for image in wanted.images},
        commit="c" * 40,
        tree="d" * 40,
        submodules=SUBMODULES,
        os_version="9.5",
    )
    # through JSON, as they are on the host
    wished, there = json.loads(json.dumps([wanted.document(), provenance(wanted, found)]))
    return bill_of_materials(wished, there, packages(found), found.os_version)


def every_kind() -> list[Release]:
    names = ("smollm2-135m", "llama-3.1-8b-llmapi", "llama-3.1-8b-awq", "clip-search")
    return [explained(name, DATA, None if load_profile(name).hardware else "NVIDIA A10:1") for name in names]


@pytest.mark.parametrize("wanted", [release(), *every_kind()], ids=lambda r: r.settings.model)
def test_bill_is_valid_cyclonedx_1_6(wanted: Release) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill(wanted)))
    assert problem is None, str(problem)[:2000]


@pytest.mark.parametrize("wanted", every_kind(), ids=lambda r: r.settings.model)
def test_purls_parse_and_references_resolve(wanted: Release) -> None:
    from packageurl import PackageURL

    made = bill(wanted)
    for component in made["components"]:
        if "purl" in component:
            assert PackageURL.from_string(component["purl"]).version
    refs = [c["bom-ref"] for c in made["components"]]
    assert len(set(refs)) == len(refs)
    known = {*refs, made["metadata"]["component"]["bom-ref"]}
    for entry in made["dependencies"]:
        assert {entry["ref"], *entry["dependsOn"]} <= known


def by_name(made: dict[str, Any]) -> dict[str, Any]:
    return {c["name"]: c for c in made["components"]}


def test_bill_identifies_each_component() -> None:
    wanted = release()
    made = by_name(bill(wanted))
    assert made["docker-ce"]["purl"] == (
        "pkg:rpm/oraclelinux/docker-ce@28.5.2-1.el9?arch=x86_64&distro=oraclelinux-9.5&epoch=3"
    )
    assert made["libstdc++"]["purl"].startswith("pkg:rpm/oraclelinux/libstdc%2B%2B@11.5.0-5.el9?")
    assert {"name": "tritonhost:header-sha256", "value": "1" * 64} in made["docker-ce"]["properties"]
    assert made["nvidia/tritonserver"]["purl"] == (
        f"pkg:oci/tritonserver@sha256%3A{'b' * 64}?repository_url=nvcr.io/nvidia/tritonserver"
        "&tag=24.09-trtllm-python-py3"
    )
    assert made["owner/name"]["purl"] == f"pkg:huggingface/owner/name@{'c' * 40}"
    assert made["owner/name"]["components"][0]["hashes"] == [{"alg": "SHA-256", "content": "5" * 64}]
    assert made["tensorrt_llm"]["purl"] == f"pkg:github/nvidia/tensorrt-llm@{'e' * 40}"
    assert "purl" not in made["elsewhere"]
    source = made["https://github.com/triton-inference-server/tensorrtllm_backend.git"]
    assert source["purl"] == f"pkg:github/triton-inference-server/tensorrtllm_backend@{'a' * 40}"


def test_engine_depends_on_checkpoint_and_checkpoint_on_weights() -> None:
    wanted = release()
    rests = {entry["ref"]: entry["dependsOn"] for entry in bill(wanted)["dependencies"]}
    keys = {kind: wanted.artifact(kind).key for kind in ("engine", "checkpoint", "weights")}
    assert f"checkpoint:{keys['checkpoint']}" in rests[f"engine:{keys['engine']}"]
    assert f"weights:{keys['weights']}" in rests[f"checkpoint:{keys['checkpoint']}"]
    assert rests[f"weights:{keys['weights']}"] == []


def test_serial_number_changes_only_with_the_materials() -> None:
    first = bill(release())
    assert json.dumps(bill(release(), tuple(reversed(RPMS)))) == json.dumps(first)
    other = bill(release(), RPMS[:1])
    assert other["serialNumber"] != first["serialNumber"]
