"""The stand-in's output, compared with plain implementations that share only the formulas with it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from operations.plan.catalog.models import MODELS
from operations.plan.catalog.support_matrix import converter_folder
from tests.lab.standins import calibration_data
from tests.lab.standins.installed import PROMPT, Installed

Weights = dict[str, Any]
VOCABULARY, HIDDEN = 96, 32
COUNT = 10


def bfloat16(values: Any) -> Any:
    """Rounded to 8 bits of mantissa, still as 32-bit floats."""
    mantissa, exponent = np.frexp(np.asarray(values, np.float64))
    return np.ldexp(np.rint(mantissa * 256) / 256, exponent).astype(np.float32)


def write(folder: Path, config: dict[str, Any], weights: Weights, label: str, shards: int = 1) -> Path:
    """A Hugging Face folder; the safetensors files are written without the library."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    places = {}
    for shard in range(shards):
        name = "model.safetensors" if shards == 1 else f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        header, content = dict[str, Any](), b""
        for tensor in sorted(weights)[shard::shards]:
            values = weights[tensor]
            if label == "BF16":
                raw = (values.astype(np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
            else:
                raw = values.astype({"F16": "<f2", "F32": "<f4"}[label]).tobytes()
            span = [len(content), len(content) + len(raw)]
            header[tensor] = {"dtype": label, "shape": list(values.shape), "data_offsets": span}
            content += raw
            places[tensor] = name
        head = json.dumps(header).encode()
        (folder / name).write_bytes(len(head).to_bytes(8, "little") + head + content)
    if shards > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


def dice(shape: tuple[int, ...], seed: int, scale: float = 0.25) -> Any:
    return bfloat16(np.random.default_rng(seed).standard_normal(shape) * scale)


def greedy(step: Callable[[list[int]], Any]) -> list[int]:
    ids = list(PROMPT)
    for _ in range(COUNT):
        ids.append(int(step(ids).argmax()))
    return ids[len(PROMPT) :]


def attention(q: Any, k: Any, v: Any, size: int) -> Any:
    """Head by head and position by position; several query heads may share one head of keys and values."""
    heads, shared = q.shape[1] // size, k.shape[1] // size
    result = np.zeros_like(q)
    for head in range(heads):
        mine = slice(head * size, (head + 1) * size)
        other = head * shared // heads
        theirs = slice(other * size, (other + 1) * size)
        for position in range(len(q)):
            scores = [
                float(q[position, mine] @ k[past, theirs]) / math.sqrt(size) for past in range(position + 1)
            ]
            odds = [math.exp(score - max(scores)) for score in scores]
            for past, share in enumerate(odds):
                result[position, mine] += share / sum(odds) * v[past, theirs]
    return result


# ---- GPT-2

GPT2 = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "torch_dtype": "float32",
    "vocab_size": VOCABULARY,
    "n_embd": HIDDEN,
    "n_head": 4,
    "n_layer": 2,
    "n_positions": 64,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
}


def gpt2_weights() -> Weights:
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (VOCABULARY, HIDDEN), "wpe.weight": (64, HIDDEN)}
    for layer in range(2):
        for part, rows, columns in (
            ("attn.c_attn", HIDDEN, 3 * HIDDEN),
            ("attn.c_proj", HIDDEN, HIDDEN),
            ("mlp.c_fc", HIDDEN, 4 * HIDDEN),
            ("mlp.c_proj", 4 * HIDDEN, HIDDEN),
        ):
            shapes |= {f"h.{layer}.{part}.weight": (rows, columns), f"h.{layer}.{part}.bias": (columns,)}
        for part in ("ln_1", "ln_2"):
            shapes |= {f"h.{layer}.{part}.{kind}": (HIDDEN,) for kind in ("weight", "bias")}
    shapes |= {f"ln_f.{kind}": (HIDDEN,) for kind in ("weight", "bias")}
    return {name: dice(shape, seed) for seed, (name, shape) in enumerate(shapes.items())}


