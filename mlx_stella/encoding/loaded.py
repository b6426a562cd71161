"""A loaded model, and the steps that embedding is made of, for those who batch themselves.

>>> settings = model.settings(prompt_name="s2p_query")
>>> prepared = model.prepare(["What is Deep Learning?"], settings)
>>> vectors = model.run(prepared, settings)[1024]
"""

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import SupportsIndex

import mlx.core as mx
import numpy as np

from mlx_stella.checkpoint.catalog import told
from mlx_stella.checkpoint.checkpoint import Checkpoint
from mlx_stella.checkpoint.tokenization import Tokenizer, check_text
from mlx_stella.encoding import pipeline, prepared
from mlx_stella.encoding.batching import plan
from mlx_stella.encoding.memory import Memory
from mlx_stella.encoding.padding import pad
from mlx_stella.encoding.prepared import Prepared, first_alike
from mlx_stella.encoding.settings import (
    AllOptions,
    OnLong,
    Settings,
    listed,
    one_of_on_long,
    one_or_several,
    prefix_size,
    whole,
)
from mlx_stella.encoding.vectors import check_vectors
from mlx_stella.errors import ConfigError, InputError, StellaWarning
from mlx_stella.machine import process_end
from mlx_stella.models import heads

Backbone = Callable[[mx.array, mx.array | None], mx.array]
"""Token ids and attention mask (B, L) to hidden states (B, L, D) float32."""


