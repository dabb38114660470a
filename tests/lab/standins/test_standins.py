"""The stand-ins behave like the real tools, as far as the lab depends on it: output, flags, files and refusals."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from operations.plan.capacity.gpu import QUERY_FIELDS, read_query, refusal
from operations.plan.catalog.flags import CONVERT, QUANTIZE, TRTLLM_BUILD
from operations.plan.catalog.sources import DOCKERFILES, Dockerfile
from operations.plan.catalog.support_matrix import version_tuple
from tests.lab import standins
from tests.lab.standins import calibration_data
from tests.lab.standins.installed import BIN, PROMPT, Installed
from tests.lab.standins.layers import FileContent, write_layer
from tests.lab.standins.registry import image_documents
from tests.lab.standins.tree import BASE_TAGS, PYTORCH_IMAGES, VERSIONS, installed_files

HERE = Path(__file__).resolve().parent
CAPTURES = HERE / "captures"


def smi(gpus: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LAB_GPUS_FILE": str(gpus)}
    return subprocess.run(
        [sys.executable, str(BIN / "nvidia-smi"), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


@pytest.fixture
def gpus(tmp_path: Path) -> Path:
    path = tmp_path / "gpus"
    path.write_text("NVIDIA H200:4\n")
    return path


# ---- nvidia-smi

UUID = re.compile(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
READINGS = re.compile(r"\d+(?=C | *W /)|\d+-\d+(?=\t)")


def form(text: str) -> list[str]:
    """The lines without values that differ between two times or two machines."""
    lines = [READINGS.sub("#", UUID.sub("GPU-#", line)) for line in text.splitlines()]
    return ["<time>" if re.match(r"[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d ", line) else line for line in lines]


@pytest.mark.parametrize(
    ("capture", "arguments"),
    [("nvidia-smi.txt", []), ("topo.txt", ["topo", "-m"]), ("nvlink.txt", ["nvlink", "-s"])],
)
def test_plain_outputs_have_the_captured_form(gpus: Path, capture: str, arguments: list[str]) -> None:
    done = smi(gpus, *arguments)
    assert done.returncode == 0
    assert form(done.stdout) == form((CAPTURES / "h200-x4" / capture).read_text())


@pytest.mark.parametrize("count", [1, 4])
def test_queries_have_the_captured_form(gpus: Path, count: int) -> None:
    gpus.write_text(f"NVIDIA H200:{count}\n")
    captured = (CAPTURES / f"h200-x{count}" / "query.csv").read_text()
    fields = re.sub(r" \[[^]]*\]", "", captured.splitlines()[0]).replace(" ", "")
    done = smi(gpus, f"--query-gpu={fields}", "--format=csv")
    assert form(done.stdout) == form(captured)
    bare = smi(gpus, f"--query-gpu={fields}", "--format=csv,noheader,nounits").stdout
    assert len(bare.splitlines()) == count
    assert "MiB" not in bare
    assert "%" not in bare


def test_xml_elements_are_captured_ones_in_captured_order(gpus: Path) -> None:
    gpus.write_text("NVIDIA H200:1\n")

    def paths(element: ElementTree.Element, above: str = "") -> Iterator[str]:
        for inner in element:
            yield f"{above}/{inner.tag}"
            yield from paths(inner, f"{above}/{inner.tag}")

    mine = list(paths(ElementTree.fromstring(smi(gpus, "-q", "-x").stdout)))
    real = list(paths(ElementTree.parse(CAPTURES / "h200-x1" / "nvidia-smi-q-x.xml").getroot()))
    assert set(mine) <= set(real)
    assert [path for path in real if path in set(mine)] == mine
    assert len(mine) > 80


def test_nvidia_smi_failures_have_the_real_text_and_status(gpus: Path) -> None:
    unknown = smi(gpus, "--query-gpu=name,flavour", "--format=csv")
    assert (unknown.returncode, unknown.stdout.strip()) == (
        2,
        'Field "flavour" is not a valid field to query.',
    )
    gpus.write_text("NVIDIA A10:1\ndriver_version=470.182.03\n")
    old = smi(gpus, f"--query-gpu={','.join(QUERY_FIELDS)}", "--format=csv,noheader,nounits")
    assert (old.returncode, old.stdout) == (2, 'Field "compute_cap" is not a valid field to query.\n\n')
    assert "does not know compute_cap" in str(refusal(read_query(old.stdout).problem))
    gpus.write_text("NVIDIA A10:2\nlost.1=reboot\n")
    lost = smi(gpus, f"--query-gpu={','.join(QUERY_FIELDS)}", "--format=csv,noheader,nounits")
    said = str(refusal(read_query(lost.stdout).problem))
    assert "GPU is lost" in said and "Reboot the system to recover this GPU" in said
    gpus.write_text("NVIDIA A10:1\ndriver=missing\n")
    silent = smi(gpus)
    assert silent.returncode == 9
    assert silent.stdout.startswith(
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver"
    )
    gpus.write_text("NVIDIA A10:1\nvisible=\n")
    assert (smi(gpus, "-L").returncode, smi(gpus, "-L").stdout) == (6, "No devices were found\n")
    gpus.write_text("Voodoo 2:1\n")
    assert "expected one of" in smi(gpus, "-L").stdout


def test_faults_of_one_gpu_show(gpus: Path) -> None:
    gpus.write_text("NVIDIA A100-SXM4-80GB:2\nused_mib.1=4000\nuncorrected.1=3\nmig.0=Enabled\n")
    fields = (
        "--query-gpu=index,memory.used,mig.mode.current,ecc.errors.uncorrected.volatile.total,compute_cap"
    )
    done = smi(gpus, fields, "--format=csv,noheader,nounits")
    assert done.stdout == "0, 0, Enabled, 0, 8.0\n1, 4000, Disabled, 3, 8.0\n"
    apps = smi(gpus, "--query-compute-apps=pid,used_memory", "--format=csv,noheader")
    assert apps.stdout == "4242, 4000 MiB\n"


# ---- dockerd --validate

# messages of 20.10.24, run as the user nobody, for a file that it accepts and one that it refuses
AS_NOBODY = "time=2026 level=info msg=Starting up\ndockerd needs to be started with root privileges. To run"
UNKNOWN_KEY = (
    "unable to configure the Docker daemon with file /n: the following directives don't match any configuration "
    "option: log-levels"
)


@pytest.mark.parametrize(
    ("said", "code", "answer"), [(AS_NOBODY, 0, "configuration OK\n"), (UNKNOWN_KEY, 1, f"{UNKNOWN_KEY}\n")]
)
def test_dockerd_validate_answers_as_version_23(tmp_path: Path, said: str, code: int, answer: str) -> None:
    real = tmp_path / "real"
    real.write_text(f"#!/bin/sh\necho \"$@\" >{tmp_path}/asked\ncat >&2 <<'E'\n{said}\nE\nexit 1\n")
    (tmp_path / "setpriv").write_text('#!/bin/sh\nshift 3\nexec "$@"\n')
    for program in ("real", "setpriv"):
        (tmp_path / program).chmod(0o755)
    words = ["sh", str(BIN.parents[1] / "rpm" / "files" / "dockerd"), "-H", "fd://"]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LAB_DOCKERD": str(real)}

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*words, *more], capture_output=True, text=True, check=False, env=environment)

    done = run("--validate", "--config-file=/n")
    assert (done.returncode, done.stdout, done.stderr) == (code, "", answer)
    assert (tmp_path / "asked").read_text() == "-H fd:// --config-file=/n\n"
    # anything else is the program's own
    assert run().stderr == f"{said}\n"


# ---- nvidia-ctk and the container runtime


def ctk(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BIN / "nvidia-ctk"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_ctk_merges_into_an_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text('{"log-opts": {"max-size": "10m"}, "runtimes": {"other": {"path": "x"}}}')
    inode = path.stat().st_ino
    done = ctk(
        "runtime", "configure", "--runtime=docker", f"--config={path}", "--set-as-default", "--cdi.enabled"
    )
    assert done.returncode == 0
    assert json.loads(path.read_text()) == {
        "log-opts": {"max-size": "10m"},
        "default-runtime": "nvidia",
        "features": {"cdi": True},
        "runtimes": {"other": {"path": "x"}, "nvidia": {"args": [], "path": "nvidia-container-runtime"}},
    }
    assert path.stat().st_ino == inode  # written in place, as the real tool does


def test_ctk_creates_the_file_and_keeps_a_broken_one(tmp_path: Path) -> None:
    path = tmp_path / "docker" / "daemon.json"
    assert ctk("runtime", "configure", "--config", str(path)).returncode == 0
    assert json.loads(path.read_text()) == {
        "runtimes": {"nvidia": {"args": [], "path": "nvidia-container-runtime"}}
    }
    path.write_text('{"runtimes": ')
    done = ctk("runtime", "configure", f"--config={path}")
    assert done.returncode == 1
    assert "unable to load config" in done.stderr
    assert path.read_text() == '{"runtimes": '


def run_runtime(tmp_path: Path, visible: str | None, gpus: str) -> tuple[dict[str, Any], str, str]:
    """What the runtime does with a bundle: (config, the container's gpus file, standard error)."""
    (tmp_path / "gpus").write_text(gpus)
    for name in ("nvidia-smi", "nvidia-container-runtime"):
        text = (BIN / name).read_text()
        text = text.replace('/etc/lab/gpus"', f'{tmp_path}/gpus"').replace(
            'NVIDIA_SMI = Path("/usr/bin/', f'NVIDIA_SMI = Path("{tmp_path}/'
        )
        (tmp_path / name).write_text(text.replace('bind(seen.resolve(), f"', 'bind(seen.resolve(), "'))
        (tmp_path / name).chmod(0o755)
    environment = ["PATH=/bin"] + ([] if visible is None else [f"NVIDIA_VISIBLE_DEVICES={visible}"])
    bundle = tmp_path / "bundle"
    bundle.mkdir(exist_ok=True)
    (bundle / "config.json").write_text(json.dumps({"process": {"env": environment}, "mounts": []}))
    command = [
        str(tmp_path / "nvidia-container-runtime"),
        "--root",
        "/x",
        "create",
        "--bundle",
        str(bundle),
        "id",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "LAB_RUNC": "echo"}, check=False
    )
    seen = bundle / "lab-gpus"
    config = json.loads((bundle / "config.json").read_text())
    return config, seen.read_text() if seen.exists() else "", done.stdout + done.stderr


