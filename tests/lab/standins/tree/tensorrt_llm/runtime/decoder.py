"""Generation: a network's logits turned into tokens, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .network import NEVER, Floats, Network, softmax


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


class Decoder:
    """Continues prompts. `warnings` are what its loading would have logged."""

    def __init__(
        self, network: Network, max_seq_len: int, max_input_len: int, warnings: Sequence[str] = ()
    ) -> None:
        self.network = network
        self.max_seq_len, self.max_input_len = max_seq_len, max_input_len
        self.warnings = list(warnings)

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
        vocab = self.network.vocab
        outside = [number for number in ids if not 0 <= number < vocab]
        if outside:
            raise ValueError(f"Token id {outside[0]} is outside the vocabulary of {vocab}")
        room = min(max_new, self.max_seq_len - len(ids))
        cache = self.network.new_cache(len(ids) + max(room, 0))
        dice, made = np.random.default_rng(sampling.seed), list[int]()
        logits = self.network.forward(ids, 0, cache, context_logits is not None)
        if context_logits is not None:
            context_logits.append(logits)
        while len(made) < room:
            last = logits[-1].copy()
            for word in sampling.bad_words:
                if made[len(made) - len(word) + 1 :] == word[:-1]:
                    last[word[-1]] = NEVER
            odds = softmax(last if sampling.greedy else last / np.float32(sampling.temperature))
            token = int(last.argmax()) if sampling.greedy else _draw(odds.astype(np.float64), sampling, dice)
            if token == sampling.end_id:
                return
            made.append(token)
            yield Step(token, float(np.log(odds[token] + 1e-20)), last)
            if len(made) == room or any(made[-len(word) :] == word for word in sampling.stop_words):
                return
            logits = self.network.forward([token], len(ids) + len(made) - 1, cache, False)


def _draw(odds: NDArray[np.float64], sampling: Sampling, dice: np.random.Generator) -> int:
    order = np.argsort(-odds)[: sampling.top_k if sampling.top_k > 0 else None]
    share = odds[order] / odds[order].sum()
    if 0 < sampling.top_p < 1:
        order = order[: int(np.searchsorted(np.cumsum(share), sampling.top_p)) + 1]
        share = odds[order] / odds[order].sum()
    return int(dice.choice(order, p=share))