def gpt2_logits(w: Weights, ids: list[int]) -> Any:
    def norm(x: Any, name: str) -> Any:
        rows = [(row - row.mean()) / math.sqrt(row.var() + 1e-5) for row in x]
        return np.array(rows) * w[name + ".weight"] + w[name + ".bias"]

    def linear(x: Any, name: str) -> Any:
        return x @ w[name + ".weight"] + w[name + ".bias"]

    x = np.array([w["wte.weight"][token] + w["wpe.weight"][place] for place, token in enumerate(ids)])
    for layer in range(2):
        n = f"h.{layer}."
        q, k, v = np.hsplit(linear(norm(x, n + "ln_1"), n + "attn.c_attn"), 3)
        x = x + linear(attention(q, k, v, 8), n + "attn.c_proj")
        inner = linear(norm(x, n + "ln_2"), n + "mlp.c_fc")
        inner = 0.5 * inner * (1 + np.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
        x = x + linear(inner, n + "mlp.c_proj")
    return norm(x, "ln_f")[-1] @ w["wte.weight"].T


@pytest.mark.parametrize(("version", "ranks"), [("v0.13.0", 1), ("v0.13.0", 2), ("v1.2.1", 1)])
def test_gpt2(tmp_path: Path, version: str, ranks: int) -> None:
    weights = gpt2_weights()
    model = write(tmp_path / "model", GPT2, weights, "F32")
    installed = Installed(tmp_path / "install", version)
    installed.see(f"NVIDIA A10:{ranks}")
    done = installed.convert(model, "--dtype", "float32", "--tp_size", str(ranks), family="gpt")
    assert done.returncode == 0, done.stderr
    assert installed.build().returncode == 0
    wide = {name: values.astype(np.float64) for name, values in weights.items()}
    assert installed.decode(COUNT) == greedy(lambda ids: gpt2_logits(wide, ids))
    refused = installed.convert(model, family="llama")
    assert "architecture GPT2LMHeadModel: this stand-in converts LlamaForCausalLM" in refused.stderr


@pytest.mark.parametrize(("version", "guessed"), [("v0.9.0", False), ("v0.13.0", False), ("v0.16.0", True)])
def test_gpt_variant_is_guessed_from_the_path(tmp_path: Path, version: str, guessed: bool) -> None:
    """Like the real converter up to 0.13, which ends with an error if the path does not name a variant."""
    model = write(tmp_path / "weights", GPT2, gpt2_weights(), "F32")
    installed = Installed(tmp_path / "install", version)
    done = installed.convert(model, "--dtype", "float32", family="gpt")
    assert (done.returncode == 0) is guessed, done.stderr
    if not guessed:
        assert "AssertionError" in done.stderr
    told = installed.convert(model, "--dtype", "float32", "--gpt_variant", "gpt2", family="gpt")
    assert told.returncode == 0, told.stderr


# ---- Llama, Mistral, Mixtral

EXPERTS, INNER = 4, 48


def llama_config(**values: Any) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "torch_dtype": "bfloat16",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 128,
        "tie_word_embeddings": False,
        **values,
    }


