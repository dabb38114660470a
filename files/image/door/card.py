"""What the door knows of the release behind a link: read again when the link leads elsewhere."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path

from .config import Config, Place, Service
from .errors import Refused
from .template import ChatTemplate, find, read_json, special_tokens
from .tokens import Words, end_tokens
from .triton import Channels, Model, model

TOKENIZER = "tokenizer.json"
AGAIN_S = 5.0
NOT_READY = Refused(503, "the model is not ready; try again", None, "not_ready", 5)


@dataclass(frozen=True)
class Card:
    """
    One release as clients see it.

    + name: the model's, for clients
    + release: its id
    + created: since when the link leads to it, in seconds since 1970
    + template: None: it only completes texts
    + longest: tokens of a prompt and its answer together; None: not known
    + longest_prompt: tokens of a prompt alone; None: not known
    """

    name: str
    release: str
    created: int
    words: Words
    template: ChatTemplate | None
    longest: int | None
    longest_prompt: int | None
    embeds: bool


def read(service: Service, link: Path, data_root: Path) -> Card:
    """
    The release that a link leads to, and the tokenizer and the template of its weights.

    Raises ValueError with what is wrong, and OSError.
    """
    folder = link.resolve(strict=True)
    document = json.loads((folder / "release.json").read_text("utf-8"))
    artifacts = document["artifacts"]
    weights = _with_tokenizer(data_root, artifacts)
    settings = read_json(weights / "tokenizer_config.json")
    config = read_json(weights / "config.json")
    words = Words(weights / TOKENIZER, ())
    eos = special_tokens(settings).get("eos_token")
    words.ends = tuple(
        end_tokens(words.tokenizer, read_json(weights / "generation_config.json"), config, eos)
    )
    pad = config.get("pad_token_id")
    words.pad = pad if isinstance(pad, int) else (words.ends[0] if words.ends else 0)
    longest, longest_prompt = _limits(data_root, artifacts, config)
    return Card(
        name=service.name or str(document["model"]),
        release=str(document["release"]),
        created=int(link.lstat().st_mtime),
        words=words,
        template=find(weights),
        longest=longest,
        longest_prompt=longest_prompt,
        embeds=service.embedding is not None,
    )


def _with_tokenizer(data_root: Path, artifacts: dict[str, dict[str, str]]) -> Path:
    """The directory of those weights that have a tokenizer: a model of several encoders has one for texts."""
    kinds = sorted(kind for kind in artifacts if kind.split("-")[0] == "weights")
    places = [data_root / "weights" / artifacts[kind]["key"] for kind in kinds]
    found = next((place for place in places if (place / TOKENIZER).is_file()), None)
    if found is None:
        where = ", ".join(map(str, places)) or "the release"
        raise ValueError(f"{where}: found no {TOKENIZER}, which the door needs; use weights that have one")
    return found


def _limits(
    data_root: Path, artifacts: dict[str, dict[str, str]], config: dict[str, object]
) -> tuple[int | None, int | None]:
    """The engine's own limits, or the model's."""

    def number(value: object) -> int | None:
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None

    if "engine" in artifacts:
        built = read_json(data_root / "engines" / artifacts["engine"]["key"] / "config.json").get(
            "build_config"
        )
        if isinstance(built, dict):
            return number(built.get("max_seq_len")), number(built.get("max_input_len"))
    return number(config.get("max_position_embeddings")) or number(config.get("n_positions")), None


class Door:
    """One place that serves a service's model: its card, its connections, and what Triton says of the model."""

    def __init__(self, config: Config, service: Service, place: Place) -> None:
        self.config, self.service, self.place = config, service, place
        self.channels = Channels(place.address)
        self._card: Card | None = None
        self._reading = asyncio.Lock()
        self._target = ""
        self._model: Model | None = None
        self._model_of = ""
        self._model_at = 0.0
        self._refused: tuple[str, float, Refused] | None = None

    async def card(self) -> Card:
        """The release that the link leads to now. Raises Refused where there is none that can be served."""
        if self._card is not None and self._link() == self._target:
            return self._card
        async with self._reading:
            target, now = self._link(), time.monotonic()
            if self._refused and self._refused[0] == target and now - self._refused[1] < AGAIN_S:
                raise self._refused[2]
            if self._card is None or target != self._target:
                # a tokenizer takes up to a second to read, and answers go on meanwhile
                try:
                    self._card, self._target = await asyncio.to_thread(self._read), target
                except Refused as error:
                    self._refused = (target, now, error)
                    raise
            return self._card

    def _link(self) -> str:
        """What the link of the server that answers leads to. Raises Refused."""
        try:
            return str(self._answers().readlink())
        except OSError:
            raise NOT_READY from None

    def _answers(self) -> Path:
        """
        The link of the server that clients are led to.

        During a swap the proxy leads to the second server, while the link of the main one still names the release before.
        """
        following, leads = self.service.next, self.service.leads
        if self.place is not self.service.current or following is None or leads is None:
            return self.place.link
        try:
            led = leads.read_text("utf-8").strip()
        except OSError:
            led = ""
        return (
            following.link if led == following.link.name and following.link.is_symlink() else self.place.link
        )

    def _read(self) -> Card:
        try:
            return read(self.service, self._answers(), self.config.data_root)
        except (OSError, ValueError, KeyError, TypeError) as error:
            said = " ".join(str(error).split())[:300]
            raise Refused(503, f"the release cannot be read: {said}", None, "not_ready", 30) from None

    async def model(self) -> Model:
        """
        What Triton says of the model.

        Asked again for another release, and now and then: between the change of the link and the start of the new server it is
        the old one that says it. Raises Refused.
        """
        release, now = (await self.card()).release, time.monotonic()
        if self._model is None or self._model_of != release or now - self._model_at > AGAIN_S:
            self._model, self._model_of, self._model_at = await model(self.channels), release, now
        return self._model

    def forget(self) -> None:
        """Ask Triton again: another release serves than the one that was asked."""
        self._model = None