def test_runtime_shows_the_chosen_gpus(tmp_path: Path) -> None:
    config, seen, said = run_runtime(tmp_path, "1", "NVIDIA A10:2\nseed=s\n")
    assert said.strip() == f"--root /x create --bundle {tmp_path}/bundle id"
    assert [mount["source"] for mount in config["mounts"]] == [
        f"{tmp_path}/nvidia-smi",
        f"{tmp_path}/bundle/lab-gpus",
    ]
    whole, restricted = tmp_path / "gpus", tmp_path / "restricted"
    restricted.write_text(seen)
    inside = smi(restricted, "-L").stdout
    assert inside.startswith("GPU 0: NVIDIA A10")
    assert inside.split("UUID: ")[1] == smi(whole, "-L").stdout.splitlines()[1].split("UUID: ")[1] + "\n"


@pytest.mark.parametrize("visible", [None, "", "void"])
def test_runtime_leaves_other_containers_alone(tmp_path: Path, visible: str | None) -> None:
    config, seen, _ = run_runtime(tmp_path, visible, "NVIDIA A10:1\n")
    assert (config["mounts"], seen) == ([], "")


def test_runtime_refuses_missing_devices_and_drivers(tmp_path: Path) -> None:
    assert "device error: 7: unknown device" in run_runtime(tmp_path, "7", "NVIDIA A10:1\n")[2]
    assert "driver not loaded" in run_runtime(tmp_path, "all", "NVIDIA A10:1\ndriver=missing\n")[2]


