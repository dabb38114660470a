"""Pictures and texts as the encoders take them; used to serve, and to calibrate int8 with the same inputs.

Runs inside the serving image, with Pillow and tokenizers. Pictures are prepared as transformers' CLIPImageProcessor
does it, with the values of the model's own preprocessor_config.json.
"""

import io
import json
import os
from typing import Any

import numpy as np
from PIL import Image
from tokenizers import Tokenizer


class Pictures:
    """Image files -> float32 [n, 3, size, size]."""

    def __init__(self, weights: str) -> None:
        with open(os.path.join(weights, "preprocessor_config.json"), encoding="utf-8") as file:
            config = json.load(file)
        edge, crop = config.get("size", 224), config.get("crop_size", 224)
        self.edge = int(edge["shortest_edge"] if isinstance(edge, dict) else edge)
        self.size = int(crop["height"] if isinstance(crop, dict) else crop)
        self.mean = np.array(config["image_mean"], dtype=np.float32)
        self.deviation = np.array(config["image_std"], dtype=np.float32)

    def one(self, content: bytes) -> Any:
        """A file of any format Pillow reads."""
        picture = Image.open(io.BytesIO(content)).convert("RGB")
        short = min(picture.size)
        # cut down, as CLIPImageProcessor does it
        width, height = (max(side * self.edge // short, self.size) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        pixels = np.asarray(picture, dtype=np.float32)[top : top + self.size, left : left + self.size] / 255
        return ((pixels - self.mean) / self.deviation).transpose(2, 0, 1)

    def all(self, contents: list[bytes]) -> Any:
        """Several, as one array."""
        return np.stack([self.one(content) for content in contents]).astype(np.float32)

    def none(self, count: int) -> Any:
        """Pictures that were not given."""
        return np.zeros((count, 3, self.size, self.size), dtype=np.float32)


class Texts:
    """Texts -> int32 [n, tokens] ids and mask, every text padded or cut to the same length."""

    def __init__(self, weights: str, tokens: int) -> None:
        self.tokenizer = Tokenizer.from_file(os.path.join(weights, "tokenizer.json"))
        self.tokenizer.enable_truncation(tokens)
        self.tokenizer.enable_padding(length=tokens)

    def all(self, texts: list[str]) -> tuple[Any, Any]:
        """Ids and attention mask."""
        encoded = self.tokenizer.encode_batch(texts)
        ids = np.array([text.ids for text in encoded], dtype=np.int32)
        return ids, np.array([text.attention_mask for text in encoded], dtype=np.int32)
