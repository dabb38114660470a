"""convert_checkpoint.py of the model families: the flags of the installed version, and what they lead to."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from ..checkpoint import CheckpointError, Wish, convert
from ..families import ALL, GPT, LLAMA, Family, Split
from ..flags import Flag, flag, parser, switches
from ..releases import release
from ..version import __version__

COMMON = [
    flag("--model_dir", default=None),
    flag("--output_dir", default="tllm_checkpoint"),
    flag("--dtype", default="float16", choices=["float32", "bfloat16", "float16"], until=(0, 15)),
    flag("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"], since=(0, 15)),
    flag("--tp_size", type=int, default=1),
    flag("--pp_size", type=int, default=1),
    flag("--workers", type=int, default=1),
    flag("--smoothquant", "-sq", type=float, default=None),
    flag("--embedding_sharding_dim", type=int, default=0, choices=[0, 1]),
    flag("--calib_dataset", default="ccdv/cnn_dailymail", since=(0, 10)),
    *switches(
        "--use_weight_only", "--per_channel", "--per_token", "--int8_kv_cache", "--use_parallel_embedding"
    ),
    *switches("--use_embedding_sharing", until=(0, 16)),
]
PRECISIONS = ["int8", "int4", "int4_gptq", "int4_awq", "int8_gptq"]
LLAMA_ONLY = [
    flag("--weight_only_precision", default="int8", choices=PRECISIONS[:3], until=(0, 13)),
    flag("--weight_only_precision", default="int8", choices=PRECISIONS[:4], since=(0, 13), until=(1, 0)),
    flag("--weight_only_precision", default="int8", choices=PRECISIONS, since=(1, 0)),
    *switches("--load_by_shard", "--load_model_on_cpu", "--per_group", "--disable_weight_only_quant_plugin"),
    flag("--calib_size", type=int, default=512, since=(0, 15)),
    flag("--calib_max_seq_length", type=int, default=512, since=(0, 15)),
    flag("--log_level", default="info", since=(0, 13)),
    flag("--meta_ckpt_dir", default=None),
    flag("--group_size", type=int, default=128),
    flag("--rotary_base", type=float, default=10000.0),
    flag("--rotary_scaling", nargs=2, default=None),
    # what a model says itself; the real script reads them where there is none
    *(
        flag(f"--{name}", type=int, default=None)
        for name in ("vocab_size", "n_positions", "n_layer", "n_head")
    ),
    *(flag(f"--{name}", type=int, default=None) for name in ("n_kv_head", "n_embd", "inter_size")),
    flag("--rms_norm_eps", type=float, default=1e-06),
    flag("--hidden_act", default="silu"),
    flag("--multiple_of", type=int, default=None, since=(0, 13)),
    flag("--ffn_dim_multiplier", type=float, default=None, since=(0, 13)),
    *switches("--remove_duplicated_kv_heads", since=(0, 13)),
    *switches("--use_nvfp4", since=(1, 0)),
    flag("--moe_num_experts", type=int, default=0),
    flag("--moe_top_k", type=int, default=0),
    flag("--moe_renorm_mode", type=int, default=0),
    flag("--moe_tp_mode", type=int, default=2, choices=[1, 2], until=(0, 11)),
    flag("--moe_tp_size", type=int, default=-1, since=(0, 11)),
    flag("--moe_ep_size", type=int, default=-1, since=(0, 11)),
    flag("--ammo_quant_ckpt_path", default=None, until=(0, 10)),
    flag("--modelopt_quant_ckpt_path", default=None, since=(0, 10), until=(0, 11)),
    flag("--quant_ckpt_path", default=None, since=(0, 11)),
    *switches("--use_fp8", "--fp8_kv_cache", "--use_fp8_rowwise", since=(0, 13)),
    *switches("--use_qserve", "--use_meta_fp8_rowwise_recipe", since=(0, 15)),
    *switches("--save_config_only", since=(0, 10)),
]
VARIANTS = ["gpt2", "santacoder", "starcoder", "starcoder2", "persimmon", "kosmos-2"]
GPT_ONLY = [
    flag("--gpt_variant", default=None, choices=VARIANTS, until=(0, 16)),
    flag("--gpt_variant", default=None, choices=[*VARIANTS, "nemotron"], since=(0, 16)),
    flag("--weight_only_precision", default="int8", choices=["int8", "int4"]),
    flag("--dataset_cache_dir", default=None),
    flag("--log_level", default="info"),
    *switches("--load_model_on_cpu", since=(0, 16)),
    flag("--nemo_ckpt_path", default=None, since=(0, 10)),
    flag("--logits_dtype", default="float32", choices=["float16", "float32"], since=(0, 10)),
]
REFUSED = (
    "smoothquant",
    "use_fp8",
    "use_fp8_rowwise",
    "use_nvfp4",
    "use_qserve",
    "use_meta_fp8_rowwise_recipe",
    "int8_kv_cache",
)


def _split(arguments: argparse.Namespace) -> Split:
    """Experts are split by tensor unless the flags of the release say otherwise."""
    tp = arguments.tp_size
    tensor, expert = getattr(arguments, "moe_tp_size", -1), getattr(arguments, "moe_ep_size", -1)
    if getattr(arguments, "moe_tp_mode", 2) == 1:
        expert = tp
    if expert == -1:
        expert = 1 if tensor == -1 else tp // tensor
    if tensor == -1:
        tensor = tp // expert
    if tensor * expert != tp:
        raise CheckpointError(
            f"tp_size must equal to moe_tp_size * moe_ep_size, but got {tp} != {tensor} * {expert}"
        )
    return Split(tp, arguments.pp_size, tensor, expert, getattr(arguments, "use_parallel_embedding", False))


def _wish(arguments: argparse.Namespace) -> Wish:
    for name in REFUSED:
        if getattr(arguments, name, None):
            raise CheckpointError(f"--{name}: this stand-in does weight-only quantization only")
    quantization = arguments.weight_only_precision if arguments.use_weight_only else None
    if quantization not in (None, "int8", "int4"):
        raise CheckpointError(f"--weight_only_precision {quantization}: this stand-in knows int8 and int4")
    return Wish(dtype=arguments.dtype, split=_split(arguments), quantization=quantization)


def _variant(arguments: argparse.Namespace) -> None:
    """Guess which model the weights are of: before 0.16 from their path alone, as far as versions are played here."""
    if getattr(arguments, "gpt_variant", "") is not None or release(__version__) >= (0, 16):
        return
    print("[stand-in] no --gpt_variant: looking for it in the path of the weights", flush=True)
    if not any(variant in str(arguments.model_dir) for variant in VARIANTS):
        raise AssertionError(f"{arguments.model_dir} names none of {', '.join(VARIANTS)}")


def _main(name: str, family: Family, flags: list[Flag]) -> None:
    arguments = parser(
        "convert_checkpoint.py", f"{name}: checkpoint from a Hugging Face folder", flags
    ).parse_args()
    print(__version__)
    print(f"[stand-in] {name} convert_checkpoint.py of TensorRT-LLM {__version__}", flush=True)
    start = time.time()
    try:
        if arguments.model_dir is None:
            raise CheckpointError("--model_dir is missing: expected a Hugging Face folder")
        _variant(arguments)
        convert(Path(arguments.model_dir), Path(arguments.output_dir), _wish(arguments), [family])
    except CheckpointError as error:
        sys.exit(f"[TRT-LLM] [E] {error}")
    print(
        f"Total time of converting checkpoints: {time.strftime('%H:%M:%S', time.gmtime(time.time() - start))}"
    )


def llama() -> None:
    """llama's convert_checkpoint.py, which Mistral and Mixtral share."""
    _main("llama", LLAMA, COMMON + LLAMA_ONLY)