class LoadedModel:
    """What a model is, and what it does with texts, step by step; :class:`Encoder` is one.

    It may be used from any thread; :meth:`run` is for one at a time, others wait.

    Attributes:
        checkpoint: what the directory says: prompts, heads, lengths.
        dtype: "float16", "bfloat16" or "float32".

    A ``backbone`` other than the checkpoint's own may be given, for one that is not held in memory.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        dtype: str,
        *,
        memory_limit: int | None = None,
        backbone: Backbone | None = None,
    ):
        process_end.claim()
        self.checkpoint = checkpoint
        self.dtype = dtype
        self._memory = Memory(checkpoint.args, checkpoint.memory_bytes(dtype), memory_limit)
        self._memory.apply(checkpoint.usual_length)
        self._tokenizer = checkpoint.load_tokenizer()
        self._max_seq_length = checkpoint.max_seq_length
        if checkpoint.max_seq_length <= self._tokenizer.special_tokens:
            raise ConfigError(
                f"max_seq_length {checkpoint.max_seq_length} leaves no room for a text",
                where=checkpoint.directory,
                remedy="use a checkpoint as published",
            )
        self._heads: dict[int, list[tuple[mx.array, mx.array | None, heads.Activation]]] = {}
        with process_end.awaited():
            self._backbone: Backbone = backbone or checkpoint.load_backbone(dtype)
            self._head(checkpoint.default_dim)

    @property
    def dims(self) -> tuple[int, ...]:
        """The sizes a vector can have."""
        return self.checkpoint.dims

    @property
    def default_dim(self) -> int:
        """The size of a vector where none is asked for."""
        return self.checkpoint.default_dim

    @property
    def prompts(self) -> dict[str, str]:
        """The named prompts."""
        return dict(self.checkpoint.prompts.named)

    @property
    def max_seq_length(self) -> int:
        """Tokens of a text that are read, special ones and prompt included, unless a call says
        otherwise: at first what the checkpoint says, at most the model's positions.

        Raises:
            InputError: it is set to something else.
        """
        return self._max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self._max_seq_length = self._whole_length("max_seq_length", value)

    @property
    def document_prompt(self) -> str:
        """What :meth:`encode_document` puts before a passage, "" for most models."""
        prompts = self.checkpoint.prompts
        return prompts.choose(prompts.for_document(), None, None)

    @property
    def document_room(self) -> int:
        """Tokens of a passage that are read: the limit less special tokens and prompt.

        Two more are left free, since words may be cut into other tokens behind a prompt.
        """
        empty = self._tokenizer.encode([""], self.document_prompt, self.checkpoint.max_positions)
        return self.max_seq_length - empty[0].untruncated_length - 2

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own, to count tokens with."""
        return self._tokenizer

    def __repr__(self) -> str:
        name = self.checkpoint.directory.name
        return f"<Encoder {name}: {self.dtype}, dims {', '.join(map(str, self.dims))}>"

    def settings(
        self,
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        instruction: str | None = None,
        dim: int | None = None,
        dims: Sequence[int] | None = None,
        truncate_dim: int | None = None,
        normalize: bool = True,
        max_length: int | None = None,
        on_long: OnLong = "truncate",
        max_batch_tokens: int | None = None,
    ) -> Settings:
        """How texts are to be embedded, checked once for any number of calls.

        Args:
            prompt_name: a name among ``prompts``; prompt: the prefix itself; instruction: a task
                in a sentence, wrapped as "Instruct: ...\\nQuery: ". At most one of the three.
            dim: size of the vectors, one of ``dims``; each is a Dense head of its own.
            dims: several sizes, from one forward pass.
            truncate_dim: keep this many numbers of each vector, the first ones, cut before it is
                normalised; not with ``dims``. A warning tells where the model is not known to be
                trained for it.
            normalize: rows of unit length. If false, the vectors before any normalising.
            max_length: tokens per text, special ones and prompt included; at most the model's
                positions. By default ``max_seq_length``.
            on_long: "truncate" cuts longer texts and warns with their number, "error" raises.
            max_batch_tokens: padded tokens that go through the model at once; by default
                what suits the device.

        Raises:
            InputError: one of them cannot be used with this model.
        """
        sizes = one_or_several(dim, dims, self.checkpoint)
        prefix = self.checkpoint.prompts.choose(prompt_name, prompt, instruction)
        check_text(prefix, where="the prompt")
        length = self.max_seq_length
        if max_length is not None:
            length = self._whole_length("max_length", max_length)
        on_long = one_of_on_long(on_long)
        budget = self._memory.batch_tokens(length)
        if max_batch_tokens is not None:
            budget = whole("max_batch_tokens", max_batch_tokens, 1, 2**31)
        by_size = dims is not None
        kept = prefix_size(truncate_dim, sizes, by_size)
        if kept not in (None, sizes[0], *self.checkpoint.prefix_sizes):
            warnings.warn(
                f"this model is not known to be trained for vectors that are cut to {kept} of "
                f"{sizes[0]} numbers{_known(self.checkpoint.prefix_sizes)}",
                StellaWarning,
                stacklevel=level_of_the_caller(),
            )
        return Settings(prefix, sizes, bool(normalize), length, on_long, budget, by_size, kept)

    def prepare(
        self, texts: str | Iterable[str], settings: Settings, *, first: int = 0
    ) -> Prepared:
        """Tokenize texts; nothing is computed yet. With :meth:`run` what ``encode`` is made of.

        Args:
            texts: N strings, or one.
            settings: from :meth:`settings`.
            first: the number of the first text, from which errors count.

        Returns:
            N lists of token ids, and how many tokens there were before they were cut.

        Raises:
            InputError: a text or the settings cannot be used; the row is named.
            TextTooLongError: a text exceeds the settings' max_length and on_long is "error".
            MemoryLimitError: a text is beyond the memory limit, even alone.
        """
        settings = self._chosen(settings)
        ready = prepared.prepare(self.checkpoint, self._tokenizer, listed(texts), settings, first)
        if ready.ids:
            self._memory.check(ready.lengths, first)
        return ready

    def run(
        self,
        prepared: Prepared,
        settings: Settings,
        *,
        done: Callable[[int, int], None] = lambda texts, tokens: None,
    ) -> dict[int, np.ndarray]:
        """Embed prepared texts, equal ones once; other threads wait until all of them are done.

        Args:
            prepared: from :meth:`prepare`, with the same settings.
            done: told the texts and the tokens of each batch, with those that are equal to them.

        Returns:
            Size -> (N, size) float32, rows in the order of the texts, for each of the sizes; of
            vectors that are cut, for the size that is left.

        Raises:
            InputError: the settings cannot be used.
            VectorError: the model gave a vector that is not finite, or is zero.
        """
        settings = self._chosen(settings)
        lengths, alike = prepared.lengths, first_alike(prepared.ids)
        times = Counter(alike)  # of each text that is computed, how often it is there
        computed = list(times)
        found = {width: np.empty((len(lengths), width), np.float32) for width in settings.widths}

        def forward(rows: list[int]) -> list[mx.array]:
            ids = [prepared.ids[row] for row in rows]
            return self._forward(
                ids, prepared.masked, settings.sizes, settings.normalize, settings.truncate_dim
            )

        def take(rows: list[int], arrays: list[np.ndarray]) -> None:
            for width, array in zip(settings.widths, arrays, strict=True):
                check_vectors(array, [prepared.first + row for row in rows], self.dtype)
                found[width][rows] = array
            done(sum(times[row] for row in rows), sum(times[row] * lengths[row] for row in rows))

        batches = plan([lengths[row] for row in computed], settings.budget)
        pipeline.run([[computed[place] for place in batch] for batch in batches], forward, take)
        copies = [row for row, first in enumerate(alike) if row != first]
        for vectors in found.values():
            vectors[copies] = vectors[[alike[row] for row in copies]]
        return found

    def _whole_length(self, name: str, value: SupportsIndex) -> int:
        return whole(name, value, self._tokenizer.special_tokens + 1, self.checkpoint.max_positions)

    def _chosen(self, settings: Settings | None, options: AllOptions | None = None) -> Settings:
        """The settings, or those that the options make, in the process that has the device."""
        process_end.claim()
        if settings is None:
            return self.settings(**options or {})
        if options:
            raise InputError(f"give settings or {', '.join(options)}, not both")
        if not isinstance(settings, Settings):
            raise InputError(
                f"settings are a {type(settings).__name__}", remedy="make them by model.settings()"
            )
        # They may have been made by another model.
        one_or_several(None, settings.sizes, self.checkpoint)
        prefix_size(settings.truncate_dim, settings.sizes, settings.by_size)
        self._whole_length("max_length", settings.max_length)
        return settings

    def _head(self, size: int) -> list[tuple[mx.array, mx.array | None, heads.Activation]]:
        """The Dense modules of a head, read when first used; none for the pooled vector itself."""
        if size not in self.checkpoint.heads:
            return []
        if size not in self._heads:
            self._heads[size] = self.checkpoint.heads[size].load()
        return self._heads[size]

    def _forward(
        self,
        ids: Sequence[Sequence[int]],
        masked: int,
        sizes: Sequence[int],
        normalize: bool,
        truncate_dim: int | None = None,
    ) -> list[mx.array]:
        """One batch of token ids to (B, size) float32 for each size, or what is left of it."""
        batch = pad(ids, masked, self.checkpoint)
        hidden_states = self._backbone(batch.input_ids, batch.attention_mask)
        pooled = heads.pool(hidden_states, batch.pooling_mask, self.checkpoint.pooling)
        outputs = []
        for size in sizes:
            vector = pooled
            for weight, bias, activation in self._head(size):
                vector = heads.dense(vector, weight, bias, activation)
            if truncate_dim is not None:
                if self.checkpoint.norms_before_cut:
                    vector = heads.layer_norm(vector)
                vector = heads.prefix(vector, truncate_dim)
            outputs.append(heads.normalize(vector) if normalize else vector)
        return outputs


def _known(prefix_sizes: Sequence[int]) -> str:
    return f", but to {told(prefix_sizes)}" if prefix_sizes else ""


def level_of_the_caller() -> int:
    """Frames from a warning to the line outside this package that brought it about."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("mlx_stella."):
        frame, level = frame.f_back, level + 1
    return level
