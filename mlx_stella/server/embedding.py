"""Texts to vectors for all protocols: the one way in to the model that is served."""

import asyncio
import time
from array import array
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mlx_stella.encoding.encoder import Encoder
from mlx_stella.encoding.prepared import Prepared
from mlx_stella.encoding.settings import OnLong, Settings
from mlx_stella.server.asked import MOST_TOKENS, Asked, settle
from mlx_stella.server.call_thread import CallThread
from mlx_stella.server.faults import Faults, RequestError, Shape
from mlx_stella.server.metrics import Metrics
from mlx_stella.server.models import Models, ServedModel
from mlx_stella.server.worker import GoneError, Job, StoppingError, Worker

Receive = Callable[[], Awaitable[Any]]
"""ASGI's: after the body it tells when the client has left."""

_SLICE_TEXTS, _SLICE_CHARACTERS = 64, 65_536
"""Tokenized at once; a question waits for no more of an upload."""

_REMEMBERED = 1024
"""Single texts whose vectors are kept: questions are asked again."""


@dataclass(frozen=True)
class Embedded:
    """What a request came to.

    Attributes:
        vectors: width -> (N, width) float32, rows in the order of the texts.
        tokens: of each text, as the model read it.
        cut: the texts that were longer.
        prompt: the name of what went before each text, as a header may tell it.
        model: which model it was.
        seconds: load, tokenize, queue, forward; what took no time is absent.
    """

    vectors: Mapping[int, np.ndarray]
    tokens: Sequence[int]
    cut: Sequence[int]
    prompt: str
    model: ServedModel
    seconds: Mapping[str, float]

    @property
    def vector(self) -> np.ndarray:
        """(N, width), of the first size that was asked for."""
        return next(iter(self.vectors.values()))