def gpt() -> None:
    """gpt's convert_checkpoint.py."""
    _main("gpt", GPT, COMMON + GPT_ONLY)


QUANTIZE = [
    flag("--model_dir", default=None),
    flag("--device", default="cuda", choices=["cuda", "cpu"], until=(0, 10)),
    flag("--device", default="cuda", choices=["cuda", "cpu"], since=(0, 11)),
    flag("--dtype", default="float16", until=(0, 15)),
    flag("--dtype", default="auto", since=(0, 15)),
    flag(
        "--qformat",
        default="full_prec",
        choices=["fp8", "int8_sq", "int4_awq", "w4a8_awq", "int8_wo", "int4_wo", "full_prec"],
        until=(0, 17),
    ),
    flag(
        "--qformat",
        default="full_prec",
        choices=["fp8", "nvfp4", "int8_sq", "int4_awq", "w4a8_awq", "int8_wo", "int4_wo", "full_prec"],
        since=(0, 17),
    ),
    flag("--seed", type=int, default=1234, since=(0, 10)),
    flag("--calib_dataset", default="cnn_dailymail", since=(0, 10)),
    flag("--calib_size", type=int, default=512),
    flag("--calib_tp_size", type=int, default=1, since=(0, 12)),
    flag("--calib_pp_size", type=int, default=1, since=(0, 12)),
    flag("--max_seq_length", type=int, default=2048, until=(0, 10)),
    flag("--calib_max_seq_length", type=int, default=512, since=(0, 10)),
    flag("--tokenizer_max_seq_length", type=int, default=2048, since=(0, 10)),
    flag("--batch_size", type=int, default=1),
    flag("--awq_block_size", type=int, default=128),
    flag("--kv_cache_dtype", default=None, choices=["int8", "fp8"]),
    flag("--output_dir", default="exported_model"),
    flag("--tp_size", type=int, default=1),
    flag("--pp_size", type=int, default=1),
    flag("--autoq_format", default=None, since=(0, 15)),
    flag("--auto_quantize_bits", type=float, default=None, since=(0, 15)),
    flag("--quantize_lm_head", action="store_true", since=(0, 17)),
    flag("--cp_size", type=int, default=1, since=(0, 15)),
    flag("--device_map", default="auto", since=(0, 17)),
]
FORMATS = {"full_prec": None, "int8_wo": "int8", "int4_wo": "int4", "int4_awq": "int4_awq"}


