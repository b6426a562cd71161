"""Texts in, vectors out: the one path that the command line and every program takes.

``encode`` cuts the texts into windows; ``prepare`` makes one of them into token ids, in a thread,
while ``run`` has the model compute the one before it.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Unpack, overload

import numpy as np

from mlx_stella.encoding import pipeline
from mlx_stella.encoding.loaded import LoadedModel, level_of_the_caller
from mlx_stella.encoding.prepared import Prepared
from mlx_stella.encoding.progress import Progress, Reporter
from mlx_stella.encoding.settings import (
    AllOptions,
    EncodeOptions,
    Settings,
    listed,
    names_a_prompt,
)
from mlx_stella.encoding.vectors import similarity
from mlx_stella.encoding.windows import windows
from mlx_stella.errors import InputError, StellaWarning

Texts = str | Iterable[str]
OnProgress = Callable[[Progress], None] | None


class _Options(EncodeOptions, total=False):
    """With ``progress``, for the overloads, which differ in ``dims`` alone."""

    progress: OnProgress


class Encoder(LoadedModel):
    """A loaded model. It may be used from any thread; the device is used by one at a time.

    A call that comes while another is computed waits: for all of its texts, or, where they are
    more than some thousand, for some of them. A call that fails or is interrupted leaves nothing
    behind.

    Attributes:
        checkpoint: what the directory says: prompts, heads, lengths.
        dtype: "float16", "bfloat16" or "float32".
    """

    @overload
    def encode(
        self, texts: Texts, *, dims: Sequence[int], **options: Unpack[_Options]
    ) -> dict[int, np.ndarray]: ...
    @overload
    def encode(
        self, texts: Texts, *, settings: Settings, progress: OnProgress = None
    ) -> np.ndarray | dict[int, np.ndarray]: ...
    @overload
    def encode(
        self, texts: Texts, *, dims: None = None, **options: Unpack[_Options]
    ) -> np.ndarray: ...
    def encode(
        self,
        texts: Texts,
        *,
        settings: Settings | None = None,
        progress: OnProgress = None,
        **options: Unpack[AllOptions],
    ) -> np.ndarray | dict[int, np.ndarray]:
        """Embed texts. Equal ones are computed once, where they are within some thousand.

        Args:
            texts: N strings, or one. An empty string has the vector of its special tokens.
            settings: from :meth:`settings`; or, in their place, the ``options`` that it takes:
                prompt_name, prompt, instruction, dim, dims, truncate_dim, normalize, max_length,
                on_long, max_batch_tokens.
            progress: called with a :class:`Progress` after each batch.

        Returns:
            float32 (N, dim), rows in the order of the texts; (dim,) for one string. With
            ``dims``: a dictionary from size to such an array.

        Raises:
            InputError: an argument or a text cannot be used; the row is named.
            TextTooLongError: a text exceeds max_length and on_long is "error".
            VectorError: the model gave a vector that is not finite, or is zero.
        """
        settings = self._chosen(settings, options)
        rows = listed(texts)
        result = {width: np.empty((len(rows), width), np.float32) for width in settings.widths}
        done = 0
        for block in self._blocks(rows, settings, Reporter(progress, len(rows))):
            for size, array in block.items():
                result[size][done : done + len(array)] = array
            done += len(array)
        if isinstance(texts, str):
            result = {size: array[0] for size, array in result.items()}
        return result if settings.by_size else result[settings.widths[0]]

    @overload
    def encode_stream(
        self, texts: Iterable[str], *, dims: Sequence[int], **options: Unpack[_Options]
    ) -> Iterator[dict[int, np.ndarray]]: ...
    @overload
    def encode_stream(
        self, texts: Iterable[str], *, settings: Settings, progress: OnProgress = None
    ) -> Iterator[np.ndarray] | Iterator[dict[int, np.ndarray]]: ...
    @overload
    def encode_stream(
        self, texts: Iterable[str], *, dims: None = None, **options: Unpack[_Options]
    ) -> Iterator[np.ndarray]: ...
    def encode_stream(
        self,
        texts: Iterable[str],
        *,
        settings: Settings | None = None,
        progress: OnProgress = None,
        **options: Unpack[AllOptions],
    ) -> Iterator[np.ndarray] | Iterator[dict[int, np.ndarray]]:
        """Embed any number of texts in constant memory.

        The texts are taken from the iterable as they are needed, some thousand at a time; batches
        are formed among those. Arguments and errors are those of :meth:`encode`. Between two
        blocks the model is free, for other threads and for whoever takes the blocks.

        Yields:
            float32 (n, dim) for the next n texts, in their order. With ``dims``: a dictionary
            from size to such an array.
        """
        settings = self._chosen(settings, options)
        blocks = self._blocks(texts, settings, Reporter(progress, None))
        return blocks if settings.by_size else (block[settings.widths[0]] for block in blocks)

    @overload
    def encode_query(
        self,
        texts: Texts,
        *,
        task: str | None = None,
        dims: Sequence[int],
        **options: Unpack[_Options],
    ) -> dict[int, np.ndarray]: ...
    @overload
    def encode_query(
        self,
        texts: Texts,
        *,
        task: str | None = None,
        dims: None = None,
        **options: Unpack[_Options],
    ) -> np.ndarray: ...
    def encode_query(
        self,
        texts: Texts,
        *,
        task: str | None = None,
        dims: Sequence[int] | None = None,
        progress: OnProgress = None,
        **options: Unpack[EncodeOptions],
    ) -> np.ndarray | dict[int, np.ndarray]:
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
        if not names_a_prompt(options):
            options["prompt_name"] = self.checkpoint.prompts.for_query(task)
        elif task is not None:
            raise InputError("task chooses a prompt", remedy="give it or a prompt, not both")
        return self.encode(texts, dims=dims, progress=progress, **options)

    @overload
    def encode_document(
        self, texts: Texts, *, dims: Sequence[int], **options: Unpack[_Options]
    ) -> dict[int, np.ndarray]: ...
    @overload
    def encode_document(
        self, texts: Texts, *, dims: None = None, **options: Unpack[_Options]
    ) -> np.ndarray: ...
    def encode_document(
        self,
        texts: Texts,
        *,
        dims: Sequence[int] | None = None,
        progress: OnProgress = None,
        **options: Unpack[EncodeOptions],
    ) -> np.ndarray | dict[int, np.ndarray]:
        """Embed passages to be found, with the document prompt where the model has one.

        Args, results and errors are those of :meth:`encode`.
        """
        if not names_a_prompt(options):
            options["prompt_name"] = self.checkpoint.prompts.for_document()
        return self.encode(texts, dims=dims, progress=progress, **options)

    def similarity(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Similarity of every row of a to every row of b: the cosine, or what the model declares.

        Args:
            a: (N, dim) or (dim,); b: (M, dim) or (dim,).

        Returns:
            (N, M) float32.

        Raises:
            InputError: the vectors differ in size, or one is zero and has no direction.
        """
        return similarity(a, b, cosine=self.checkpoint.similarity == "cosine")

    def _blocks(
        self, texts: Iterable[str], settings: Settings, report: Reporter
    ) -> Iterator[dict[int, np.ndarray]]:
        """Window after window: size -> (texts of the window, size) float32."""

        def prepare(window: tuple[int, list[str]]) -> Prepared:
            first, rows = window
            return self.prepare(rows, settings, first=first)

        for window in pipeline.ahead(prepare, windows(texts)):
            report.cut += window.cut
            yield self.run(window, settings, done=report.add)
        if report.cut:
            warnings.warn(
                f"{report.cut} of {report.texts} texts were cut to {settings.max_length} tokens",
                StellaWarning,
                stacklevel=level_of_the_caller(),
            )
