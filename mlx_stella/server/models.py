"""The models that are served: their names, which are in memory, and for how long.

All is decided in the event loop; the worker's thread only loads and frees.
"""

import asyncio
import gc
import os
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import mlx.core as mx

from mlx_stella.checkpoint import hub
from mlx_stella.checkpoint.checkpoint import Checkpoint, open_checkpoint
from mlx_stella.checkpoint.origin import fingerprint, revision_of
from mlx_stella.encoding.encoder import Encoder
from mlx_stella.encoding.memory import Memory, recommended_bytes
from mlx_stella.errors import InputError, MemoryLimitError, ModelNotFoundError
from mlx_stella.loading import default_dtype, load
from mlx_stella.server.asked import split_name
from mlx_stella.server.metrics import Metrics
from mlx_stella.server.worker import Worker

_SHARE = 0.75
"""Of what a Mac recommends for its GPU, that models may take where nobody says how much."""

KEEP_ALIVE_S = 300.0
"""How long a model stays that was loaded on demand and is not used any more."""


@dataclass(eq=False)
class ServedModel:
    """A model that clients may name.

    Attributes:
        name: what it is listed as; ``names``: all that lead to it, in small letters.
        checkpoint: what its directory says; nothing of its weights.
        revision: its commit on the Hub, "" where it is not known.
        fingerprint: of its files, see :class:`mlx_stella.checkpoint.origin.Origin`.
        is_pinned: it is loaded at the start and stays.
        encoder: where it is in memory; ``loading``: while it is read; ``timer``: until it goes.
        users: requests that need it there.
        used: when a request last did, by the loop's clock; ``keep_alive``: seconds from then on.
        created: when the server came to know it, in seconds since 1970.
    """

    name: str
    names: frozenset[str]
    source: str
    checkpoint: Checkpoint
    revision: str
    fingerprint: str
    dtype: str
    is_pinned: bool
    keep_alive: float
    encoder: Encoder | None = None
    loading: "asyncio.Task[None] | None" = None
    timer: asyncio.TimerHandle | None = None
    users: int = 0
    used: float = 0.0
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def weights_bytes(self) -> int:
        """What it takes once loaded, without batches."""
        return self.checkpoint.memory_bytes(self.dtype)

    @property
    def batch_bytes(self) -> int:
        """What its batches take, while they are computed."""
        weights = self.weights_bytes
        return Memory(self.checkpoint.args, weights).peak(self.checkpoint.usual_length) - weights


def together_bytes(models: Iterable[ServedModel]) -> int:
    """What models take at most: all their weights, and the batches of one at a time."""
    held = list(models)
    weights = sum(model.weights_bytes for model in held)
    return weights + max((model.batch_bytes for model in held), default=0)


