"""Texts that grow token by token, and the words that end them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import SecurityError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from files.image.door.card import Card
from files.image.door.errors import Refused
from files.image.door.requests import Chat, Completion
from files.image.door.template import compiled, find
from files.image.door.tokens import Growing, Stops, Words, end_tokens
from files.image.door.triton import Model, request
from files.image.door.wishes import wishes
from tests.door.fake_triton import END, WORDS, tokenizer


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Words:
    file = tmp_path_factory.mktemp("words") / "tokenizer.json"
    WORDS.save(str(file))
    return Words(file, (END,))


def test_growing_text_is_the_whole_one(words: Words) -> None:
    @given(st.lists(st.integers(0, 259), max_size=40), st.integers(1, 5))
    def check(ids: list[int], at_once: int) -> None:
        growing = Growing(words)
        text = "".join(growing.add(ids[n : n + at_once]) for n in range(0, len(ids), at_once))
        assert text + growing.rest() == words.decode(ids)

    check()


def test_no_part_has_half_a_character(words: Words) -> None:
    @given(st.text(max_size=20))
    def check(text: str) -> None:
        growing = Growing(words)
        parts = [growing.add([each]) for each in words.encode(text, special=False)]
        assert "".join(parts) + growing.rest() == text
        if "\ufffd" not in text:
            assert not any("\ufffd" in part for part in parts)

    check()


def test_stop_words_are_found_however_a_text_is_cut() -> None:
    @given(
        st.text("abc", max_size=12), st.lists(st.text("abc", min_size=1, max_size=3), max_size=3), st.data()
    )
    def check(text: str, stops: list[str], data: st.DataObject) -> None:
        text_ = text
        places = [place for word in stops if (place := text.find(word)) >= 0]
        found = Stops(stops)
        out = ""
        while text and not found.found:
            cut = data.draw(st.integers(1, len(text)))
            out, text = out + found.add(text[:cut]), text[cut:]
        out += found.rest() if not found.found else ""
        assert found.found == bool(places)
        # up to the word that is complete first
        ends = [text_.find(word) + len(word) for word in stops if word in text_]
        if not places:
            assert out == text_
        else:
            assert text_.startswith(out) and len(out) < min(ends)

    check()


def test_end_tokens_come_from_the_weights() -> None:
    eos = "</s>"
    for generation, model, wanted in (
        ({"eos_token_id": [258, 257]}, {}, [257, 258]),
        ({"eos_token_id": 258}, {"eos_token_id": 1}, [258]),
        ({}, {"eos_token_id": 3}, [3]),
        ({}, {}, [257]),
        ({"eos_token_id": None}, {"eos_token_id": True}, [257]),
    ):
        assert end_tokens(WORDS, generation, model, eos) == wanted
    assert end_tokens(WORDS, {}, {}, None) == []


def test_templates_have_what_those_of_models_use() -> None:
    messages = [{"role": "user", "content": "<ü>"}, {"role": "assistant", "content": "b"}]
    for text, wanted in (
        ("{{ messages[0] | tojson }}", '{"role": "user", "content": "<ü>"}'),
        (
            "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}{% endfor %}",
            "assistant",
        ),
        (
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
            "2",
        ),
        ("{% generation %}{{ messages[1].content }}{% endgeneration %}", "b"),
        ("{{ strftime_now('%Y') | length }}", "4"),
        ("{%- if true %}\n  a\n{%- endif %}\nb", "  ab"),
    ):
        assert compiled(text).render(messages=messages) == wanted


def test_template_file_wins_over_the_key(tmp_path: Path) -> None:
    assert find(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text(
        '{"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "of the key"}]}'
    )
    found = find(tmp_path)
    assert found and found.render([]) == "of the key"
    (tmp_path / "chat_template.jinja").write_text("of the file")
    found = find(tmp_path)
    assert found and found.render([]) == "of the file"
    (tmp_path / "chat_template.jinja").write_text("{% if %}")
    with pytest.raises(ValueError, match="cannot be read"):
        find(tmp_path)


def test_template_has_no_way_to_the_interpreter() -> None:
    for text in (
        "{{ ''.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ messages.append(1) }}",
    ):
        with pytest.raises(SecurityError):
            compiled(text).render(messages=[])


def test_parameter_without_an_input_is_refused(words: Words) -> None:
    known = Model({"input_ids": "INT32", "min_length": "INT32"}, frozenset(), True, True, True)
    card = Card("tiny", "r1", 0, words, None, 100, 100, False)
    asked = Completion(model="tiny", prompt="x", repetition_penalty=1.5)
    with pytest.raises(Refused, match="repetition_penalty"):
        wishes(asked, card, known, "x", [1])
    # the older name of another is known
    [wish] = wishes(Completion(model="tiny", prompt="x", min_tokens=3), card, known, "x", [1])
    assert [each.name for each in request(known, wish).inputs] == ["input_ids", "min_length"]


def test_begin_token_is_written_once_for_a_server_of_texts(tmp_path: Path) -> None:
    """A tokenizer that puts a token in front, and a template that writes it too: Llama's."""
    from tokenizers.processors import TemplateProcessing

    own = tokenizer()
    own.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 256)])
    own.save(str(tmp_path / "tokenizer.json"))
    words = Words(tmp_path / "tokenizer.json", (END,))
    assert words.begins == "<s>"
    card = Card("tiny", "r1", 0, words, None, 100, 100, False)
    known = Model({"text_input": "BYTES"}, frozenset(), False, True, True)
    chat = Chat(model="tiny", messages=[{"role": "user", "content": "x"}])
    [wish] = wishes(chat, card, known, "<s>[user] x", words.encode("<s>[user] x", special=False))
    assert wish.prompt == "[user] x"
    # a text of the client's own is left alone
    [wish] = wishes(Completion(model="tiny", prompt="<s>x"), card, known, "<s>x", [256, 88])
    assert wish.prompt == "<s>x"


def test_blank_at_the_beginning_of_an_answer_is_kept(tmp_path: Path) -> None:
    """SentencePiece writes a blank as part of the word behind it, and decodes a text's first one away."""
    pieces = ["<unk>", "\u2581Once", "\u2581upon", "\u2581a", "\u2581time", "a"]
    own = Tokenizer(
        models.WordLevel({piece: number for number, piece in enumerate(pieces)}, unk_token="<unk>")
    )
    own.pre_tokenizer = pre_tokenizers.Metaspace()
    own.decoder = decoders.Metaspace()
    own.save(str(tmp_path / "tokenizer.json"))
    words = Words(tmp_path / "tokenizer.json", ())
    prompt = words.encode("Once upon", special=False)
    growing = Growing(words, prompt)
    assert [growing.add([each]) for each in (3, 4)] == [" a", " time"]
    assert [words.named(each) for each in (3, 4)] == [" a", " time"]


def test_tokens_without_a_text_cost_nothing(words: Words) -> None:
    growing = Growing(words)
    began = time.monotonic()
    for _ in range(20_000):
        assert growing.add([257]) == ""
    # and bytes that never become a character are written as they are
    for _ in range(2_000):
        growing.add([words.encode("\u00fc", special=False)[0]])
    assert time.monotonic() - began < 2
