"""How downloaded weights are already quantized, by their repository's own files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# ModelOpt's name of an algorithm -> bits of a weight, the forecast's format of that size, the least compute capability
_ALGORITHMS: dict[str, tuple[int, str, tuple[int, int]]] = {
    "FP8": (8, "fp8", (8, 9)),
    "FP8_PER_CHANNEL_PER_TOKEN": (8, "fp8", (9, 0)),
    "FP8_BLOCK_SCALES": (8, "fp8", (9, 0)),
    "NVFP4": (4, "nvfp4", (10, 0)),
    "W4A16_AWQ": (4, "int4_awq", (8, 0)),
    "W4A8_AWQ": (4, "int4_awq", (8, 9)),
    "W4A16_GPTQ": (4, "int4_wo", (8, 0)),
    "W8A16": (8, "int8_wo", (8, 0)),
    "W4A16": (4, "int4_wo", (8, 0)),
    "MIXED_PRECISION": (4, "int4_wo", (8, 9)),
    "MXFP4": (4, "int4_wo", (8, 0)),
}


@dataclass(frozen=True)
class StoredFormat:
    """
    + key: the file and the key that say it
    + method: the quantizing tool: modelopt, awq, gptq, fp8, mxfp4, bitsandbytes, compressed-tensors …
    + algorithm: ModelOpt's name of it; empty if it has none
    + bits: of a weight; 0 if not stated
    + format: the forecast's name of a format of that size; None: not known
    + needs: the least compute capability
    + kv_cache: the format of the KV cache, such as FP8; empty: the model's
    """

    key: str
    method: str
    algorithm: str = ""
    bits: int = 0
    format: str | None = None
    needs: tuple[int, int] = (0, 0)
    kv_cache: str = ""

    @property
    def words(self) -> str:
        """For an error: `AWQ, 4 bits`."""
        name = self.algorithm or self.method.upper()
        return f"{name}, {self.bits} bits" if self.bits and not self.algorithm else name


def stored_format(config: Mapping[str, Any], quantization: Mapping[str, Any]) -> StoredFormat | None:
    """
    How weights are quantized; None if they are not.

    + config: config.json
    + quantization: ModelOpt's hf_quant_config.json; empty without it
    """
    own = quantization.get("quantization")
    if isinstance(own, Mapping) and (own.get("quant_algo") or own.get("kv_cache_quant_algo")):
        return _modelopt("hf_quant_config.json: quantization.quant_algo", "modelopt", own)
    said = config.get("quantization_config")
    if not isinstance(said, Mapping):
        text = config.get("text_config")
        said = text.get("quantization_config") if isinstance(text, Mapping) else None
    if not isinstance(said, Mapping) or not said:
        return None
    key, method = (
        "config.json: quantization_config.quant_method",
        str(said.get("quant_method", "unknown")).lower(),
    )
    if method == "fp8":
        if said.get("weight_block_size"):
            return StoredFormat(key, method, "FP8_BLOCK_SCALES", *_ALGORITHMS["FP8_BLOCK_SCALES"])
        return StoredFormat(key, method, "", *_ALGORITHMS["FP8"])
    if method == "mxfp4":
        return StoredFormat(key, method, "MXFP4", *_ALGORITHMS["MXFP4"])
    if "quant_algo" in said:
        return _modelopt(key, method, said)
    bits = said.get("bits", said.get("w_bit"))
    if method == "bitsandbytes":
        bits = 4 if said.get("load_in_4bit") else 8
    bits = bits if type(bits) is int and 1 <= bits <= 16 else 0
    return StoredFormat(key, method, "", bits, {4: "int4_wo", 8: "int8_wo"}.get(bits))


def _modelopt(key: str, method: str, said: Mapping[str, Any]) -> StoredFormat:
    algorithm = str(said.get("quant_algo") or "")
    bits, size, needs = _ALGORITHMS.get(algorithm, (0, None, (0, 0)))
    cache = str(said.get("kv_cache_quant_algo") or "")
    return StoredFormat(key, method, algorithm, bits, size, needs, cache)
