"""Texts in, vectors out: the one path that the command line and every program takes."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Unpack, overload

import mlx.core as mx
import numpy as np

from mlx_stella.checkpoint.checkpoint import Checkpoint
from mlx_stella.checkpoint.tokenization import Tokenizer
from mlx_stella.encoding import pipeline, settings
from mlx_stella.encoding.batching import plan
from mlx_stella.encoding.memory import Memory
from mlx_stella.encoding.padding import pad
from mlx_stella.encoding.progress import Progress, Reporter
from mlx_stella.encoding.settings import EncodeOptions, OnLong
from mlx_stella.encoding.windows import Window, check_lengths, check_vectors, windows
from mlx_stella.errors import ConfigError, InputError, StellaWarning
from mlx_stella.models import heads

Backbone = Callable[[mx.array, mx.array | None], mx.array]
"""Token ids and attention mask (B, L) to hidden states (B, L, D) float32."""


class Encoder:
    """A loaded model. Use one from one thread at a time.

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
        self.checkpoint = checkpoint
        self.dtype = dtype
        self._memory = Memory(checkpoint.args, checkpoint.memory_bytes(dtype), memory_limit)
        self._memory.apply(checkpoint.usual_length)
        self._tokenizer = checkpoint.load_tokenizer()
        if checkpoint.max_seq_length <= self._tokenizer.special_tokens:
            raise ConfigError(
                f"max_seq_length {checkpoint.max_seq_length} leaves no room for a text",
                where=checkpoint.directory,
                remedy="use a checkpoint as published",
            )
        self._backbone: Backbone = backbone or checkpoint.load_backbone(dtype)
        self._heads: dict[int, tuple[mx.array, mx.array | None]] = {}
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
        return self.checkpoint.max_seq_length - empty[0].untruncated_length - 2

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own, to count tokens with."""
        return self._tokenizer

    def __repr__(self) -> str:
        name = self.checkpoint.directory.name
        return f"<Encoder {name}: {self.dtype}, dims {', '.join(map(str, self.dims))}>"

    @overload
    def encode(
        self, texts: str | Iterable[str], *, dims: Sequence[int], **options: Unpack[EncodeOptions]
    ) -> dict[int, np.ndarray]: ...
    @overload
    def encode(
        self, texts: str | Iterable[str], *, dims: None = None, **options: Unpack[EncodeOptions]
    ) -> np.ndarray: ...
    def encode(
        self,
        texts,
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        instruction: str | None = None,
        dim: int | None = None,
        dims: Sequence[int] | None = None,
        normalize: bool = True,
        max_length: int | None = None,
        on_long: OnLong = "truncate",
        max_batch_tokens: int | None = None,
        progress: Callable[[Progress], None] | None = None,
    ):
        """Embed texts.

        Args:
            texts: N strings, or one. An empty string has the vector of its special tokens.
            prompt_name: a name among ``prompts``; prompt: the prefix itself; instruction: a task
                in a sentence, wrapped as "Instruct: ...\\nQuery: ". At most one of the three.
            dim: size of the vectors, one of ``dims``; each is a Dense head of its own.
            dims: several sizes, from one forward pass.
            normalize: rows of unit length. If false, the vectors before any normalising.
            max_length: tokens per text, special ones and prompt included; at most the model's
                positions. By default what the checkpoint says.
            on_long: "truncate" cuts longer texts and warns with their number, "error" raises.
            max_batch_tokens: padded tokens that go through the model at once; by default
                what suits the device.
            progress: called with a :class:`Progress` after each batch.

        Returns:
            float32 (N, dim), rows in the order of the texts; (dim,) for one string. With
            ``dims``: a dictionary from size to such an array.

        Raises:
            InputError: an argument or a text cannot be used; the row is named.
            TextTooLongError: a text exceeds max_length and on_long is "error".
            VectorError: the model gave a vector that is not finite, or is zero.
        """
        single = isinstance(texts, str)
        rows = [texts] if single else settings.rows(texts)
        sizes = self._sizes(dim, dims)
        blocks = self._stream(
            rows,
            sizes,
            self.checkpoint.prompts.choose(prompt_name, prompt, instruction),
            normalize=normalize,
            max_length=self._limit(max_length),
            on_long=on_long,
            max_batch_tokens=max_batch_tokens,
            report=Reporter(progress, len(rows)),
        )
        vectors = {size: np.empty((len(rows), size), np.float32) for size in sizes}
        done = 0
        for block in blocks:
            for size, array in block.items():
                vectors[size][done : done + len(array)] = array
            done += len(block[sizes[0]])
        if single:
            vectors = {size: array[0] for size, array in vectors.items()}
        return vectors if dims is not None else vectors[sizes[0]]

    def encode_stream(
        self,
        texts: Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        instruction: str | None = None,
        dim: int | None = None,
        normalize: bool = True,
        max_length: int | None = None,
        on_long: OnLong = "truncate",
        max_batch_tokens: int | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> Iterator[np.ndarray]:
        """Embed any number of texts in constant memory.

        The texts are taken from the iterable as they are needed, some thousand at a time; batches
        are formed among those. Arguments and errors are those of :meth:`encode`.

        Yields:
            float32 (n, dim) for the next n texts, in their order.
        """
        (size,) = self._sizes(dim, None)
        blocks = self._stream(
            texts,
            [size],
            self.checkpoint.prompts.choose(prompt_name, prompt, instruction),
            normalize=normalize,
            max_length=self._limit(max_length),
            on_long=on_long,
            max_batch_tokens=max_batch_tokens,
            report=Reporter(progress, None),
        )
        return (block[size] for block in blocks)

    def encode_query(
        self,
        texts: str | Iterable[str],
        *,
        task: str | None = None,
        dims: Sequence[int] | None = None,
        **options: Unpack[EncodeOptions],
    ):
        """Embed questions, with the model's query prompt.

        Args:
            texts: as in :meth:`encode`, which takes the ``options`` too.
            task: which query prompt: "s2p" (finding passages, Stella's default) or "s2s" (similar
                sentences) for Stella, "sts", "msmarco" and others for NV-Embed. None takes the
                model's usual one; a model without query prompts embeds the text alone. An option
                ``prompt_name``, ``prompt`` or ``instruction`` takes its place.

        Returns:
            As :meth:`encode`.

        Raises:
            InputError: there is no prompt for the task; and as in :meth:`encode`.
        """
        if not settings.names_a_prompt(options):
            options["prompt_name"] = self.checkpoint.prompts.for_query(task)
        elif task is not None:
            raise InputError("task chooses a prompt", remedy="give it or a prompt, not both")
        return self.encode(texts, dims=dims, **options)

    def encode_document(
        self,
        texts: str | Iterable[str],
        *,
        dims: Sequence[int] | None = None,
        **options: Unpack[EncodeOptions],
    ):
        """Embed passages to be found, with the document prompt where the model has one.

        Args, results and errors are those of :meth:`encode`.
        """
        if not settings.names_a_prompt(options):
            options["prompt_name"] = self.checkpoint.prompts.for_document()
        return self.encode(texts, dims=dims, **options)

    def batch_shapes(
        self, texts: Sequence[str], max_length: int | None, max_batch_tokens: int | None
    ) -> tuple[list[int], int]:
        """Tokens of each text, and the tokens computed for all of them, padding included."""
        limit = self._limit(max_length)
        budget = self._budget(max_batch_tokens, limit)
        lengths, padded = [], 0
        for _, rows in windows(texts):
            window = [len(text.ids) for text in self._tokenizer.encode(rows, "", limit)]
            lengths += window
            padded += sum(window[batch[0]] * len(batch) for batch in plan(window, budget))
        return lengths, padded

    def similarity(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Similarity of every row of a to every row of b: the cosine, or what the model declares.

        Args:
            a: (N, dim) or (dim,); b: (M, dim) or (dim,).

        Returns:
            (N, M) float32.

        Raises:
            InputError: the vectors differ in size, or one is zero and has no direction.
        """
        a, b = (np.atleast_2d(np.asarray(x, np.float32)) for x in (a, b))
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
            raise InputError(
                f"vectors of shape {a.shape} and {b.shape} cannot be compared",
                remedy="embed both with the same dim",
            )
        if self.checkpoint.similarity == "cosine":
            norms = [np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b)]
            if any((norm == 0).any() for norm in norms):
                raise InputError("a vector of zeros has no direction", remedy="leave it out")
            a, b = a / norms[0], b / norms[1]
        return a @ b.T

    def _sizes(self, dim: int | None, dims: Sequence[int] | None) -> list[int]:
        if dim is not None and dims is not None:
            raise InputError("give dim or dims, not both")
        if dims is not None and (isinstance(dims, (int, str)) or not list(dims)):
            raise InputError(f"dims is {dims!r}", remedy="a list of sizes, such as [256, 1024]")
        sizes = list(dims) if dims is not None else [self.default_dim if dim is None else dim]
        for size in sizes:
            if size not in self.dims or isinstance(size, float):
                raise InputError(
                    f"this model has no vectors of {size} dimensions",
                    remedy=f"one of {', '.join(map(str, self.dims))}",
                )
        return [int(size) for size in sizes]

    def _limit(self, max_length: int | None) -> int:
        if max_length is None:
            return self.checkpoint.max_seq_length
        least = self._tokenizer.special_tokens + 1
        return settings.whole("max_length", max_length, least, self.checkpoint.max_positions)

    def _budget(self, max_batch_tokens: int | None, length: int) -> int:
        if max_batch_tokens is None:
            return self._memory.batch_tokens(length)
        return settings.whole("max_batch_tokens", max_batch_tokens, 1, 2**31)

    def _stream(
        self,
        texts: Iterable[str],
        sizes: Sequence[int],
        prefix: str,
        *,
        normalize: bool,
        max_length: int,
        on_long: OnLong,
        max_batch_tokens: int | None,
        report: Reporter,
    ) -> Iterator[dict[int, np.ndarray]]:
        """Vectors of window after window: size -> (texts of the window, size) float32."""
        if on_long not in ("truncate", "error"):
            raise InputError(f"on_long {on_long!r} is unknown", remedy="truncate or error")
        budget = self._budget(max_batch_tokens, max_length)
        masked = self._tokenizer.prompt_length(prefix) if self.checkpoint.masks_prompt else 0

        def tokenize(window: tuple[int, list[str]]) -> Window:
            first, rows = window
            tokens = self._tokenizer.encode(rows, prefix, max_length, first)
            check_lengths(tokens, first, max_length, masked, on_long)
            vectors = {size: np.empty((len(rows), size), np.float32) for size in sizes}
            return Window(first, tokens, vectors)

        def batches() -> Iterator[tuple[Window, list[int]]]:
            for window in pipeline.ahead(tokenize, windows(texts)):
                report.cut += sum(t.untruncated_length > max_length for t in window.tokens)
                lengths = [len(text.ids) for text in window.tokens]
                self._memory.check(lengths, window.first)
                for rows in plan(lengths, budget):
                    yield window, rows

        def forward(batch: tuple[Window, list[int]]) -> list[mx.array]:
            window, rows = batch
            return self._forward([window.tokens[row].ids for row in rows], masked, sizes, normalize)

        for (window, rows), arrays in pipeline.run(batches(), forward):
            for size, array in zip(sizes, arrays, strict=True):
                check_vectors(array, [window.first + row for row in rows], self.dtype)
                window.vectors[size][rows] = array
            window.done += len(rows)
            report.add(len(rows), sum(len(window.tokens[row].ids) for row in rows))
            if window.done == len(window.tokens):
                yield window.vectors
        if report.cut:
            warnings.warn(
                f"{report.cut} of {report.texts} texts were cut to {max_length} tokens",
                StellaWarning,
                stacklevel=4,
            )

    def _head(self, size: int) -> tuple[mx.array, mx.array | None] | None:
        """The weights of a Dense head, read when first used; None for the pooled vector itself."""
        if size not in self.checkpoint.heads:
            return None
        if size not in self._heads:
            self._heads[size] = self.checkpoint.heads[size].load()
        return self._heads[size]

    def _forward(
        self, ids: Sequence[Sequence[int]], masked: int, sizes: Sequence[int], normalize: bool
    ) -> list[mx.array]:
        """One batch of token ids to (B, size) float32 for each size."""
        batch = pad(ids, masked, self.checkpoint)
        hidden_states = self._backbone(batch.input_ids, batch.attention_mask)
        pooled = heads.pool(hidden_states, batch.pooling_mask, self.checkpoint.pooling)
        outputs = []
        for size in sizes:
            weights = self._head(size)
            vector = pooled
            if weights is not None:
                vector = heads.dense(pooled, *weights, self.checkpoint.heads[size].activation)
            outputs.append(heads.normalize(vector) if normalize else vector)
        return outputs
