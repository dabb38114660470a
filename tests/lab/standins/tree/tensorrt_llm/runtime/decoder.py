"""A Llama-architecture decoder in numpy over an engine directory. One process computes for all ranks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine_file import EngineRefused, check_header, float_tensors, read_header, read_weights
from ..gpu import Gpu
from ..releases import release

Floats = NDArray[np.float32]
Weights = dict[str, Floats]
NEVER = np.float32(-1e30)


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. top_k = 1 (with no top_p) or temperature 0 takes the likeliest, as in TensorRT-LLM."""

    temperature: float = 1.0
    top_k: int = 1
    top_p: float = 0.0
    seed: int = 0
    end_id: int = -1
    bad_words: Sequence[list[int]] = field(default_factory=tuple)
    stop_words: Sequence[list[int]] = field(default_factory=tuple)

    @property
    def greedy(self) -> bool:
        """Whether no dice are thrown."""
        return not self.temperature or (self.top_k == 1 and not self.top_p)


@dataclass(frozen=True)
class Step:
    """One generated token, its log probability, and the logits it was chosen from."""

    token: int
    log_probability: float
    logits: Floats


def _softmax(x: Floats) -> Floats:
    shifted = np.exp(x - x.max(-1, keepdims=True))
    result: Floats = shifted / shifted.sum(-1, keepdims=True)
    return result


def load_config(engine_dir: Path) -> dict[str, Any]:
    """The engine directory's config.json."""
    try:
        config: dict[str, Any] = json.loads((engine_dir / "config.json").read_text())
    except FileNotFoundError:
        raise EngineRefused(f"Cannot find engine config file {engine_dir}/config.json") from None
    except ValueError as error:
        raise EngineRefused(f"[json.exception.parse_error.101] {engine_dir}/config.json: {error}") from None
    return config


