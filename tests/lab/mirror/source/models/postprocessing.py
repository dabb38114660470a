# mypy: ignore-errors
"""Lab stand-in for the postprocessing model: token ids in, text out; log probabilities and logits pass through.

A Triton Python model on numpy and `tokenizers`; what passes through follows from its own config.pbtxt.
"""

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
        self.skip = truth(parameter(config, "skip_special_tokens"), True)
        self.outputs = {
            o["name"]: (pb_utils.triton_string_to_numpy(o["data_type"]), len(o["dims"]))
            for o in config["output"]
        }
        pb_utils.Logger.log_info(f"[stand-in] postprocessing with {path}")

    def text(self, tokens, length):
        ids = [int(token) for token in tokens[:length] if token >= 0]
        return self.tokenizer.decode(ids, skip_special_tokens=self.skip)

    def answer(self, request):
        tokens = pb_utils.get_input_tensor_by_name(request, "TOKENS_BATCH").as_numpy()
        lengths = pb_utils.get_input_tensor_by_name(request, "SEQUENCE_LENGTH").as_numpy()
        texts = [
            [self.text(beam, int(length)).encode() for beam, length in zip(beams, row, strict=True)]
            for beams, row in zip(tokens, lengths, strict=True)
        ]
        made = [pb_utils.Tensor("OUTPUT", np.array(texts, object))]
        for name, (kind, rank) in self.outputs.items():
            if name == "OUTPUT" or name not in request.requested_output_names():
                continue
            source = pb_utils.get_input_tensor_by_name(request, name.removeprefix("OUT_"))
            # The ensemble waits for every output that it maps, so that an absent source yields zeros.
            array = source.as_numpy() if source is not None else np.zeros((len(tokens),) + (1,) * rank, kind)
            made.append(pb_utils.Tensor(name, array))
        return made

    def execute(self, requests):
        responses = []
        for request in requests:
            try:
                responses.append(pb_utils.InferenceResponse(self.answer(request)))
            except Exception as error:  # one bad request must not take its batch down
                responses.append(pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error))))
        return responses