class Served:
    """What a server has, for its routes.

    Attributes:
        models: their names, and which are in memory.
        indexes: label -> address.
        metrics: what is counted.
        faults: how errors are told, path by path.
        default_prompt: which prompt a request has that says nothing.
        on_start: told once the first model is loaded, or of the error it met, which is then the
            ``failure``, too.
    """

    def __init__(
        self,
        models: Models,
        *,
        shape: Shape,
        indexes: Mapping[str, str] | None = None,
        default_prompt: str | None = None,
        on_long: OnLong = "truncate",
        worker: Worker | None = None,
    ):
        self.models = models
        self.indexes = dict(indexes or {})
        self.metrics = Metrics()
        self.faults = Faults(shape)
        self.worker = worker or Worker(self.metrics)
        self.default_prompt, self._on_long = default_prompt, on_long
        self._tokenizers = {
            goes_first: CallThread(f"tokenize-{goes_first}") for goes_first in (True, False)
        }
        self._remembered: OrderedDict[Any, Embedded] = OrderedDict()
        self.failure: Exception | None = None
        self.on_start: Callable[[Exception | None], None] = lambda failure: None

    async def start(self) -> None:
        """Start the worker, and have it load the first model, which nobody waits for here."""
        self.worker.start()
        self.models.start(self.worker, self.metrics)
        self._starting = asyncio.create_task(self._load_first())

    async def _load_first(self) -> None:
        try:
            async with self.models.using(self.models.first):
                pass
        except StoppingError:
            return
        except Exception as error:
            self.failure = error
        self.on_start(self.failure)

    async def stop(self) -> None:
        """End, once all that waits is computed."""
        await self.worker.stop()
        self._starting.cancel()
        for thread in self._tokenizers.values():
            thread.stop()

    async def embed(self, asked: Asked, receive: Receive | None = None) -> Embedded:
        """Embed the texts of a request.

        Args:
            receive: of the request, whose body was read. If its client leaves, what is left of
                it is not computed.

        Raises:
            ModelNotFoundError: the model is not served.
            RequestError: the request cannot be answered as it is.
            InputError: a text cannot be used; the row is named.
            BacklogFullError: too much waits.
            VectorError: the model gave a vector that is not finite, or is zero.
            GoneError: the client left.
        """
        gone = asyncio.ensure_future(_until_gone(receive)) if receive else None
        try:
            return await self._embed(asked, gone)
        except (GoneError, asyncio.CancelledError):
            self.metrics.cancelled.inc()
            raise
        finally:
            if gone:
                gone.cancel()

    async def _embed(self, asked: Asked, gone: "asyncio.Future[None] | None") -> Embedded:
        start = time.perf_counter()
        model, suffix = self.models.find(asked.model)
        async with self.models.using(model, asked.keep_alive) as encoder:
            loaded = time.perf_counter()
            settings, prompt = settle(asked, suffix, encoder, self.default_prompt, self._on_long)
            key = None
            if len(asked.texts) == 1 and asked.goes_first:
                key = (model.name, model.revision, encoder.dtype, settings, asked.texts[0])
                if found := self._remembered.get(key):
                    self._remembered.move_to_end(key)
                    self.metrics.cached.inc()
                    return found
            prepared = await self._prepare(encoder, asked, settings, gone)
            tokenized = time.perf_counter()
            self.metrics.tokenize_seconds.observe(tokenized - loaded)
            job = await self._compute(asked, encoder, settings, prepared, gone)
        seconds = {"load": loaded - start, "tokenize": tokenized - loaded}
        if job.started:
            seconds |= {"queue": job.started - job.arrived, "forward": job.finished - job.started}
            self.metrics.queue_seconds.observe(seconds["queue"])
        lengths = prepared.lengths
        cut = [
            row for row, before in enumerate(prepared.untruncated_lengths) if before > lengths[row]
        ]
        self.metrics.truncated_texts.inc(len(cut))
        embedded = Embedded(job.vectors, lengths, cut, prompt, model, seconds)
        if key is not None:
            self._remembered[key] = embedded
            if len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)
        return embedded

    async def _prepare(
        self,
        encoder: Encoder,
        asked: Asked,
        settings: Settings,
        gone: "asyncio.Future[None] | None",
    ) -> Prepared:
        """Tokenize, slice by slice, in a thread; questions have one of their own."""
        thread = self._tokenizers[asked.goes_first]
        parts, tokens = [], 0
        for first, texts in _slices(asked.texts):
            if gone and gone.done():
                raise _left()
            part = await thread.call(partial(_tokenized, encoder, texts, settings, first))
            parts.append(part)
            tokens += sum(part.lengths)
            if tokens > MOST_TOKENS:
                fitting = MOST_TOKENS * (first + len(texts)) // tokens
                raise RequestError(
                    f"more than {MOST_TOKENS} tokens in {len(asked.texts)} texts",
                    param="input",
                    remedy=f"several requests, of {max(1, fitting)} texts say",
                )
        return parts[0] if len(parts) == 1 else Prepared.join(parts)

    async def _compute(
        self,
        asked: Asked,
        encoder: Encoder,
        settings: Settings,
        prepared: Prepared,
        gone: "asyncio.Future[None] | None",
    ) -> Job:
        lengths = prepared.lengths
        job = Job(
            group=_group(encoder, settings, prepared.masked),
            client=(asked.client, settings.prefix),  # a program's question and its passages differ
            is_interactive=asked.goes_first,
            lengths=lengths,
            size_bytes=4 * sum(lengths) + 4 * len(lengths) * sum(settings.widths),
            budget=settings.budget,
            encoder=encoder,
            settings=settings,
            prepared=prepared,
            done=asyncio.get_running_loop().create_future(),
        )
        self.worker.submit(job)
        if gone:
            gone.add_done_callback(lambda ended: _give_up(job.done))
        try:
            return await job.done
        except (GoneError, asyncio.CancelledError):
            self.worker.drop(job)
            raise


def _group(encoder: Encoder, settings: Settings, masked: int) -> Hashable:
    """What texts must have in common to go through the model together.

    Vectors of several sizes come out of one pass; those that are cut are of one size.
    """
    kept = settings.truncate_dim
    sizes = settings.sizes if kept is not None else None
    return encoder, masked, settings.normalize, settings.budget, kept, sizes


def _slices(texts: Sequence[str]) -> list[tuple[int, Sequence[str]]]:
    """Some texts at a time, with the number of the first one."""
    starts, characters = [0], 0
    for row, text in enumerate(texts):
        characters += len(text)
        if row - starts[-1] == _SLICE_TEXTS or (
            characters > _SLICE_CHARACTERS and row > starts[-1]
        ):
            starts.append(row)
            characters = len(text)
    ends = [*starts[1:], len(texts)]
    return [(start, texts[start:end]) for start, end in zip(starts, ends, strict=True)]


def _tokenized(encoder: Encoder, texts: Sequence[str], settings: Settings, first: int) -> Prepared:
    """Prepared texts, whose ids take four bytes each while they wait."""
    part = encoder.prepare(texts, settings, first=first)
    ids = [array("i", row) for row in part.ids]
    return Prepared(ids, part.untruncated_lengths, part.masked, first)


def _left() -> GoneError:
    return GoneError("the client has left")


def _give_up(future: "asyncio.Future[Job]") -> None:
    if not future.done():
        future.set_exception(_left())


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