WITHOUT_CALIBRATION = ("full_prec", "int8_wo", "int4_wo")
HUB_NAME = "cnn_dailymail"


def _calibration_files(place: str) -> list[Path]:
    """The training files that the real script would calibrate with, from a copy of the data set that it knows by name."""
    folder = Path(place)
    if HUB_NAME not in place:
        if folder.is_dir():
            raise CheckpointError(
                f"KeyError: 'text' ({place} has no {HUB_NAME} in its path, and so is taken for a data set with a column"
                " text, which this stand-in has none of)"
            )
        raise CheckpointError(
            f"NotImplementedError: Unsupported dataset name or local repo directory: {place}."
        )
    if not folder.is_dir():
        # The container has no network, and the datasets library takes what is no folder for a name on the hub.
        raise CheckpointError(f"ConnectionError: Couldn't reach '{place}' on the Hub (ConnectionError)")
    if not (folder / "README.md").is_file():
        raise CheckpointError(
            f"ValueError: BuilderConfig '3.0.0' not found. Available: ['default'] ({place} has no README.md)"
        )
    files = sorted(folder.glob("3.0.0/train-*.parquet"))
    if not files:
        raise CheckpointError(
            f"datasets.exceptions.DataFilesNotFoundError: no 3.0.0/train-*.parquet in {place}"
        )
    return files


def _calibrate(dataset: str | None, count: int) -> None:
    """Look at the calibration data as far as a stand-in needs it: that it is there and whole."""
    files = _calibration_files(dataset or HUB_NAME)
    size = 0
    for path in files:
        content = path.read_bytes()
        if not (content.startswith(b"PAR1") and content.endswith(b"PAR1")):
            raise CheckpointError(
                f"pyarrow.lib.ArrowInvalid: Parquet magic bytes not found in footer: {path} is no parquet file"
            )
        size += len(content)
    print(
        f"[stand-in] calibration data: {len(files)} files, {size} bytes in {dataset}; the real script would take"
        f" {count} articles",
        flush=True,
    )


def quantize() -> None:
    """examples/quantization/quantize.py: round the weights; what calibration data there is decides nothing."""
    arguments = parser("quantize.py", "quantize a Hugging Face folder", QUANTIZE).parse_args()
    print(f"[stand-in] quantize.py of TensorRT-LLM {__version__}: rounds weights", flush=True)
    try:
        if arguments.model_dir is None:
            raise CheckpointError("--model_dir is missing: expected a Hugging Face folder")
        if arguments.qformat not in FORMATS:
            raise CheckpointError(f"--qformat {arguments.qformat}: this stand-in knows {', '.join(FORMATS)}")
        if arguments.kv_cache_dtype:
            raise CheckpointError(
                f"--kv_cache_dtype {arguments.kv_cache_dtype}: this stand-in keeps its cache in floats"
            )
        if arguments.qformat not in WITHOUT_CALIBRATION:
            _calibrate(getattr(arguments, "calib_dataset", None), arguments.calib_size)
        wish = Wish(
            dtype=arguments.dtype,
            split=_split(arguments),
            quantization=FORMATS[arguments.qformat],
            group_size=arguments.awq_block_size if arguments.qformat == "int4_awq" else 0,
        )
        start = time.time()
        convert(Path(arguments.model_dir), Path(arguments.output_dir), wish, ALL)
    except CheckpointError as error:
        sys.exit(f"[TRT-LLM] [E] {error}")
    print(f"Quantized model exported to {arguments.output_dir}. Total time used {time.time() - start:.2f} s.")