# ---- TensorRT-LLM

SMALL = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with random weights in the Hugging Face format."""
    folder = tmp_path_factory.mktemp("model")
    dice = np.random.default_rng(7)
    hidden, wide = 32, 48

    def random(*shape: int) -> Any:
        return (dice.standard_normal(shape) * 0.25).astype(np.float16)

    tensors = {
        "model.embed_tokens.weight": random(96, hidden),
        "model.norm.weight": np.ones(hidden, np.float16),
    }
    for layer in range(2):
        name = f"model.layers.{layer}."
        for part, shape in (
            ("self_attn.q_proj", (hidden, hidden)),
            ("self_attn.k_proj", (16, hidden)),
            ("self_attn.v_proj", (16, hidden)),
            ("self_attn.o_proj", (hidden, hidden)),
            ("mlp.gate_proj", (wide, hidden)),
            ("mlp.up_proj", (wide, hidden)),
            ("mlp.down_proj", (hidden, wide)),
        ):
            tensors[f"{name}{part}.weight"] = random(*shape)
        for part in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{name}{part}.weight"] = (1 + random(hidden)).astype(np.float16)
    save_file(tensors, str(folder / "model.safetensors"))
    (folder / "config.json").write_text(json.dumps(SMALL))
    return folder


def reference(model: Path, prompt: list[int], count: int) -> list[int]:
    """Greedy tokens by the simplest implementation: no cache, one head at a time."""
    w = {
        name: tensor.astype(np.float64)
        for name, tensor in load_file(str(model / "model.safetensors")).items()
    }

    def norm(x: Any, weight: Any) -> Any:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * weight

    def turn(x: Any) -> Any:
        angle = np.arange(len(x))[:, None] / 10000.0 ** (np.arange(4) / 4)
        a, b = x[:, :4], x[:, 4:]
        return np.hstack([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)])

    ids = list(prompt)
    for _ in range(count):
        x = w["model.embed_tokens.weight"][ids]
        for layer in range(2):
            n = f"model.layers.{layer}."
            h = norm(x, w[n + "input_layernorm.weight"])
            q, k, v = (h @ w[f"{n}self_attn.{part}_proj.weight"].T for part in "qkv")
            heads = []
            for head in range(4):
                mine, shared = slice(head * 8, head * 8 + 8), slice(head // 2 * 8, head // 2 * 8 + 8)
                score = turn(q[:, mine]) @ turn(k[:, shared]).T / np.sqrt(8)
                score[np.triu_indices(len(ids), 1)] = -np.inf
                odds = np.exp(score - score.max(-1, keepdims=True))
                heads.append(odds / odds.sum(-1, keepdims=True) @ v[:, shared])
            x = x + np.hstack(heads) @ w[n + "self_attn.o_proj.weight"].T
            h = norm(x, w[n + "post_attention_layernorm.weight"])
            gate = h @ w[n + "mlp.gate_proj.weight"].T
            up = h @ w[n + "mlp.up_proj.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * up) @ w[n + "mlp.down_proj.weight"].T
        ids.append(int((norm(x[-1], w["model.norm.weight"]) @ w["model.embed_tokens.weight"].T).argmax()))
    return ids[len(prompt) :]


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path / "install", "v0.13.0")


@pytest.mark.parametrize(
    ("words", "gpus"),
    [
        ([], 1),
        (["--tp_size", "2"], 2),
        (["--tp_size", "4"], 4),
        (["--pp_size", "2"], 2),
        (["--tp_size", "2", "--use_parallel_embedding"], 2),
    ],
)
def test_decoder_matches_a_plain_implementation(
    installed: Installed, model: Path, words: list[str], gpus: int
) -> None:
    installed.see(f"NVIDIA A10:{gpus}")
    assert installed.convert(model, *words).returncode == 0
    assert installed.build("--gemm_plugin", "auto").returncode == 0
    assert installed.decode() == reference(model, PROMPT, 12)
    engine = installed.folder / "engine"
    config = json.loads((engine / "config.json").read_text())
    assert config["version"] == "0.13.0"
    assert config["pretrained_config"]["mapping"]["world_size"] == gpus
    assert len(list(engine.glob("rank*.engine"))) == gpus
    assert config["build_config"]["max_seq_len"] == 128
    assert config["build_config"]["plugin_config"]["gemm_plugin"] == "float16"


def test_quantized_weights_are_smaller_and_close(installed: Installed, model: Path, tmp_path: Path) -> None:
    assert installed.convert(model, "--use_weight_only").returncode == 0
    stored = load_file(str(installed.folder / "checkpoint" / "rank0.safetensors"))
    assert stored["transformer.layers.0.mlp.fc.weight"].dtype == np.int8
    script = "examples/quantization/quantize.py"
    wish = [
        "--qformat",
        "int4_awq",
        "--awq_block_size",
        "16",
        "--model_dir",
        str(model),
        "--output_dir",
        "checkpoint",
        "--calib_dataset",
        str(calibration_data.build(tmp_path)),
    ]
    done = installed.run(script, *wish)
    assert done.returncode == 0, done.stderr
    config = json.loads((installed.folder / "checkpoint" / "config.json").read_text())
    assert config["quantization"]["quant_algo"] == "W4A16_AWQ"
    assert installed.build().returncode == 0
    assert len(installed.decode(5)) == 5
    wish[3] = "7"
    assert "does not divide" in installed.run(script, *wish).stderr
    assert (
        "this stand-in knows" in installed.run(script, "--qformat", "fp8", "--model_dir", str(model)).stderr
    )


@pytest.mark.parametrize(
    ("version", "words", "known"),
    [
        ("v0.10.0", ["--max_output_len", "9"], True),
        ("v0.12.0", ["--max_output_len", "9"], False),
        ("v0.10.0", ["--max_seq_len", "9"], False),
        ("v0.11.0", ["--max_seq_len", "9"], True),
        ("v0.11.0", ["--tp_size", "1"], True),
        ("v0.12.0", ["--tp_size", "1"], False),
        ("v0.12.0", ["--kv_cache_type", "paged"], False),
        ("v0.13.0", ["--kv_cache_type", "paged"], True),
        ("v0.12.0", ["--use_fused_mlp"], True),
        ("v0.13.0", ["--use_fused_mlp", "enable"], True),
        ("v0.11.0", ["--multi_block_mode", "enable"], True),
        ("v0.12.0", ["--multi_block_mode", "enable"], False),
        ("v0.13.0", ["--enable_xqa", "enable"], True),
        ("v0.16.0", ["--enable_xqa", "enable"], False),
        ("v0.13.0", ["--warp_drive"], False),
    ],
)
def test_build_flags_exist_only_in_their_versions(
    tmp_path: Path, version: str, words: list[str], known: bool
) -> None:
    done = Installed(tmp_path / "install", version).build(*words)
    if known:
        assert done.returncode == 1  # then it fails for the next reason: there is no checkpoint
        assert "config.json cannot be read" in done.stdout
    else:
        assert done.returncode == 2
        assert f"unrecognized arguments: {' '.join(words)}" in done.stderr


def test_converter_flags_exist_only_in_their_versions(tmp_path: Path, model: Path) -> None:
    old, new = Installed(tmp_path / "old", "v0.10.0"), Installed(tmp_path / "new", "v0.11.0")
    assert old.convert(model, "--moe_tp_mode", "2").returncode == 0
    assert "unrecognized arguments: --moe_tp_mode" in new.convert(model, "--moe_tp_mode", "2").stderr
    assert new.convert(model, "--tp_size", "2", "--moe_ep_size", "2").returncode == 0
    uneven = new.convert(model, "--tp_size", "2", "--moe_ep_size", "2", "--moe_tp_size", "2")
    assert "moe_tp_size * moe_ep_size" in uneven.stderr
    assert "AssertionError" in new.convert(model, "--tp_size", "3").stderr


def test_build_needs_a_gpu(installed: Installed, model: Path) -> None:
    installed.convert(model)
    installed.see("driver=missing")
    done = installed.build()
    assert done.returncode == 1
    assert "no CUDA-capable device is detected" in done.stdout
    assert not (installed.folder / "engine").exists()


FAKE_TRITON = '''
"""Enough of Triton's Python backend utilities to load a model and ask it one thing."""
import types
class TritonModelException(Exception): pass
class Logger:
    log_info = log_warn = log_error = staticmethod(lambda text: print(text))