class Decoder:
    """A loaded engine. Loading raises EngineRefused where the real runtime would refuse."""

    def __init__(self, engine_dir: Path, gpus: Sequence[Gpu]) -> None:
        self.config = load_config(engine_dir)
        model, build = self.config["pretrained_config"], self.config["build_config"]
        mapping = model["mapping"]
        self.tp, self.pp = int(mapping["tp_size"]), int(mapping["pp_size"])
        self.vocab, self.head = int(model["vocab_size"]), int(model["head_size"])
        self.layers = int(model["num_hidden_layers"]) // self.pp
        self.epsilon = np.float32(model["norm_epsilon"])
        self.max_seq_len = int(build["max_seq_len"])
        packed = build["plugin_config"].get("remove_input_padding") and build["plugin_config"].get(
            "context_fmha"
        )
        modern = release(self.config["version"]) >= (0, 11)
        # With packed input and fused attention max_input_len means nothing from 0.11 on: a prompt may fill the sequence.
        self.max_input_len = self.max_seq_len - 1 if packed and modern else int(build["max_input_len"])
        self.warnings: list[str] = []
        shards = []
        for rank in range(self.tp * self.pp):
            path = engine_dir / f"rank{rank}.engine"
            header, offset = read_header(path)
            self.warnings += check_header(header, gpus[rank % len(gpus)])
            shards.append((path, header, offset))
        ranks = [float_tensors(read_weights(*shard)) for shard in shards]
        self.stages = [ranks[i * self.tp : (i + 1) * self.tp] for i in range(self.pp)]
        self.embedding = self._table(self.stages[0], "transformer.vocab_embedding.weight", model)
        last = self.stages[-1]
        if "lm_head.weight" in last[0]:
            self.output = np.concatenate([rank.pop("lm_head.weight") for rank in last])
        elif self.pp > 1:
            self.output = self._table(last, "transformer.vocab_embedding.weight", model)
        else:
            self.output = self.embedding
        angle = np.outer(
            np.arange(self.max_seq_len), model["rotary_base"] ** -(np.arange(0, self.head, 2) / self.head)
        ).astype(np.float32)
        self.cos, self.sin = np.cos(angle), np.sin(angle)
        self.lock = threading.Lock()  # two BLAS callers on the same cores are slower than one

    @staticmethod
    def _table(ranks: list[Weights], name: str, model: dict[str, Any]) -> Floats:
        parts = [rank.pop(name) for rank in ranks]
        return np.concatenate(parts) if model.get("use_parallel_embedding") and len(parts) > 1 else parts[0]

    def _normed(self, x: Floats, weight: Floats) -> Floats:
        result: Floats = x / np.sqrt((x * x).mean(-1, keepdims=True) + self.epsilon) * weight
        return result

    def _rotated(self, x: Floats, begin: int, end: int) -> Floats:
        half = self.head // 2
        left, right = x[..., :half], x[..., half:]
        cos, sin = self.cos[begin:end], self.sin[begin:end]
        return np.concatenate([left * cos - right * sin, right * cos + left * sin], -1)

    def _attention(self, x: Floats, rank: Weights, layer: str, cache: Floats, begin: int) -> Floats:
        count, end = len(x), begin + len(x)
        qkv = x @ rank[layer + "attention.qkv.weight"].T
        queries = rank[layer + "attention.dense.weight"].shape[1] // self.head
        shared = (qkv.shape[1] // self.head - queries) // 2
        q, k, v = np.split(qkv.reshape(count, -1, self.head).transpose(1, 0, 2), [queries, queries + shared])
        cache[0][:, begin:end], cache[1][:, begin:end] = self._rotated(k, begin, end), v
        group = queries // shared  # query heads that share one key/value head
        q = self._rotated(q, begin, end).reshape(shared, group * count, self.head)
        scores = q @ cache[0][:, :end].transpose(0, 2, 1) / np.float32(np.sqrt(self.head))
        if count > 1:
            future = np.arange(end) > np.arange(begin, end)[:, None]
            scores = np.where(np.tile(future, (group, 1)), NEVER, scores)
        mixed = (_softmax(scores) @ cache[1][:, :end]).reshape(queries, count, self.head)
        result: Floats = (
            mixed.transpose(1, 0, 2).reshape(count, -1) @ rank[layer + "attention.dense.weight"].T
        )
        return result

    def _feed_forward(self, x: Floats, rank: Weights, layer: str) -> Floats:
        gate = x @ rank[layer + "mlp.fc.weight"].T
        up = x @ rank[layer + "mlp.gate.weight"].T
        result: Floats = (gate / (1 + np.exp(-gate)) * up) @ rank[layer + "mlp.proj.weight"].T
        return result

    def _new_cache(self, length: int) -> list[list[list[Floats]]]:
        """By stage, rank and layer: (keys and values, heads, length, head size)."""

        def heads(rank: Weights) -> int:
            layer = "transformer.layers.0.attention."
            rows, queries = len(rank[layer + "qkv.weight"]), int(rank[layer + "dense.weight"].shape[1])
            return (rows - queries) // self.head // 2

        return [
            [
                [np.empty((2, heads(rank), length, self.head), np.float32) for _ in range(self.layers)]
                for rank in stage
            ]
            for stage in self.stages
        ]

    def _forward(
        self, ids: Sequence[int], begin: int, cache: list[list[list[Floats]]], all_logits: bool
    ) -> Floats:
        """Logits after ids at positions begin…: of the last position only, unless all are wanted."""
        with self.lock:
            x: Floats = self.embedding[np.asarray(ids)]
            for stage, stage_cache in zip(self.stages, cache, strict=True):
                for number in range(self.layers):
                    layer = f"transformer.layers.{number}."
                    h = self._normed(x, stage[0][layer + "input_layernorm.weight"])
                    for rank, held in zip(
                        stage, stage_cache, strict=True
                    ):  # the sum over ranks is the all-reduce
                        x = x + self._attention(h, rank, layer, held[number], begin)
                    h = self._normed(x, stage[0][layer + "post_layernorm.weight"])
                    for rank in stage:
                        x = x + self._feed_forward(h, rank, layer)
            x = self._normed(x if all_logits else x[-1:], self.stages[-1][0]["transformer.ln_f.weight"])
            result: Floats = x @ self.output.T
            return result

    def generate(
        self,
        ids: Sequence[int],
        max_new: int,
        sampling: Sampling,
        context_logits: list[Floats] | None = None,
    ) -> Iterator[Step]:
        """Yield tokens until the end id (not yielded), a stop sequence, max_new tokens or the end of the sequence.

        A list given as context_logits receives the prompt's logits. Raises ValueError for a prompt that cannot be.
        """
        if not ids or len(ids) > self.max_input_len:
            raise ValueError(
                f"Prompt length ({len(ids)}) exceeds maximum input length ({self.max_input_len})."
            )
        outside = [number for number in ids if not 0 <= number < self.vocab]
        if outside:
            raise ValueError(f"Token id {outside[0]} is outside the vocabulary of {self.vocab}")
        room = min(max_new, self.max_seq_len - len(ids))
        cache = self._new_cache(len(ids) + max(room, 0))
        dice, made = np.random.default_rng(sampling.seed), list[int]()
        logits = self._forward(ids, 0, cache, context_logits is not None)
        if context_logits is not None:
            context_logits.append(logits)
        while len(made) < room:
            last = logits[-1].copy()
            for word in sampling.bad_words:
                if made[len(made) - len(word) + 1 :] == word[:-1]:
                    last[word[-1]] = NEVER
            odds = _softmax(last if sampling.greedy else last / np.float32(sampling.temperature))
            token = int(last.argmax()) if sampling.greedy else _draw(odds.astype(np.float64), sampling, dice)
            if token == sampling.end_id:
                return
            made.append(token)
            yield Step(token, float(np.log(odds[token] + 1e-20)), last)
            if len(made) == room or any(made[-len(word) :] == word for word in sampling.stop_words):
                return
            logits = self._forward([token], len(ids) + len(made) - 1, cache, False)


def _draw(odds: NDArray[np.float64], sampling: Sampling, dice: np.random.Generator) -> int:
    order = np.argsort(-odds)[: sampling.top_k if sampling.top_k > 0 else None]
    share = odds[order] / odds[order].sum()
    if 0 < sampling.top_p < 1:
        order = order[: int(np.searchsorted(np.cumsum(share), sampling.top_p)) + 1]
        share = odds[order] / odds[order].sum()
    return int(dice.choice(order, p=share))
