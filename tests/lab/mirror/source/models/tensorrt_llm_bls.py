# mypy: ignore-errors
"""Lab stand-in for the business-logic model: the ensemble's three steps, called one after the other by code.

Decoupled, it answers piece by piece; with accumulate_tokens every piece holds the whole text so far, decoded again,
which is what tokenizers need whose words do not decode alone.
"""

import json

import numpy as np
import triton_python_backend_utils as pb_utils

# Written by the lab for each tag.
VERSION = (0, 0, 0)

# This model's input -> the input of the step that takes it.
PREPROCESSING = {
    "text_input": "QUERY",
    "decoder_text_input": "DECODER_QUERY",
    "max_tokens": "REQUEST_OUTPUT_LEN",
    "bad_words": "BAD_WORDS_DICT",
    "stop_words": "STOP_WORDS_DICT",
    "embedding_bias_words": "EMBEDDING_BIAS_WORDS",
    "embedding_bias_weights": "EMBEDDING_BIAS_WEIGHTS",
    "end_id": "END_ID",
    "pad_id": "PAD_ID",
}
GENERATION = {
    "top_k": "runtime_top_k",
    "top_p": "runtime_top_p",
    "temperature": "temperature",
    "length_penalty": "len_penalty",
    "repetition_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "return_log_probs": "return_log_probs",
    "return_context_logits": "return_context_logits",
    "return_generation_logits": "return_generation_logits",
    "beam_width": "beam_width",
    "stream": "streaming",
    "num_return_sequences": "num_return_sequences",
    "exclude_input_in_output": "exclude_input_in_output",
}
RENAMED = {"min_length": "min_tokens", "random_seed": "seed"}
GENERATION |= {
    new if VERSION >= (0, 20, 0) else old: new if VERSION >= (0, 20, 0) else old
    for old, new in RENAMED.items()
}
# preprocessing's output -> tensorrt_llm's input
BETWEEN = {
    "INPUT_ID": "input_ids",
    "REQUEST_INPUT_LEN": "input_lengths",
    "REQUEST_OUTPUT_LEN": "request_output_len",
    "BAD_WORDS_IDS": "bad_words_list",
    "STOP_WORDS_IDS": "stop_words_list",
    "EMBEDDING_BIAS": "embedding_bias",
    "OUT_END_ID": "end_id",
    "OUT_PAD_ID": "pad_id",
}
SPECULATIVE = ("num_draft_tokens", "use_draft_logits")


def parameter(config, name):
    """The string value of a parameter, or "" where it is absent or still an unfilled placeholder."""
    value = config["parameters"].get(name, {}).get("string_value", "")
    return "" if value.startswith("${") else value


def generator_name(config):
    """The model that generates. Before v0.13 a placeholder that nobody filled is taken for a model's name."""
    if VERSION < (0, 13, 0):
        return config["parameters"].get("tensorrt_llm_model_name", {}).get("string_value", "tensorrt_llm")
    return parameter(config, "tensorrt_llm_model_name") or "tensorrt_llm"


def checked(response):
    if response.has_error():
        raise pb_utils.TritonModelException(response.error().message())
    return {tensor.name(): tensor for tensor in response.output_tensors()}


def renamed(tensor, name):
    return pb_utils.Tensor(name, tensor.as_numpy())


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.decoupled = pb_utils.using_decoupled_model_transaction_policy(config)
        self.generator = generator_name(config)
        self.accumulate = parameter(config, "accumulate_tokens").lower() in ("true", "1")
        self.outputs = [output["name"] for output in config["output"]]
        pb_utils.Logger.log_info(
            f"[stand-in] bls over {self.generator}, decoupled={self.decoupled}, accumulate_tokens={self.accumulate}"
        )

    def call(self, model, inputs, outputs, decoupled=False):
        request = pb_utils.InferenceRequest(model_name=model, inputs=inputs, requested_output_names=outputs)
        return request.exec(decoupled=decoupled)

    def generated(self, request):
        """The tensors of every answer of the generator, in order."""
        given = {tensor.name(): tensor for tensor in request.inputs()}
        for name in SPECULATIVE:
            if name in given and given[name].as_numpy().any():
                raise ValueError(
                    f"found {name}: the lab's bls model has no draft model; send the request without it"
                )
        prepared = checked(
            self.call(
                "preprocessing",
                [renamed(given[ours], theirs) for ours, theirs in PREPROCESSING.items() if ours in given],
                list(BETWEEN),
            )
        )
        inputs = [renamed(tensor, BETWEEN[name]) for name, tensor in prepared.items()]
        inputs += [renamed(given[ours], theirs) for ours, theirs in GENERATION.items() if ours in given]
        wanted = ["output_ids", "sequence_length", *(name for name in self.outputs if name != "text_output")]
        answers = self.call(self.generator, inputs, wanted, self.decoupled)
        for answer in answers if self.decoupled else [answers]:
            tensors = checked(answer)
            if tensors:  # a decoupled model may close its stream with an empty answer
                yield tensors

    def answers(self, request):
        """The responses to one request: one, or when streaming one for every piece."""
        stream = pb_utils.get_input_tensor_by_name(request, "stream")
        accumulate = self.accumulate and stream is not None and bool(stream.as_numpy().any())
        so_far = None
        for tensors in self.generated(request):
            ids, lengths = tensors["output_ids"].as_numpy(), tensors["sequence_length"].as_numpy()
            if accumulate:
                if ids.shape[1] != 1:
                    raise ValueError(
                        f"found {ids.shape[1]} beams, accumulate_tokens expects 1; set beam_width 1"
                    )
                new = ids[:, :, : int(lengths.reshape(-1)[0])]
                so_far = new if so_far is None else np.concatenate([so_far, new], axis=2)
                ids, lengths = so_far, np.full_like(lengths, so_far.shape[2])
            text = checked(
                self.call(
                    "postprocessing",
                    [pb_utils.Tensor("TOKENS_BATCH", ids), pb_utils.Tensor("SEQUENCE_LENGTH", lengths)],
                    ["OUTPUT"],
                )
            )
            made = [renamed(text["OUTPUT"], "text_output")]
            made += [tensor for name, tensor in tensors.items() if name in self.outputs]
            yield pb_utils.InferenceResponse(made)

    def stream(self, request):
        sender = request.get_response_sender()
        final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        try:
            for response in self.answers(request):
                if sender.is_cancelled():
                    break
                sender.send(response)
        except Exception as error:
            sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error))))
        finally:
            sender.send(flags=final)

    def execute(self, requests):
        if self.decoupled:
            for request in requests:
                self.stream(request)
            return None
        responses = []
        for request in requests:
            try:
                responses.append(list(self.answers(request))[-1])
            except Exception as error:  # one bad request must not take its batch down
                responses.append(pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error))))
        return responses
