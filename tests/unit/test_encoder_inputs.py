"""Pictures as an encoder takes them: the same numbers as a whole resize gives, and no more memory than a picture's."""

from __future__ import annotations

import importlib.util
import io
import json
import resource
import sys
import types
from pathlib import Path
from typing import Any

import pytest

numpy = pytest.importorskip("numpy")
image = pytest.importorskip("PIL.Image")

SCRIPT = Path(__file__).resolve().parents[2] / "files/image/plan/encoder_inputs.py"


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    tokenizers = types.ModuleType("tokenizers")
    tokenizers.Tokenizer = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tokenizers", tokenizers)
    spec = importlib.util.spec_from_file_location("encoder_inputs", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = {"size": 224, "crop_size": 224, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config), "utf-8")
    return module.Pictures(str(tmp_path))


def file_of(width: int, height: int, kind: str = "PNG", seed: int = 1) -> bytes:
    random = numpy.random.default_rng(seed)
    small = random.integers(0, 256, (min(height, 64), min(width, 64), 3), dtype=numpy.uint8)
    picture = image.fromarray(small, "RGB").resize((width, height))
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def whole(content: bytes) -> Any:
    """As CLIPImageProcessor does it: all of it resized, then the middle cut out."""
    picture = image.open(io.BytesIO(content)).convert("RGB")
    short = min(picture.size)
    width, height = (max(side * 224 // short, 224) for side in picture.size)
    picture = picture.resize((width, height), image.Resampling.BICUBIC)
    left, top = (width - 224) // 2, (height - 224) // 2
    pixels = numpy.asarray(picture, dtype=numpy.float32)[top : top + 224, left : left + 224] / 255
    return ((pixels - 0.5) / 0.5).transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("width", "height"),
    [(224, 224), (640, 480), (480, 641), (100, 33), (33, 100), (1000, 51), (1, 1), (7, 3)],
)
def test_pictures_match_a_whole_resize(pictures: Any, width: int, height: int) -> None:
    content = file_of(width, height)
    found, wanted = pictures.one(content), whole(content)
    assert found.shape == wanted.shape == (3, 224, 224)
    # a rounding of one step of 255
    assert float(numpy.abs(found - wanted).max()) <= 2.1 / 255


@pytest.mark.parametrize(("width", "height"), [(1, 5000), (5000, 1), (1, 65535), (1, 21), (6000, 5000)])
def test_pictures_with_too_many_pixels_are_refused(pictures: Any, width: int, height: int) -> None:
    buffer = io.BytesIO()
    image.new("1", (width, height)).save(buffer, "PNG")  # a file that says little of its size
    content = buffer.getvalue()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=f"found {width} x {height} pixels, expected at most"):
        pictures.one(content)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_pictures_take_little_memory_at_the_limit(pictures: Any) -> None:
    content = file_of(1, 20)
    pictures.one(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pictures.one(file_of(20, 1))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "TIFF"])
def test_supported_picture_formats_are_read(pictures: Any, kind: str) -> None:
    assert pictures.one(file_of(30, 40, kind)).shape == (3, 224, 224)


@pytest.mark.parametrize("kind", ["EPS", "PDF", "ICO", "PPM", "TGA"])
def test_unsupported_picture_formats_are_refused(pictures: Any, kind: str) -> None:
    with pytest.raises(OSError, match="cannot identify"):
        pictures.one(file_of(30, 40, kind))