def using_decoupled_model_transaction_policy(config):
    return config.get("model_transaction_policy", {}).get("decoupled", False)
class Tensor:
    def __init__(self, name, value): self.name, self.value = name, value
    def as_numpy(self): return self.value
class InferenceResponse:
    def __init__(self, output_tensors=(), error=None): self.tensors, self.error = output_tensors, error
class TritonError(Exception):
    CANCELLED = 1
def get_input_tensor_by_name(request, name):
    return request.tensors.get(name)
TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
class MetricFamily:
    GAUGE = "gauge"
    def __init__(self, name, description, kind): pass
    def Metric(self, labels): return types.SimpleNamespace(set=lambda value: None)
'''
ASK = """
import importlib.util, json, sys, types
import numpy as np
import triton_python_backend_utils as pb
spec = importlib.util.spec_from_file_location("model", "triton_backend/tensorrtllm/model.py")
module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)
parameters = {"gpt_model_type": "inflight_fused_batching", "gpt_model_path": "engine", "exclude_input_in_output": "true"}
parameters.update(json.loads(sys.argv[1]))
config = {"parameters": {k: {"string_value": v} for k, v in parameters.items()},
          "output": [{"name": n, "data_type": t, "dims": d} for n, t, d in (("output_ids", "TYPE_INT32", [-1, -1]),
                     ("sequence_length", "TYPE_INT32", [-1]), ("something_new", "TYPE_INT32", [1]))]}
model = module.TritonPythonModel()
model.initialize({"model_config": json.dumps(config), "model_name": "tensorrt_llm", "model_version": "1"})
inputs = {"input_ids": np.array([PROMPT]), "request_output_len": np.array([[6]])}
request = types.SimpleNamespace(tensors={k: pb.Tensor(k, v) for k, v in inputs.items()}, is_cancelled=lambda: False)
print(json.dumps({t.name: t.value.tolist() for t in model.execute([request])[0].tensors}))
""".replace("PROMPT", str(PROMPT))


def ask(installed: Installed, parameters: dict[str, str] | None = None, **variables: str) -> tuple[int, str]:
    (installed.folder / "triton_python_backend_utils.py").write_text(FAKE_TRITON)
    done = installed.run("-c", ASK, json.dumps(parameters or {}), **variables)
    return done.returncode, done.stdout + done.stderr


def test_backend_answers(installed: Installed, model: Path) -> None:
    installed.convert(model)
    installed.build()
    status, said = ask(installed)
    assert status == 0, said
    assert json.loads(said.splitlines()[-1]) == {
        "output_ids": [[reference(model, PROMPT, 6)]],
        "sequence_length": [[6]],
        "something_new": [[0]],
    }
    assert "[stand-in]" in said


def test_backend_refuses_with_the_real_messages(installed: Installed, model: Path) -> None:
    installed.see("NVIDIA A10:2")
    installed.convert(model)
    installed.build()
    engine = installed.folder / "engine" / "rank0.engine"
    whole = engine.read_bytes()

    def refusal(**variables: str) -> str:
        status, said = ask(installed, None, **variables)
        assert status != 0
        return said

    assert "With communicationMode kLEADER, MPI worldSize is expected to be equal to tp*pp when" in refusal(
        OMPI_COMM_WORLD_SIZE="2"
    )
    installed.see("NVIDIA A100-SXM4-80GB:1")
    other = refusal()
    assert (
        "generated on an incompatible device, expecting compute 8.0 got compute 8.6, please rebuild" in other
    )
    assert "Assertion failed: Failed to deserialize cuda engine" in other
    installed.see("NVIDIA A10G:1")
    assert "Using an engine plan file across different models of devices" in ask(installed)[1]
    installed.see("NVIDIA A10:1")
    engine.write_bytes(whole[:-100])
    assert "Failed to deserialize cuda engine" in refusal()
    engine.write_bytes(whole[:10])
    assert "Failed to deserialize cuda engine" in refusal()
    engine.write_bytes(whole[:-4] + b"abcd")
    assert "Failed to deserialize cuda engine" in refusal()
    engine.unlink()
    assert "Error opening engine file" in refusal()
    status, said = ask(installed, {"gpt_model_type": "${batching_strategy}"})
    assert status and "Invalid gpt_model_type. Must be v1/inflight_batching/inflight_fused_batching" in said
    status, said = ask(installed, {"gpt_model_path": "${engine_dir}"})
    assert status and "Both encoder and decoder model paths are empty" in said


def test_engine_of_another_release_is_refused(tmp_path: Path, model: Path) -> None:
    old, new = Installed(tmp_path / "old", "v0.10.0"), Installed(tmp_path / "new", "v0.13.0")
    old.convert(model)
    old.build("--max_input_len", "64", "--max_output_len", "32")
    (old.folder / "engine").rename(new.folder / "engine")
    _, said = ask(new)
    assert "stdVersionRead == kSERIALIZATION_VERSION failed.Version tag does not match." in said
    assert "Serialized Engine Version: 237" in said
    assert "Failed to deserialize cuda engine" in said


def test_backend_refuses_too_few_gpus_and_an_uneven_world(installed: Installed, model: Path) -> None:
    installed.see("NVIDIA A10:2")
    installed.convert(model, "--tp_size", "2")
    installed.build()
    assert "kLEADER" in ask(installed)[1]
    installed.see("NVIDIA A10:1")
    said = ask(installed, OMPI_COMM_WORLD_SIZE="2", OMPI_COMM_WORLD_RANK="0")[1]
    assert "Number of GPUs per node 1 must be at least as large as TP (2) * PP (1)" in said


def test_engine_larger_than_free_memory_is_refused(installed: Installed, model: Path) -> None:
    installed.see("NVIDIA A10:1")
    installed.convert(model)
    installed.build()
    status, said = ask(installed)
    assert status == 0, said
    installed.see("NVIDIA A10:1\nused_mib=22531")
    status, said = ask(installed)
    assert status and "[TensorRT-LLM][ERROR] CUDA runtime error in ::cudaMallocAsync(" in said
    assert "out of memory" in said


# ---- mpirun


def test_mpirun_starts_ranks_and_ends_with_the_first() -> None:
    command = ["mpirun", "--allow-run-as-root"]
    report = "echo $OMPI_COMM_WORLD_RANK of $OMPI_COMM_WORLD_SIZE; "
    command += ["-n", "1", "sh", "-c", report + "sleep 0.3; exit 3", ":"]
    command += ["-n", "1", "sh", "-c", report + "sleep 60", ":"]
    done = subprocess.run(
        [sys.executable, str(HERE / "image" / command[0]), *command[1:]],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 3
    assert {"0 of 2", "1 of 2"} <= set(done.stdout.splitlines())


# ---- images and trees


def test_layers_are_the_same_bytes_for_the_same_files(tmp_path: Path) -> None:
    for number, order in enumerate((("b", "a"), ("a", "b"))):
        tree = tmp_path / f"tree{number}"
        (tree / "etc").mkdir(parents=True)
        for name in order:
            (tree / "etc" / name).write_text(name)
            os.utime(tree / "etc" / name, (number, number))
        (tree / "link").symlink_to("etc/a")
        os.link(tree / "etc" / "a", tree / "hard")
    files: dict[str, FileContent] = {"app/x": (b"run", 0o755), "app/deep/y": b"read"}
    first = write_layer(tmp_path / "tree0.tar.gz", tmp_path / "tree0", files)
    second = write_layer(tmp_path / "tree1.tar.gz", tmp_path / "tree1", files)
    assert (first.digest, first.diff_id, first.size) == (second.digest, second.diff_id, second.size)
    manifest, config = (
        json.loads(part) for part in image_documents({"Env": []}, [first], "2024-09-25T00:00:00Z")
    )
    assert manifest["layers"][0]["digest"] == second.digest
    assert config["rootfs"]["diff_ids"] == [second.diff_id]


@pytest.mark.parametrize("version", sorted(BASE_TAGS))
def test_trees_of_all_versions(version: str) -> None:
    tree = standins.tensorrt_llm_tree(version)
    assert f'__version__ = "{version[1:]}"'.encode() in bytes(tree["tensorrt_llm/version.py"])  # type: ignore[arg-type]
    for name in ("README.md", "examples/llama/convert_checkpoint.py", "examples/quantization/quantize.py"):
        assert name in tree
    assert not [name for name in tree if "__pycache__" in name]
    assert "opt/tritonserver/backends/tensorrtllm/model.py" in installed_files(version)
    recipe = standins.dockerfile(version).decode()
    assert f"ARG BASE_TAG={BASE_TAGS[version]}\n" in recipe
    assert ("FROM ${PYTORCH_IMAGE} AS" in recipe) is (version in PYTORCH_IMAGES)
    assert DOCKERFILES[version] == Dockerfile(
        f"nvidia/tritonserver:{BASE_TAGS[version]}", PYTORCH_IMAGES.get(version, "")
    )
    assert "stand-in" in recipe


SCRIPTS = {
    "llama": (CONVERT["llama"], "examples/**/llama/convert_checkpoint.py"),
    "gpt": (CONVERT["gpt"], "examples/**/gpt/convert_checkpoint.py"),
    "quantize": (QUANTIZE, "examples/**/quantize.py"),
    "build": (TRTLLM_BUILD, "scripts/trtllm-build"),
}


@pytest.mark.parametrize("version", VERSIONS)
def test_stand_in_knows_every_flag_of_the_plan(tmp_path: Path, version: str) -> None:
    """The plan and the stand-in list the same flags: if they differ, one of them is wrong."""
    installed = Installed(tmp_path, version)
    for table, pattern in SCRIPTS.values():
        (script,) = tmp_path.glob(pattern)
        known = set(re.findall(r"--(\w+)", installed.run(str(script), "--help").stdout))
        planned = {name for name, flag in table.items() if flag.exists_in(version_tuple(version))}
        assert planned <= known, f"{pattern}: {sorted(planned - known)}"


def test_tritonserver_drops_flags_of_later_versions(tmp_path: Path) -> None:
    script = (Path(__file__).parent / "image" / "tritonserver").read_text()
    (tmp_path / "tritonserver").write_text(
        script.replace("exec /opt/tritonserver/bin/tritonserver", "exec echo")
    )
    options = ["--http-port=1", "--allow-client-shm=false", "--id=a b", "--http-max-input-size=1"]
    done = subprocess.run(["sh", str(tmp_path / "tritonserver"), *options], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "--http-port=1 --id=a b"
    assert done.stdout.count("[stand-in] tritonserver 2.51.0 does not know --") == 2
