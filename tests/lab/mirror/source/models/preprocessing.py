# mypy: ignore-errors
"""Lab stand-in for the preprocessing model: text in, token ids and request tensors out.

A Triton Python model on numpy and `tokenizers`; which optional outputs it makes follows from its own config.pbtxt.
"""

import csv
import json
import os

import numpy as np
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer


def parameter(config, name):
    """The string value of a parameter, or "" where it is absent or still an unfilled placeholder."""
    value = config["parameters"].get(name, {}).get("string_value", "")
    return "" if value.startswith("${") else value


def truth(text, default):
    return text.strip().lower() in ("true", "1", "t", "y", "yes") if text else default


def special_id(folder, tokenizer, name):
    """The id of a special token such as `eos_token`, as the tokenizer's own files name it; None when they do not."""
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        path = os.path.join(folder, file)
        if not os.path.isfile(path):
            continue
        with open(path, encoding="utf-8") as opened:
            token = json.load(opened).get(name)
        if isinstance(token, dict):
            token = token.get("content")
        if token is not None:
            return tokenizer.token_to_id(token)
    return None


def words_of(row):
    """The words of one request's word list: every element is a comma-separated line, and "" means no word."""
    lines = [item.decode() if isinstance(item, bytes) else str(item) for item in row.reshape(-1)]
    return [word for fields in csv.reader(lines) for word in fields if word]


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        folder = parameter(config, "tokenizer_dir")
        path = os.path.join(folder, "tokenizer.json")
        if not os.path.isfile(path):
            raise pb_utils.TritonModelException(
                f"tokenizer_dir is '{folder}': found no {path}, expected a tokenizer; fill tokenizer_dir"
            )
        self.tokenizer = Tokenizer.from_file(path)
        self.special = truth(parameter(config, "add_special_tokens"), True)
        self.end_id = special_id(folder, self.tokenizer, "eos_token")
        self.pad_id = special_id(folder, self.tokenizer, "pad_token")
        if self.pad_id is None:
            self.pad_id = self.end_id
        self.types = {o["name"]: pb_utils.triton_string_to_numpy(o["data_type"]) for o in config["output"]}
        self.ranks = {o["name"]: len(o["dims"]) for o in config["output"]}
        pb_utils.Logger.log_info(f"[stand-in] preprocessing with {path}")

    def ids(self, text, special):
        return self.tokenizer.encode(text, add_special_tokens=special).ids

    def word_tensor(self, tensor, rows):
        """Per request two rows: all words' ids in one line, and where each word ends; -1 fills up the second."""
        flats, ends = [], []
        for row in range(rows):
            words = words_of(tensor[row]) if tensor is not None and row < len(tensor) else []
            lists = [self.ids(word, False) for word in words]
            flats.append([token for ids in lists for token in ids])
            ends.append(np.cumsum([len(ids) for ids in lists], dtype=np.int32).tolist())
        width = max(1, max(len(flat) for flat in flats))
        result = np.zeros((rows, 2, width), np.int32)
        result[:, 1, :] = -1
        for row in range(rows):
            result[row, 0, : len(flats[row])] = flats[row]
            result[row, 1, : len(ends[row])] = ends[row]
        return result

    def bias(self, words, weights, rows):
        """One weight a vocabulary entry; nothing at all where no request biases a word."""
        if words is None or weights is None:
            return np.zeros((rows, 0), np.float32)
        result = np.zeros((rows, self.tokenizer.get_vocab_size()), np.float32)
        for row in range(rows):
            names = words_of(words[row])
            if len(names) != weights[row].size:
                raise ValueError(f"found {weights[row].size} embedding_bias_weights, expected {len(names)}")
            for name, weight in zip(names, weights[row].reshape(-1), strict=True):
                for token in self.ids(name, False):
                    result[row, token] += weight
        return result

    def answer(self, request):
        def given(name):
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            return None if tensor is None or tensor.as_numpy().size == 0 else tensor.as_numpy()

        query = given("QUERY")
        if query is None:
            raise ValueError("found no text_input, expected a prompt")
        rows = query.shape[0]
        lists = [self.ids(row.reshape(-1)[0].decode(), self.special) for row in query]
        decoder = given("DECODER_QUERY")
        decoders = [[self.pad_id] for _ in range(rows)]
        if decoder is not None:
            decoders = [self.ids(row.reshape(-1)[0].decode(), False) for row in decoder]

        def padded(token_lists):
            result = np.full((rows, max(len(ids) for ids in token_lists)), self.pad_id or 0, np.int32)
            for row, ids in enumerate(token_lists):
                result[row, : len(ids)] = ids
            return result

        def lengths(token_lists):
            return np.array([[len(ids)] for ids in token_lists], np.int32)

        def one(name, fallback):
            value = given(name)
            if value is None and fallback is None:
                raise ValueError(
                    f"found no {name.lower()} and no such token in the tokenizer; send {name.lower()}"
                )
            return np.full((rows, 1), fallback, np.int32) if value is None else value.astype(np.int32)

        extra = given("PROMPT_TABLE_EXTRA_ID")
        made = {
            "INPUT_ID": padded(lists),
            "REQUEST_INPUT_LEN": lengths(lists),
            "DECODER_INPUT_ID": padded(decoders),
            "REQUEST_DECODER_INPUT_LEN": lengths(decoders),
            "BAD_WORDS_IDS": self.word_tensor(given("BAD_WORDS_DICT"), rows),
            "STOP_WORDS_IDS": self.word_tensor(given("STOP_WORDS_DICT"), rows),
            "EMBEDDING_BIAS": self.bias(given("EMBEDDING_BIAS_WORDS"), given("EMBEDDING_BIAS_WEIGHTS"), rows),
            "REQUEST_OUTPUT_LEN": given("REQUEST_OUTPUT_LEN").astype(np.int32),
            "OUT_END_ID": one("END_ID", self.end_id),
            "OUT_PAD_ID": one("PAD_ID", self.pad_id),
        }
        if extra is not None:
            made["OUT_PROMPT_TABLE_EXTRA_IDS"] = np.repeat(
                extra.astype(np.uint64), made["INPUT_ID"].shape[1], axis=1
            )
        # Image tensors: declared by some tags, never meaningful here. The ensemble waits for every output that it maps.
        for name in request.requested_output_names():
            if name not in made:
                made[name] = np.zeros((rows,) + (1,) * self.ranks[name], self.types[name])
        wanted = set(request.requested_output_names())
        return [pb_utils.Tensor(name, array) for name, array in made.items() if name in wanted]

    def execute(self, requests):
        responses = []
        for request in requests:
            try:
                responses.append(pb_utils.InferenceResponse(self.answer(request)))
            except Exception as error:  # one bad request must not take its batch down
                responses.append(pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error))))
        return responses
