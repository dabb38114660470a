"""What makes a small decoder a chat model: a template, tokens of its own, and what ends an answer.

The templates have the form of the real ones, in our own words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

END = "<|endoftext|>"
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HEADERS = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{{ message.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
INST = "{{ bos_token }}{% for message in messages %}[INST] {{ message.content }} [/INST]{% endfor %}"
ROLES = (
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)


@dataclass(frozen=True)
class Chat:
    """
    A model's tokenizer_config.json and generation_config.json.

    + template: Jinja2; empty: the model goes on with a text
    + tokens: the special tokens by their names there; None: tokenizer_config.json says that there is none
    + markup: what the template writes between the texts
    + ends: the tokens that end an answer
    + sampling: what else generation_config.json says
    """

    template: str = ""
    tokens: Mapping[str, str | None] = field(default_factory=lambda: {"bos_token": END, "eos_token": END})
    markup: Sequence[str] = ()
    ends: Sequence[str] = (END,)
    sampling: Mapping[str, Any] = field(default_factory=dict)

    @property
    def all_tokens(self) -> list[str]:
        """The tokens that the tokenizer must know."""
        return list(
            dict.fromkeys([token for token in self.tokens.values() if token] + [*self.markup, *self.ends])
        )

    def tables(self, words: Mapping[str, int]) -> dict[str, dict[str, Any]]:
        """
        File -> its content; for config.json only the keys that name tokens.

        + words: token -> id
        """
        # Qwen's tokenizer puts no token in front, and its config.json names one all the same
        ids = {f"{name}_id": words[token or END] for name, token in self.tokens.items()}
        ends = [words[token] for token in self.ends]
        generation = {**ids, "eos_token_id": ends if len(ends) > 1 else ends[0], **self.sampling}
        tokenizer = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            **self.tokens,
            **({"chat_template": self.template} if self.template else {}),
        }
        return {"config.json": ids, "generation_config.json": generation, "tokenizer_config.json": tokenizer}


def qwen(**sampling: Any) -> Chat:
    """Qwen2.5's and Qwen3's."""
    return Chat(
        CHATML,
        {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": END},
        ("<|im_start|>", "<|im_end|>"),
        ("<|im_end|>", END),
        {"do_sample": True, **sampling},
    )


PHI_3 = Chat(
    ROLES,
    {"bos_token": "<s>", "eos_token": END, "pad_token": END},
    ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    (END, "<|assistant|>", "<|end|>"),
)
LLAMA_3 = Chat(
    HEADERS,
    {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    ("<|start_header_id|>", "<|end_header_id|>"),
    ("<|end_of_text|>", "<|eot_id|>"),
    {"do_sample": True, "temperature": 0.6, "top_p": 0.9},
)
MISTRAL = Chat(INST, {"bos_token": "<s>", "eos_token": "</s>"}, ("[INST]", "[/INST]"), ("</s>",))
