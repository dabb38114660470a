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

# Pillow reads dozens, and some with programs of their own
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
MOST_PIXELS = 25_000_000  # 75 MB while they are read
LONGEST = 20  # times the short side


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
        """A file of one of FORMATS. Raises ValueError for what would take more than a picture's memory."""
        opened = Image.open(io.BytesIO(content), formats=FORMATS)
        # before a pixel is read: what a file says of itself
        short, long = sorted(opened.size)
        if short < 1 or long > short * LONGEST or short * long > MOST_PIXELS:
            raise ValueError(
                f"picture: found {opened.size[0]} x {opened.size[1]} pixels, expected at most {MOST_PIXELS} in all and "
                f"{LONGEST} times as long as wide"
            )
        picture = opened.convert("RGB")
        # cut down, as CLIPImageProcessor does it; of the resized picture, only what is kept is made
        width, height = (max(side * self.edge // short, self.size) for side in picture.size)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        across, down = picture.width / width, picture.height / height
        kept = (left * across, top * down, (left + self.size) * across, (top + self.size) * down)
        picture = picture.resize((self.size, self.size), Image.Resampling.BICUBIC, box=kept)
        pixels = np.asarray(picture, dtype=np.float32) / 255
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
