"""The layers of a decoder in numpy. One process computes for all ranks: the sum over them is the all-reduce."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Weights = dict[str, Floats]
Cache = list[list[list[Floats]]]  # by stage, rank and layer: (keys and values, heads, length, head size)
NEVER = np.float32(-1e30)


def softmax(x: Floats) -> Floats:
    """Along the last axis."""
    shifted = np.exp(x - x.max(-1, keepdims=True))
    result: Floats = shifted / shifted.sum(-1, keepdims=True)
    return result


def rotary_frequencies(size: int, base: float, scaling: dict[str, Any] | None) -> NDArray[np.float64]:
    """Radians a position, for each pair of a head's dimensions; llama3's scaling slows the slow ones down."""
    plain = base ** -(np.arange(0, size, 2) / size)
    if not scaling:
        return plain
    factor = float(scaling["factor"])
    low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
    turns = float(scaling["original_max_position_embeddings"]) * plain / (2 * np.pi)
    share = ((turns - low) / (high - low)).clip(0, 1)  # of the unscaled frequency
    result: NDArray[np.float64] = plain * share + plain / factor * (1 - share)
    return result


class Network:
    """A model whose ranks' weights (by pipeline stage and tensor rank) all live here.

    `model` is a checkpoint's config.json; `length` the longest sequence.
    """

    def __init__(self, model: dict[str, Any], stages: list[list[Weights]], length: int) -> None:
        self.stages = stages
        self.tp, self.pp = len(stages[0]), len(stages)
        self.vocab, self.head = int(model["vocab_size"]), int(model["head_size"])
        self.layers = int(model["num_hidden_layers"]) // self.pp
        self.epsilon = np.float32(model["norm_epsilon"])
        self.experts_at_once = int(model.get("moe", {}).get("top_k", 0))
        self.expert_groups = int(model.get("mapping", {}).get("moe_ep_size", 1))
        self.embedding = self._table(stages[0], model)
        last = stages[-1]
        if "lm_head.weight" in last[0]:
            self.output = np.concatenate([rank.pop("lm_head.weight") for rank in last])
        elif self.pp > 1:
            self.output = self._table(last, model)
        else:
            self.output = self.embedding
        self.rotary = model["position_embedding_type"] != "learned_absolute"
        if self.rotary:
            frequencies = rotary_frequencies(
                self.head, float(model["rotary_base"]), model.get("rotary_scaling")
            )
            angle = np.outer(np.arange(length), frequencies)
            self.cos, self.sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
        else:
            self.positions = stages[0][0]["transformer.position_embedding.weight"]
        self.lock = threading.Lock()  # two BLAS callers on the same cores are slower than one

    @staticmethod
    def _table(ranks: list[Weights], model: dict[str, Any]) -> Floats:
        parts = [rank.pop("transformer.vocab_embedding.weight") for rank in ranks]
        return np.concatenate(parts) if model.get("use_parallel_embedding") and len(parts) > 1 else parts[0]

    def _normed(self, x: Floats, rank: Weights, name: str) -> Floats:
        """Layer norm where there is a bias, RMS norm where there is none."""
        bias = rank.get(name + ".bias")
        if bias is not None:
            x = x - x.mean(-1, keepdims=True)
        result: Floats = x / np.sqrt((x * x).mean(-1, keepdims=True) + self.epsilon) * rank[name + ".weight"]
        return result if bias is None else result + bias

    @staticmethod
    def _linear(x: Floats, rank: Weights, name: str) -> Floats:
        """Of a matrix that is cut by rows, with its share of the bias."""
        result: Floats = x @ rank[name + ".weight"].T
        bias = rank.get(name + ".bias")
        return result if bias is None else result + bias

    def _rotated(self, x: Floats, begin: int, end: int) -> Floats:
        if not self.rotary:
            return x
        half = self.head // 2
        left, right = x[..., :half], x[..., half:]
        cos, sin = self.cos[begin:end], self.sin[begin:end]
        return np.concatenate([left * cos - right * sin, right * cos + left * sin], -1)

    def _attention(self, x: Floats, rank: Weights, layer: str, cache: Floats, begin: int) -> Floats:
        count, end = len(x), begin + len(x)
        qkv = self._linear(x, rank, layer + "attention.qkv")
        dense = rank[layer + "attention.dense.weight"]
        queries = dense.shape[1] // self.head
        shared = (qkv.shape[1] // self.head - queries) // 2
        q, k, v = np.split(qkv.reshape(count, -1, self.head).transpose(1, 0, 2), [queries, queries + shared])
        if layer + "attention.q_layernorm.weight" in rank:  # of each head
            q = self._normed(q, rank, layer + "attention.q_layernorm")
            k = self._normed(k, rank, layer + "attention.k_layernorm")
        cache[0][:, begin:end], cache[1][:, begin:end] = self._rotated(k, begin, end), v
        group = queries // shared  # query heads that share one key/value head
        q = self._rotated(q, begin, end).reshape(shared, group * count, self.head)
        scores = q @ cache[0][:, :end].transpose(0, 2, 1) / np.float32(np.sqrt(self.head))
        if count > 1:
            future = np.arange(end) > np.arange(begin, end)[:, None]
            scores = np.where(np.tile(future, (group, 1)), NEVER, scores)
        mixed = (softmax(scores) @ cache[1][:, :end]).reshape(queries, count, self.head)
        result: Floats = mixed.transpose(1, 0, 2).reshape(count, -1) @ dense.T
        return result

    def _feed_forward(self, x: Floats, rank: Weights, layer: str, number: int) -> Floats:
        if layer + "mlp.router.weight" in rank:
            return self._mixture(x, rank, layer, number)
        inner = self._linear(x, rank, layer + "mlp.fc")
        if layer + "mlp.gate.weight" in rank:
            inner = inner / (1 + np.exp(-inner)) * self._linear(x, rank, layer + "mlp.gate")
        else:  # GELU by its tanh approximation
            inner = inner / 2 * (1 + np.tanh(np.float32(np.sqrt(2 / np.pi)) * (inner + 0.044715 * inner**3)))
        result: Floats = inner @ rank[layer + "mlp.proj.weight"].T
        return result

    def _mixture(self, x: Floats, rank: Weights, layer: str, number: int) -> Floats:
        """The rank's share of what each token's likeliest experts say, weighted by the router."""
        logits = x @ rank[layer + "mlp.router.weight"].T
        chosen = np.argsort(-logits, -1, kind="stable")[:, : self.experts_at_once]
        weights = softmax(np.take_along_axis(logits, chosen, -1))
        inward, outward = rank[layer + "mlp.fc.weight"], rank[layer + "mlp.proj.weight"]
        first = number % self.expert_groups * len(inward)
        result = np.zeros_like(x)
        for local in range(len(inward)):
            token, place = np.nonzero(chosen == first + local)
            if not len(token):
                continue
            up, gate = np.split(x[token] @ inward[local].T, 2, -1)
            said = (gate / (1 + np.exp(-gate)) * up) @ outward[local].T
            result[token] += said * weights[token, place][:, None]
        return result

    def new_cache(self, length: int) -> Cache:
        """Room for the keys and values of a sequence."""

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

    def forward(self, ids: Sequence[int], begin: int, cache: Cache, all_logits: bool) -> Floats:
        """Logits after ids at positions begin…: of the last position only, unless all are wanted."""
        with self.lock:
            x: Floats = self.embedding[np.asarray(ids)]
            if not self.rotary:
                x = x + self.positions[begin : begin + len(ids)]
            for stage, stage_cache in zip(self.stages, cache, strict=True):
                for layer in range(self.layers):
                    x = self._layer(x, stage, [held[layer] for held in stage_cache], layer, begin)
            x = self._normed(x if all_logits else x[-1:], self.stages[-1][0], "transformer.ln_f")
            result: Floats = x @ self.output.T
            return result

    def _layer(self, x: Floats, ranks: list[Weights], cache: list[Floats], number: int, begin: int) -> Floats:
        layer = f"transformer.layers.{number}."
        leader = ranks[0]
        h = self._normed(x, leader, layer + "input_layernorm")
        for rank, held in zip(ranks, cache, strict=True):
            x = x + self._attention(h, rank, layer, held, begin)
        x = x + leader.get(layer + "attention.dense.bias", np.float32(0))
        h = self._normed(x, leader, layer + "post_layernorm")
        for index, rank in enumerate(ranks):
            x = x + self._feed_forward(h, rank, layer, index)
        result: Floats = x + leader.get(layer + "mlp.proj.bias", np.float32(0))
        return result