def llama_weights(config: dict[str, Any]) -> Weights:
    size = config.get("head_dim", 8)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "lm_head.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    for layer in range(2):
        n = f"model.layers.{layer}."
        shapes |= {
            n + "self_attn.q_proj.weight": (4 * size, HIDDEN),
            n + "self_attn.k_proj.weight": (2 * size, HIDDEN),
            n + "self_attn.v_proj.weight": (2 * size, HIDDEN),
            n + "self_attn.o_proj.weight": (HIDDEN, 4 * size),
            n + "input_layernorm.weight": (HIDDEN,),
            n + "post_attention_layernorm.weight": (HIDDEN,),
        }
        if "num_local_experts" in config:
            shapes[n + "block_sparse_moe.gate.weight"] = (EXPERTS, HIDDEN)
            for expert in range(EXPERTS):
                e = f"{n}block_sparse_moe.experts.{expert}."
                shapes |= {e + "w1.weight": (INNER, HIDDEN), e + "w3.weight": (INNER, HIDDEN)}
                shapes[e + "w2.weight"] = (HIDDEN, INNER)
        else:
            shapes |= {f"{n}mlp.{part}_proj.weight": (INNER, HIDDEN) for part in ("gate", "up")}
            shapes[n + "mlp.down_proj.weight"] = (HIDDEN, INNER)
        if config["architectures"] == ["Qwen2ForCausalLM"]:
            heads = {"q": 4, "k": 2, "v": 2}
            shapes |= {f"{n}self_attn.{part}_proj.bias": (heads[part] * size,) for part in heads}
        if config["architectures"] == ["Qwen3ForCausalLM"]:
            shapes |= {f"{n}self_attn.{part}_norm.weight": (size,) for part in "qk"}
    return {
        name: bfloat16(dice(shape, seed) + (len(shape) == 1))
        for seed, (name, shape) in enumerate(shapes.items())
    }