class Models:
    """All models of a server, the first of which is always in memory.

    ``recorded`` are those of indexes, directory -> alias or ""; where another model has the name
    of one, it gets a name of its own.

    Raises:
        ModelNotFoundError, CheckpointError: a name leads to no model, or to none that can be used.
        InputError: two models have one name, or there is none.
    """

    def __init__(
        self,
        sources: Sequence[str | os.PathLike[str]],
        *,
        recorded: Mapping[str, str] | None = None,
        aliases: Mapping[str, str] | None = None,
        dtype: str | None = None,
        memory_limit: int | None = None,
        keep_alive: float = KEEP_ALIVE_S,
    ):
        if not sources and not recorded:
            raise InputError("no model to serve", remedy="--model stella-400m, say")
        self._dtype = dtype
        self.all = [
            _open(os.fspath(source), dtype or default_dtype(), number == 0, keep_alive)
            for number, source in enumerate(sources)
        ]
        self._by_name: dict[str, ServedModel] = {}
        for model in self.all:
            self._name(model, model.names)
        for source, name in (recorded or {}).items():
            model = _open(source, dtype or default_dtype(), not self.all, keep_alive)
            model.name = name or model.name
            if not {model.name.lower(), *model.names}.isdisjoint(self._by_name):
                model.name = f"{model.name}@{model.fingerprint[:8]}"
            model.names = frozenset({model.name.lower()})
            self._name(model, model.names)
            self.all.append(model)
        for alias, name in (aliases or {}).items():
            self._name(self.find(name)[0], {alias.lower()})
        self._memory_limit = memory_limit
        if memory_limit is None and (recommended := recommended_bytes()) is not None:
            room = int(recommended * _SHARE)
            self._memory_limit = max(room, together_bytes([self.first]))
        self._loading = asyncio.Lock()
        self._freed = asyncio.Event()

    @property
    def first(self) -> ServedModel:
        """The one that is always in memory."""
        return self.all[0]

    @property
    def is_ready(self) -> bool:
        """Whether the first model is in memory."""
        return self.first.encoder is not None

    def find(self, name: str) -> tuple[ServedModel, str | None]:
        """The model of a name, and the suffix of that name.

        Raises:
            ModelNotFoundError: it is none of ours, which are named.
        """
        if model := self._by_name.get(name.lower()):
            return model, None
        base, suffix = split_name(name)
        if model := self._by_name.get(base.lower()):
            return model, suffix
        known = ", ".join(model.name for model in self.all)
        raise ModelNotFoundError(
            "is not served here", where=f"model {name!r:.200}", remedy=f"one of {known}"
        )

    def start(self, worker: Worker, metrics: Metrics) -> None:
        """Load by this worker from now on."""
        self._worker, self._metrics = worker, metrics
        for model in self.all:
            metrics.model_loaded.labels(model.name).set(0)

    @asynccontextmanager
    async def using(
        self, model: ServedModel, keep_alive: float | None = None
    ) -> AsyncIterator[Encoder]:
        """Have a model in memory, loaded if it is not, until whoever uses it is done.

        Raises:
            StellaError: as :func:`mlx_stella.load`.
        """
        if keep_alive is not None:
            model.keep_alive = keep_alive
        model.users += 1
        try:
            if model.encoder is None:
                # One task for all who wait: none of them stands in line behind another model,
                # whose turn comes when this one is not used any more.
                if model.loading is None:
                    model.loading = asyncio.create_task(self._load(model))
                await asyncio.shield(model.loading)
            assert model.encoder is not None  # it has users
            yield model.encoder
        finally:
            model.users -= 1
            model.used = time.monotonic()
            self._freed.set()
            if not model.users:
                self._free_later(model)

    async def _load(self, model: ServedModel) -> None:
        try:
            async with self._loading:  # one at a time, each with the memory that is left by then
                await self._make_room(model)
                source = partial(load, model.source, dtype=self._dtype)
                model.encoder = await self._worker.call(source)
                model.checkpoint = model.encoder.checkpoint
                directory = model.checkpoint.directory
                model.revision = revision_of(directory)
                model.fingerprint = await asyncio.to_thread(fingerprint, directory)
                self._tell()
        finally:
            model.loading = None

    async def _make_room(self, model: ServedModel) -> None:
        """Free what was not used for the longest time, until the model fits.

        Raises:
            MemoryLimitError: it does not, beside the first one.
        """
        limit = self._memory_limit
        if limit is None:
            return
        least = together_bytes({self.first, model})
        if least > limit:
            with_first = "" if model.is_pinned else "with the first model "
            raise MemoryLimitError(
                f"{model.name} {with_first}takes {least / 1e9:.2f} GB, batches included, and "
                f"{limit / 1e9:.2f} GB are allowed",
                remedy="a higher --memory-limit, or a server of its own",
            )
        while together_bytes([*self._in_memory(), model]) > limit:
            idle = [m for m in self.all if m.encoder and not (m.is_pinned or m.users)]
            if idle:
                await self._free(min(idle, key=lambda m: m.used))
            else:
                self._freed.clear()
                await self._freed.wait()

    def _in_memory(self) -> list[ServedModel]:
        return [model for model in self.all if model.encoder]

    def _free_later(self, model: ServedModel) -> None:
        if model.timer:
            model.timer.cancel()
        if not model.is_pinned and model.keep_alive >= 0:
            loop = asyncio.get_running_loop()
            model.timer = loop.call_later(model.keep_alive, self._free_if_idle, model)

    def _free_if_idle(self, model: ServedModel) -> None:
        if model.encoder and not model.users and self._worker.is_alive:
            self._task = asyncio.ensure_future(self._free(model))

    async def _free(self, model: ServedModel) -> None:
        held, model.encoder = [model.encoder], None
        await self._worker.call(partial(_forget, held))
        self._tell()

    def _tell(self) -> None:
        for model in self.all:
            self._metrics.model_loaded.labels(model.name).set(model.encoder is not None)
        self._metrics.memory_bytes.set(sum(m.weights_bytes for m in self._in_memory()))

    def _name(self, model: ServedModel, names: set[str] | frozenset[str]) -> None:
        for name in names:
            if self._by_name.setdefault(name, model) is not model:
                raise InputError(
                    "two models have this name", where=name, remedy="serve one of them"
                )


def _forget(held: list[Encoder | None]) -> None:
    """On the worker's thread: the last reference goes, and what MLX keeps of it."""
    held.clear()
    gc.collect()
    mx.clear_cache()


def _open(source: str, dtype: str, is_pinned: bool, keep_alive: float) -> ServedModel:
    found = hub.resolve(source)
    checkpoint = open_checkpoint(found.directory, found.entry)
    if os.path.isdir(os.path.expanduser(source)):  # its path is nobody's business
        name = Path(source).expanduser().resolve().name
        if revision_of(found.directory) and found.repo:
            name = found.repo
    else:
        name = source
    names = {name.lower()}
    if found.entry and not os.path.isdir(os.path.expanduser(source)):
        names |= {found.entry.alias, *(repo.lower() for repo in found.entry.repos)}
    directory = found.directory
    return ServedModel(
        name=name,
        names=frozenset(names),
        source=source,
        checkpoint=checkpoint,
        revision=revision_of(directory),
        fingerprint=fingerprint(directory),
        dtype=dtype,
        is_pinned=is_pinned,
        keep_alive=keep_alive,
    )
