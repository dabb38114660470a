"""Image file and text -> the encoders' inputs; absent ones become zeros, and `given` says which were there."""

import json
import os
import sys

import numpy as np
import triton_python_backend_utils as pb_utils

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from encoder_inputs import Pictures, Texts


class TritonPythonModel:
    def initialize(self, args):
        self.pictures = Pictures("/weights/vision")
        parameters = json.loads(args["model_config"])["parameters"]
        self.texts = Texts("/weights/text", int(parameters["text_tokens"]["string_value"]))

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        image = pb_utils.get_input_tensor_by_name(request, "image")
        text = pb_utils.get_input_tensor_by_name(request, "text")
        if image is None and text is None:
            return _refused("image, text or both are needed")
        images = None if image is None else image.as_numpy().reshape(-1)
        texts = None if text is None else text.as_numpy().reshape(-1)
        count = len(images if images is not None else texts)
        try:
            pixels = self.pictures.none(count) if images is None else self.pictures.all(list(images))
            words = [""] * count if texts is None else [text.decode("utf-8") for text in texts]
            input_ids, attention_mask = self.texts.all(words)
        # whatever Pillow makes of a file that is no picture: it is that request's fault, and of no other
        except Exception as error:
            return _refused(f"{type(error).__name__}: {error}")
        given = np.tile(np.array([[images is not None, texts is not None]]), (count, 1))
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("pixel_values", pixels),
                pb_utils.Tensor("input_ids", input_ids),
                pb_utils.Tensor("attention_mask", attention_mask),
                pb_utils.Tensor("given", given),
            ]
        )


def _refused(reason):
    return pb_utils.InferenceResponse([], pb_utils.TritonError(f"clip_search: {reason}"))