def frequency(pair: int, size: int, scaling: dict[str, Any] | None) -> float:
    plain = float(10000.0 ** (-2 * pair / size))
    if scaling is None:
        return plain
    old, factor = scaling["original_max_position_embeddings"], scaling["factor"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    wavelength = 2 * math.pi / plain
    if wavelength < old / high:
        return plain
    if wavelength > old / low:
        return float(plain / factor)
    smooth = (old / wavelength - low) / (high - low)
    return float((1 - smooth) * plain / factor + smooth * plain)


def turned(x: Any, size: int, scaling: dict[str, Any] | None) -> Any:
    result = np.array(x)
    for position in range(len(x)):
        for start in range(0, x.shape[1], size):
            for pair in range(size // 2):
                one, two = start + pair, start + pair + size // 2
                angle = position * frequency(pair, size, scaling)
                a, b = x[position, one], x[position, two]
                result[position, one] = a * math.cos(angle) - b * math.sin(angle)
                result[position, two] = b * math.cos(angle) + a * math.sin(angle)
    return result


def silu(x: Any) -> Any:
    return x / (1 + np.exp(-x))


def llama_logits(w: Weights, config: dict[str, Any], ids: list[int]) -> Any:
    size, scaling = config.get("head_dim", 8), config.get("rope_scaling")

    def norm(x: Any, name: str) -> Any:
        return np.array([row / math.sqrt((row**2).mean() + 1e-5) for row in x]) * w[name + ".weight"]

    def head_by_head(x: Any, name: str) -> Any:
        return np.hstack([norm(head, name) for head in np.hsplit(x, x.shape[1] // size)])

    def expert(x: Any, name: str) -> Any:
        return w[name + "w2.weight"] @ (silu(w[name + "w1.weight"] @ x) * (w[name + "w3.weight"] @ x))

    def mixture(x: Any, n: str) -> Any:
        scores = w[n + "block_sparse_moe.gate.weight"] @ x
        odds = np.exp(scores) / np.exp(scores).sum()
        best = sorted(range(EXPERTS), key=lambda number: -odds[number])[:2]
        return sum(
            odds[number]
            / sum(odds[other] for other in best)
            * expert(x, f"{n}block_sparse_moe.experts.{number}.")
            for number in best
        )

    x = w["model.embed_tokens.weight"][ids]
    for layer in range(2):
        n = f"model.layers.{layer}."
        h = norm(x, n + "input_layernorm")
        q, k, v = (
            h @ w[f"{n}self_attn.{part}_proj.weight"].T + w.get(f"{n}self_attn.{part}_proj.bias", 0)
            for part in "qkv"
        )
        if n + "self_attn.q_norm.weight" in w:
            q, k = (head_by_head(x, f"{n}self_attn.{part}_norm") for part, x in (("q", q), ("k", k)))
        mixed = attention(turned(q, size, scaling), turned(k, size, scaling), v, size)
        x = x + mixed @ w[n + "self_attn.o_proj.weight"].T
        h = norm(x, n + "post_attention_layernorm")
        if "num_local_experts" in config:
            x = x + np.array([mixture(row, n) for row in h])
        else:
            inner = silu(h @ w[n + "mlp.gate_proj.weight"].T) * (h @ w[n + "mlp.up_proj.weight"].T)
            x = x + inner @ w[n + "mlp.down_proj.weight"].T
    output = "model.embed_tokens" if config["tie_word_embeddings"] else "lm_head"
    return norm(x, "model.norm")[-1] @ w[output + ".weight"].T


MIXTRAL = llama_config(architectures=["MixtralForCausalLM"], num_local_experts=EXPERTS, num_experts_per_tok=2)
NEMO = llama_config(architectures=["MistralForCausalLM"], head_dim=12)
# So short that all three cases of the scaling occur within the few positions of a test.
SCALED = llama_config(
    rope_scaling={
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
)


@pytest.mark.parametrize(
    ("config", "words", "ranks", "shards"),
    [
        (MIXTRAL, [], 1, 1),
        (MIXTRAL, ["--tp_size", "4"], 4, 3),
        (MIXTRAL, ["--tp_size", "2", "--pp_size", "2"], 4, 1),
        (MIXTRAL, ["--tp_size", "4", "--moe_ep_size", "4"], 4, 1),
        (MIXTRAL, ["--tp_size", "4", "--moe_ep_size", "2"], 4, 1),
        (NEMO, [], 1, 2),
        (NEMO, ["--tp_size", "2"], 2, 1),
        (SCALED, [], 1, 1),
    ],
)
def test_llama_family_decodes_like_the_reference(
    tmp_path: Path, config: dict[str, Any], words: list[str], ranks: int, shards: int
) -> None:
    weights = llama_weights(config)
    model = write(tmp_path / "model", config, weights, "BF16", shards)
    (model / "consolidated.safetensors").write_bytes(b"another format, not to be read")
    installed = Installed(tmp_path / "install", "v0.13.0")
    installed.see(f"NVIDIA A100-SXM4-40GB:{ranks}")
    done = installed.convert(model, "--dtype", "bfloat16", *words)
    assert done.returncode == 0, done.stderr
    assert installed.build("--gemm_plugin", "bfloat16").returncode == 0
    wide = {name: bfloat16(values).astype(np.float64) for name, values in weights.items()}
    assert installed.decode(COUNT) == greedy(lambda ids: llama_logits(wide, config, ids))


# ---- Qwen and Phi, which the LLM API serves and no converter of this stand-in reads

QWEN2 = llama_config(architectures=["Qwen2ForCausalLM"], tie_word_embeddings=True)
QWEN3 = llama_config(architectures=["Qwen3ForCausalLM"], head_dim=12)
PHI3 = llama_config(architectures=["Phi3ForCausalLM"])


def fused(weights: Weights) -> Weights:
    """The same weights as Phi-3's folder has them."""
    result = dict(weights)
    for layer in range(2):
        n = f"model.layers.{layer}."
        for target, parts in (("self_attn.qkv_proj", "qkv"), ("mlp.gate_up_proj", ("gate", "up"))):
            block = target.partition(".")[0]
            result[f"{n}{target}.weight"] = np.vstack(
                [result.pop(f"{n}{block}.{part}_proj.weight") for part in parts]
            )
    return result


@pytest.mark.parametrize(
    ("config", "since"),
    [(NEMO, "v1.0.0"), (SCALED, "v1.0.0"), (QWEN2, "v1.0.0"), (QWEN3, "v1.0.0"), (PHI3, "v1.2.1")],
    ids=lambda value: value["architectures"][0] if isinstance(value, dict) else value,
)
def test_llm_api_decodes_like_the_reference(tmp_path: Path, config: dict[str, Any], since: str) -> None:
    weights = llama_weights(config)
    if config["tie_word_embeddings"]:
        del weights["lm_head.weight"]
    of_folder = fused(weights) if config is PHI3 else weights
    model = write(tmp_path / "model", config, of_folder, "BF16", 2)
    wide = {name: bfloat16(values).astype(np.float64) for name, values in weights.items()}
    installed = Installed(tmp_path / "install", since)
    assert installed.decode(COUNT, model) == greedy(lambda ids: llama_logits(wide, config, ids))


@pytest.mark.parametrize("config", [QWEN2, QWEN3, PHI3], ids=lambda config: config["architectures"][0])
@pytest.mark.parametrize("version", ["v0.13.0", "v1.2.1"])
def test_no_converter_reads_qwen_and_phi(tmp_path: Path, config: dict[str, Any], version: str) -> None:
    model = write(tmp_path / "model", config, llama_weights(config), "BF16")
    installed = Installed(tmp_path / "install", version)
    refused = f"architecture {config['architectures'][0]}: this stand-in converts"
    for family, flags in (("llama", ()), ("gpt", ("--gpt_variant", "gpt2"))):
        assert refused in installed.convert(model, *flags, family=family).stderr
    words = ["--model_dir", str(model), "--output_dir", "checkpoint", "--qformat", "int8_wo"]
    assert refused in installed.run("examples/quantization/quantize.py", *words).stderr
    assert not (installed.folder / "checkpoint").exists()


def test_gpt_converter_does_not_read_mistral(tmp_path: Path) -> None:
    model = write(tmp_path / "model", NEMO, llama_weights(NEMO), "BF16")
    done = Installed(tmp_path / "install", "v1.2.1").convert(model, family="gpt")
    assert "architecture MistralForCausalLM: this stand-in converts GPT2LMHeadModel" in done.stderr


def test_families_are_those_of_the_model_table(tmp_path: Path) -> None:
    script = (
        "import json; from tensorrt_llm.families import GPT, LLAMA, SERVED\n"
        "print(json.dumps({'llama': LLAMA.architectures, 'gpt': GPT.architectures,"
        " 'served': [[name, since] for family, since in SERVED for name in family.architectures]}))"
    )
    found = json.loads(Installed(tmp_path / "install", "v1.2.1").run("-c", script).stdout.splitlines()[-1])
    for folder in ("llama", "gpt"):
        assert {converter_folder(MODELS[name].family) for name in found[folder]} == {folder}
    assert all(MODELS[name].pytorch == tuple(since) for name, since in found["served"])


@pytest.mark.parametrize(
    ("config", "version", "line"),
    [
        (GPT2, "v1.2.1", "Unknown architecture for AutoModelForCausalLM: GPT2LMHeadModel"),
        (PHI3, "v1.0.0", "Unknown architecture for AutoModelForCausalLM: Phi3ForCausalLM"),
        (
            {**QWEN2, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
            "v1.2.1",
            "rope_scaling of type yarn",
        ),
    ],
    ids=["gpt2", "phi3 before 1.1", "yarn"],
)
def test_llm_api_refuses_what_it_does_not_serve(
    tmp_path: Path, config: dict[str, Any], version: str, line: str
) -> None:
    weights = gpt2_weights() if config is GPT2 else llama_weights(config)
    model = write(tmp_path / "model", config, weights, "BF16")
    with pytest.raises(AssertionError, match=line):
        Installed(tmp_path / "install", version).decode(COUNT, model)


def test_bfloat16_weights_are_stored_as_bf16(tmp_path: Path) -> None:
    weights = llama_weights(MIXTRAL)
    model = write(tmp_path / "model", MIXTRAL, weights, "BF16")
    installed = Installed(tmp_path / "install", "v0.13.0")
    installed.convert(model, "--dtype", "bfloat16", "--tp_size", "2")
    content = (installed.folder / "checkpoint" / "rank1.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    name = "transformer.layers.0.mlp.fc.weight"
    assert header[name]["dtype"] == "BF16"
    assert header[name]["shape"] == [EXPERTS, 2 * INNER // 2, HIDDEN]
    assert len(content) == 8 + length + 2 * sum(
        math.prod(entry["shape"]) for key, entry in header.items() if key != "__metadata__"
    )
    config = json.loads((installed.folder / "checkpoint" / "config.json").read_text())
    assert (config["dtype"], config["moe"]["top_k"]) == ("bfloat16", 2)


def test_features_of_0_12_are_refused_by_0_11(tmp_path: Path) -> None:
    old = Installed(tmp_path / "install", "v0.11.0")
    for config, words in ((NEMO, "head_dim 12 is not hidden_size"), (SCALED, "rope_scaling of type llama3")):
        model = write(tmp_path / words.split()[0], config, llama_weights(config), "BF16")
        assert words in old.convert(model).stderr


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    model = write(tmp_path / "model", NEMO, llama_weights(NEMO), "BF16", 3)
    (model / "model-00002-of-00003.safetensors").unlink()
    done = Installed(tmp_path / "install", "v0.13.0").convert(model)
    assert done.returncode == 1
    assert "no model-00002-of-00003.safetensors" in done.stderr
    assert "Traceback" not in done.stderr


def test_awq_in_bfloat16_needs_calibration_data(tmp_path: Path) -> None:
    model = write(tmp_path / "model", SCALED, llama_weights(SCALED), "BF16")
    data = tmp_path / "cnn_dailymail"
    for path, content in calibration_data.files().items():
        (data / path).parent.mkdir(parents=True, exist_ok=True)
        (data / path).write_bytes(content)
    installed = Installed(tmp_path / "install", "v0.13.0")
    words = ["--model_dir", str(model), "--output_dir", "checkpoint", "--dtype", "bfloat16"]
    awq = [*words, "--qformat", "int4_awq", "--awq_block_size", "16", "--batch_size", "12"]
    script = "examples/quantization/quantize.py"
    done = installed.run(script, *awq, "--calib_dataset", str(data))
    assert done.returncode == 0, done.stderr
    assert f"[stand-in] calibration data: 3 files, 120000 bytes in {data}" in done.stdout
    assert installed.build("--gemm_plugin", "bfloat16", "--gpt_attention_plugin", "bfloat16").returncode == 0
    assert len(installed.decode(5)) == 5

    def refusal(*more: str) -> str:
        refused = installed.run(script, *awq, *more)
        assert refused.returncode == 1
        assert "Traceback" not in refused.stderr
        return refused.stderr

    unreachable = "ConnectionError: Couldn't reach 'cnn_dailymail' on the Hub"
    assert unreachable in refusal()
    assert unreachable in refusal("--calib_dataset", "cnn_dailymail")
    assert "Couldn't reach '/none/cnn_dailymail' on" in refusal("--calib_dataset", "/none/cnn_dailymail")
    assert "Unsupported dataset name" in refusal("--calib_dataset", "/nowhere")
    assert "KeyError: 'text'" in refusal("--calib_dataset", str(model))
    (data / "README.md").rename(data / "CARD.md")
    assert "BuilderConfig '3.0.0' not found" in refusal("--calib_dataset", str(data))
    (data / "CARD.md").rename(data / "README.md")
    part = data / "3.0.0/train-00001-of-00003.parquet"
    part.write_bytes(part.read_bytes()[:-1])
    assert "no parquet file" in refusal("--calib_dataset", str(data))
    for extra in data.glob("3.0.0/train-*"):
        extra.unlink()
    assert "no 3.0.0/train-*.parquet" in refusal("--calib_dataset", str(data))


@pytest.mark.parametrize("kind", ["int8_wo", "int4_wo", "full_prec"])
def test_rounding_formats_need_no_calibration_data(tmp_path: Path, kind: str) -> None:
    model = write(tmp_path / "model", SCALED, llama_weights(SCALED), "BF16")
    installed = Installed(tmp_path / "install", "v0.13.0")
    words = ["--model_dir", str(model), "--output_dir", "checkpoint", "--qformat", kind]
    done = installed.run("examples/quantization/quantize.py", *words)
    assert done.returncode == 0, done.stderr
    assert "calibration" not in done.stdout
