"""The plan against NVIDIA's own files, tag by tag (upstream.py)."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from operations.plan.artifacts import commands
from operations.plan.artifacts.artifact import published
from operations.plan.catalog.flags import CONVERT, QUANTIZE, TRTLLM_BUILD, Flag, build_flags, convert_flags
from operations.plan.catalog.sources import DOCKERFILES
from operations.plan.catalog.support_matrix import FAMILIES, RELEASES, converter_folder, version_tuple
from operations.plan.catalog.template_parameters import parameters_of
from operations.plan.errors import PlanError
from operations.plan.explain import planned as explain_planned
from operations.plan.inventory.versions import components
from operations.plan.planning import plan_release
from operations.plan.profile.model_repository import render
from operations.plan.profile.profiles import LlmApiProfile, load_profile
from operations.plan.release import Release
from tests.lab.mirror import templates
from tests.lab.mirror.versions import TAGS as LAB_TAGS
from tests.lab.mirror.versions import number
from tests.unit import upstream
from tests.unit.builders import COMMIT, DATA, DIGEST, gpu, profile, release, settings

BUILDABLE = [name for name, row in RELEASES.items() if row.backend_tag in upstream.DOCKERFILES]
PULLED_ONLY = [name for name in RELEASES if name not in BUILDABLE]
COMMITS = {row.backend_tag: COMMIT for row in RELEASES.values() if row.backend_tag}
BASES = [f"nvidia/tritonserver:{base}" for base, _ in upstream.DOCKERFILES.values()]
PYTORCH = [image for _, image in upstream.DOCKERFILES.values() if image]
DIGESTS = dict.fromkeys(
    [*BASES, *PYTORCH, "nvidia/tritonserver:25.03-py3-own", *(row.image for row in RELEASES.values())], DIGEST
)


def planned(name: str, source: str = "build", **tables: Any) -> Release:
    image = {"release": name, "source": source, **tables.pop("image", {})}
    return release(
        {"backend_commits": COMMITS, "image_digests": DIGESTS}, {"image": image, **tables}, [gpu()]
    )


def argument(wanted: Release, name: str) -> str:
    """The value of a build argument; empty where there is none."""
    head = f"--build-arg={name}="
    found = [word.removeprefix(head) for word in wanted.image.commands[0] if word.startswith(head)]
    return found[0] if found else ""


# --- what is built


def test_dockerfiles_match_the_tags() -> None:
    found = {tag: (file.base, file.pytorch) for tag, file in DOCKERFILES.items()}
    wanted = {
        tag: (f"nvidia/tritonserver:{base}", torch) for tag, (base, torch) in upstream.DOCKERFILES.items()
    }
    assert found == wanted


@pytest.mark.parametrize("name", PULLED_ONLY)
def test_build_without_a_dockerfile_is_refused(name: str) -> None:
    with pytest.raises(PlanError) as caught:
        planned(name)
    text = str(caught.value)
    assert text.startswith("image.source: found build, expected pull")
    assert name in text and "the newest release that can be built is 25.05 (v0.19.0)" in text


@pytest.mark.parametrize("name", PULLED_ONLY)
def test_pull_needs_no_dockerfile(name: str) -> None:
    assert planned(name, "pull").image.commands[0][:2] == ("docker", "pull")


@pytest.mark.parametrize("name", BUILDABLE)
def test_build_passes_the_images_of_its_dockerfile(name: str) -> None:
    """With a registry of the site's own, an image that nobody names is asked of NVIDIA's."""
    wanted = planned(name)
    base, pytorch = upstream.DOCKERFILES[RELEASES[name].backend_tag or ""]
    assert argument(wanted, "BASE_IMAGE") == "nvcr.io/nvidia/tritonserver"
    assert argument(wanted, "BASE_TAG") == f"{base}@{DIGEST}"
    assert argument(wanted, "PYTORCH_IMAGE") == (f"nvcr.io/nvidia/pytorch@{DIGEST}" if pytorch else "")
    assert wanted.image.inputs["base"] == f"nvidia/tritonserver:{base}"
    assert wanted.image.inputs.get("pytorch", "") == pytorch
    # what a bundle takes along, and the bill of materials names
    upon = [f"nvidia/tritonserver:{base}", *([pytorch] if pytorch else [])]
    assert published(wanted.image.inputs) == dict.fromkeys(upon, DIGEST)


@pytest.mark.parametrize("missing", ["nvidia/tritonserver:25.03-py3", "nvidia/pytorch:25.03-py3"])
def test_build_needs_a_digest_of_each_image(missing: str) -> None:
    known = {name: digest for name, digest in DIGESTS.items() if name != missing}
    data = {"backend_commits": COMMITS, "image_digests": known}
    with pytest.raises(PlanError) as caught:
        release(data, {"image": {"release": "25.05", "source": "build"}}, [gpu()])
    assert str(caught.value).startswith(f"image_digests['{missing}']: found nothing")


@pytest.mark.parametrize("name", BUILDABLE)
def test_build_has_the_triton_of_its_base(name: str) -> None:
    wanted = planned(name)
    base = upstream.DOCKERFILES[RELEASES[name].backend_tag or ""][0].removesuffix("-py3")
    assert wanted.stack.triton == upstream.TRITON_OF_BASE[base]
    assert wanted.document()["stack"]["triton"] == upstream.TRITON_OF_BASE[base]
    found = dict(components(settings(), profile(image={"release": name, "source": "build"})))
    assert found["triton"] == base
    pulled = planned(name, "pull")
    assert pulled.stack == RELEASES[name]


def test_base_of_the_profile_sets_its_triton() -> None:
    own = {"base": "nvidia/tritonserver:25.03-py3-own"}
    wanted = planned("24.09", image=own)
    assert wanted.stack.triton == "2.56.0"
    assert argument(wanted, "BASE_TAG") == f"25.03-py3-own@{DIGEST}"
    found = dict(components(settings(), profile(image={"release": "24.09", "source": "build", **own})))
    assert found["triton"] == "25.03"


def test_base_without_a_known_triton_is_refused() -> None:
    with pytest.raises(PlanError, match=r"image\.base: found nvidia/tritonserver:own, expected .*YY\.MM"):
        planned("24.09", image={"base": "nvidia/tritonserver:own"})


def test_rows_of_one_tree_are_one_image() -> None:
    """25.01 and 25.02 ship 0.17.0 and 0.17.0.post1, and share the tag v0.17.0: what is built of it is one thing."""
    first, second = planned("25.01"), planned("25.02")
    assert first.image == second.image
    assert first.image.commands[1][-1] == "0.17.0"
    assert first.artifact("engine").key == second.artifact("engine").key
    assert planned("25.02", "pull").image.commands[1][-1] == "0.17.0.post1"


# --- what is served


@pytest.mark.parametrize("tag", LAB_TAGS)
def test_bls_template_names_the_model_it_calls(tag: str) -> None:
    """A literal is harmless where the model takes it for nothing, and from v0.13.0 on alone."""
    template = templates.config(tag, "tensorrt_llm_bls")
    filled = render(
        {"tensorrt_llm_bls": template}, {"engine_dir": "/engine", "tokenizer_dir": "/weights"}, {}
    )
    assert upstream.LITERAL_IS_ABSENT[tag] is (number(tag) >= (0, 13))
    assert 'string_value: "tensorrt_llm"' in filled["tensorrt_llm_bls"]
    assert "${tensorrt_llm_model_name}" not in filled["tensorrt_llm_bls"]


@pytest.mark.parametrize(("name", "version"), upstream.PLACEHOLDERS)
def test_placeholder_exists_where_upstream_has_it(name: str, version: str) -> None:
    there = name in parameters_of("tensorrt_llm", version_tuple(version))
    assert there is upstream.PLACEHOLDERS[name, version]


def test_placeholder_in_quotes_is_not_bare() -> None:
    """backend: "${triton_backend}", from v0.10.0 on."""
    assert not parameters_of("tensorrt_llm", (0, 10))["triton_backend"].bare


# --- what the scripts take

TABLES = {"llama": CONVERT["llama"], "gpt": CONVERT["gpt"], "quantize": QUANTIZE, "build": TRTLLM_BUILD}
READ = [(script, *read) for script, reads in upstream.FLAGS.items() for read in reads]
BY_COMMIT = [f"{script}-{version}" for script, version, *_ in READ]


def table(script: str, version: str) -> dict[str, Flag]:
    return {n: flag for n, flag in TABLES[script].items() if flag.exists_in(version_tuple(version))}


@pytest.mark.parametrize(("script", "version", "commit", "real"), READ, ids=BY_COMMIT)
def test_flags_of_the_plan_are_real(script: str, version: str, commit: str, real: frozenset[str]) -> None:
    """What argparse does not know ends a conversion after the download: unrecognized arguments."""
    unknown = set(table(script, version)) - real
    if script == "build":  # whose plugins are in another file
        unknown -= upstream.PLUGIN_FLAGS_0_9 | PLUGIN_FLAGS_SINCE
    assert not unknown


@pytest.mark.parametrize(("script", "version", "commit", "real"), READ, ids=BY_COMMIT)
def test_every_real_flag_can_be_set(script: str, version: str, commit: str, real: frozenset[str]) -> None:
    assert not real - set(table(script, version)) - upstream.LEFT_OUT


# plugins' flags that came after 0.9 or were not among those that were read
PLUGIN_FLAGS_SINCE = {
    *("use_paged_context_fmha", "use_fp8_context_fmha", "multiple_profiles", "reduce_fusion"),
    *("tokens_per_block", "use_fused_mlp"),
}


def test_plugin_flags_can_be_set() -> None:
    assert set(table("build", "0.9.0")) >= upstream.PLUGIN_FLAGS_0_9
    assert "reduce_fusion" not in table("build", "0.9.0")


@pytest.mark.parametrize(("script", "version"), upstream.WEIGHT_ONLY)
def test_weight_only_precisions_match_the_script(script: str, version: str) -> None:
    words = CONVERT[script]["weight_only_precision"].words_in(version_tuple(version))
    assert set(words) == upstream.WEIGHT_ONLY[script, version]


@pytest.mark.parametrize(
    ("family", "flags", "expected"),
    [
        (
            "gpt",
            {"load_by_shard": True},
            "unknown flag load_by_shard, expected a known flag of gpt/convert_ch",
        ),
        ("gpt", {"gpt_varient": "gpt2"}, "did you mean gpt_variant?"),
        (
            "llama",
            {"gpt_variant": "gpt2"},
            "unknown flag gpt_variant, expected a known flag of llama/convert_",
        ),
        ("mixtral", {"load_by_shart": True}, "did you mean load_by_shard?"),
        (
            "gpt",
            {"weight_only_precision": "int4_awq"},
            "expected one of int8, int4, which gpt/convert_checkpoint",
        ),
        (
            "llama",
            {"weight_only_precision": "int8_gptq"},
            "int4_gptq, int4_awq, which llama/convert_checkpoint.py",
        ),
        ("gpt", {"gpt_variant": "gpt-2"}, "did you mean gpt2?"),
    ],
)
def test_flag_of_another_script_is_refused(family: str, flags: dict[str, Any], expected: str) -> None:
    with pytest.raises(PlanError) as caught:
        planned("24.09", "pull", checkpoint={"family": family, "flags": flags})
    assert str(caught.value).startswith("checkpoint.flags.") and expected in str(caught.value)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("version", ["0.9.0", upstream.GPT_VARIANT_FROM_PATH_UNTIL, "0.16.0", "1.2.1"])
def test_gpt_converter_gets_its_variant(family: str, version: str) -> None:
    """The weights are at the same path for every model, and no variant is in it."""
    assert "gpt" not in commands.WEIGHTS
    said = convert_flags({}, version, family).get("gpt_variant")
    assert said == ("gpt2" if converter_folder(family) == "gpt" else None)
    if family == "gpt":
        assert convert_flags({"gpt_variant": "starcoder"}, version, family)["gpt_variant"] == "starcoder"


@pytest.mark.parametrize(
    ("given", "version", "written"),
    [
        (True, "0.12.0", True),
        ("enable", "0.12.0", True),
        ("disable", "0.12.0", False),
        (True, "0.13.0", "enable"),
        (False, "0.16.0", "disable"),
        ("disable", "1.2.1", "disable"),
    ],
)
def test_fused_mlp_is_a_word_from_0_13_on(given: str | bool, version: str, written: str | bool) -> None:
    assert build_flags({"use_fused_mlp": given}, version) == {"use_fused_mlp": written}


def test_fused_mlp_is_on_or_off() -> None:
    with pytest.raises(PlanError, match=r"engine\.use_fused_mlp: found auto, expected enable or disable"):
        build_flags({"use_fused_mlp": "auto"}, "0.13.0")


def test_list_flags_become_several_words() -> None:
    wanted = planned(
        "24.09", "pull", engine={"lora_plugin": "auto", "lora_target_modules": ["attn_q", "attn_v"]}
    )
    command = wanted.artifact("engine").inputs["command"]
    at = command.index("--lora_target_modules")
    assert command[at + 1 : at + 3] == ["attn_q", "attn_v"]
    one = (
        planned("24.09", "pull", engine={"lora_target_modules": "attn_q"})
        .artifact("engine")
        .inputs["command"]
    )
    assert one[one.index("--lora_target_modules") + 1] == "attn_q"


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ({"gemm_plugin": ["float16"]}, "one value: lora_dir and lora_target_modules alone take a list"),
        ({"lora_dir": []}, "a value, or a list of texts"),
        ({"lora_dir": ["/a", 5]}, "a value, or a list of texts"),
        ({"lora_dir": ["/a", "--workers"]}, "a value that does not begin with -"),
    ],
)
def test_invalid_lists_are_refused(engine: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        profile(engine=engine)


@pytest.mark.parametrize(("before", "after"), [("", "/app"), ("/image", "/image:/app")])
def test_script_can_import_modules_beside_it(before: str, after: str, tmp_path: Path) -> None:
    """gpt's converter of the main branch imports `examples`; what the image says of its path stays."""
    script = tmp_path / "convert_checkpoint.py"
    script.write_text("import os; print(os.environ.get('PYTHONPATH'))", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": before}
    argv = commands.first_of([str(script)], [], importable="/app")
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == after
    words = {
        name: " ".join(planned(name, "pull").artifact("checkpoint").commands[0])
        for name in ("24.09", "26.07")
    }
    assert "PYTHONPATH" in words["26.07"] and "PYTHONPATH" not in words["24.09"]


# --- kind plan


@pytest.mark.parametrize(
    ("base", "tensorrt", "triton", "options"),
    [("24.09", "10.4.0", "2.50.0", {"--fp16"}), ("26.08", "11", "2.72.0", set())],
)
def test_tensorrt_11_gets_no_precision_options(
    base: str, tensorrt: str, triton: str, options: set[str]
) -> None:
    """Plain Triton images have it from 26.08 on, and trtexec ends at an option that it does not know."""
    row = {"release": "24.09" if base == "24.09" else "26.07", "base": f"nvidia/tritonserver:{base}-py3"}
    chosen = load_profile("clip-search", {"image": row})
    wanted = explain_planned("clip-search", chosen, DATA)
    assert (wanted.stack.tensorrt, wanted.stack.triton) == (tensorrt, triton)
    assert dict(components(settings(), chosen))["triton"] == base
    commands_of = [made.inputs["command"] for made in wanted.artifacts if made.kind == "plan"]
    assert len(commands_of) == 2
    for command in commands_of:
        assert {word for word in command if word in ("--fp16", "--int8", "--stronglyTyped")} == options


# -- the LLM API's image


def llm_api(release: str) -> Release:
    profile = LlmApiProfile.model_validate(
        {
            "kind": "llmapi",
            "summary": "a model as it is",
            "weights": {"repository": "owner/name", "revision": "c" * 40},
            "image": {"release": release, "source": "pull"},
            "golden": [{"prompt": "What?", "max_tokens": 8, "expect": ""}],
        }
    )
    image = f"nvidia/tritonserver:{release}-trtllm-python-py3"
    return plan_release(settings(image_digests={image: DIGEST}), [gpu()], profile=profile)


@pytest.mark.parametrize(
    ("release", "derived"), [("25.10", False), ("26.02", False), ("26.03", True), ("26.07", True)]
)
def test_llmapi_image_has_the_openai_package_it_needs(release: str, derived: bool) -> None:
    """docs/getting_started/llm.md of triton-inference-server/server: openai 1.107.3 of the images is too old from TensorRT-LLM 1.2 on."""
    image = llm_api(release).image
    assert ("requirements.txt" in image.files) == derived
    if not derived:
        return
    [line] = re.findall(r"^openai==([0-9.]+)", image.files["requirements.txt"], re.MULTILINE)
    assert tuple(map(int, line.split("."))) >= upstream.OPENAI_FROM
    assert "--no-deps --require-hashes" in image.files["Dockerfile"]
    look = " ".join(image.commands[1])
    assert "import tensorrt_llm._torch.pyexecutor.py_executor" in look and look.endswith(
        " 1.2.0" if release == "26.03" else " 1.2.1"
    )


def test_engine_image_is_not_changed() -> None:
    assert not plan_release(
        settings(image_digests={"nvidia/tritonserver:26.07-trtllm-python-py3": DIGEST}),
        [gpu()],
        profile=profile(image={"release": "26.07"}),
    ).image.files
