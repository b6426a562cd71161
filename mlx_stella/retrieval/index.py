"""An index of files: made, brought up to date, asked, read. The one way in for every caller."""

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self, TypedDict, Unpack, overload

import numpy as np

from mlx_stella import __version__
from mlx_stella.checkpoint.tokenization import check_text
from mlx_stella.encoding.encoder import Encoder
from mlx_stella.encoding.settings import listed
from mlx_stella.errors import InputError, StoreError
from mlx_stella.files import lock
from mlx_stella.loading import load_recorded
from mlx_stella.retrieval import passages, ranking
from mlx_stella.retrieval.chunking import Chunker
from mlx_stella.retrieval.export import export
from mlx_stella.retrieval.manifest import Asked, IndexManifest, begin, check_model, read_manifest
from mlx_stella.retrieval.sources import (
    check_found,
    forget_sources,
    key_of,
    remember_sources,
    scan_sources,
    tell_of_lost_folders,
)
from mlx_stella.retrieval.status import IndexStatus, status_of
from mlx_stella.retrieval.store import Hit, Store, StoredChunk, is_ref, open_store, parse_filters
from mlx_stella.retrieval.updating import Tell, UpdateReport, update_rows

StrPath = str | os.PathLike[str]


class SearchOptions(TypedDict, total=False):
    """The options of :meth:`Index.search`, which says what each means."""

    top: int
    filters: Sequence[str]
    hybrid: bool
    exact: bool
    task: str | None
    vectors: np.ndarray | None


class Index:
    """Files that can be searched by meaning; see :meth:`open` and :meth:`create`.

    It may be asked from several threads, and sees what other processes write. One process at a
    time updates it.

    Attributes:
        uri: where it lies.
    """

    def __init__(
        self,
        store: Store,
        model: str | Encoder | None,
        asked: Asked,
        memory_limit: int | None,
    ):
        self.uri = store.uri
        self._store, self._asked, self._memory_limit = store, asked, memory_limit
        self._lent = model if isinstance(model, Encoder) else None
        self._name = str(model.checkpoint.directory) if isinstance(model, Encoder) else model
        self._encoder: Encoder | None = self._lent
        self._checked: Encoder | None = None
        self._loading = threading.Lock()
        self._manifest = read_manifest(store)

    @classmethod
    def open(
        cls,
        uri: StrPath,
        *,
        model: str | Encoder | None = None,
        dtype: str | None = None,
        memory_limit: int | None = None,
    ) -> Self:
        """An index that exists. Its model is loaded when it is first needed.

        Args:
            uri: a folder, s3://bucket/name or qdrant+http://host:6333/collection.
            model: the index's model, or where it lies now; None for the name and the commit that
                the index records.
            dtype, memory_limit: see :func:`mlx_stella.load`. By default an index is searched with
                the dtype that suits this machine, and updated with its own.

        Raises:
            StoreError: there is no index, or it cannot be used.
            InputError: there can be none at this address.
        """
        index = cls(open_store(os.fspath(uri)), model, Asked(dtype=dtype), memory_limit)
        _ = index.manifest
        return index

    @classmethod
    def create(
        cls,
        uri: StrPath,
        model: str | Encoder | None,
        *,
        dim: int | None = None,
        truncate_dim: int | None = None,
        chunk_tokens: int | None = None,
        overlap: int | None = None,
        dtype: str | None = None,
        memory_limit: int | None = None,
        exist_ok: bool = False,
    ) -> Self:
        """A new index. Nothing is written, and no model loaded, before the first :meth:`update`.

        Args:
            uri: as in :meth:`open`.
            model: an encoder, or what to load; None only for an index that exists.
            dim: size of the vectors; by default the model's.
            truncate_dim: keep this many numbers of each vector, the first ones; by default all.
            chunk_tokens: tokens in a chunk; by default what the model reads, at most 512.
            overlap: tokens repeated from chunk to chunk; by default an eighth.
            dtype, memory_limit: see :func:`mlx_stella.load`.
            exist_ok: open an index that exists, if it was made with the settings that are given.

        Raises:
            StoreError: there is one, or one of other settings; or it cannot be used.
            InputError: there can be none at this address.
        """
        asked = Asked(dim, chunk_tokens, overlap, dtype, truncate_dim)
        index = cls(open_store(os.fspath(uri)), model, asked, memory_limit)
        if not index.is_new:
            if not exist_ok:
                raise StoreError("there is an index", where=index.uri, remedy="open it")
            asked.check(index.manifest, index.uri)
        return index

    @property
    def is_new(self) -> bool:
        """Whether there is nothing yet: the first :meth:`update` makes it."""
        if self._manifest is None:
            self._manifest = read_manifest(self._store)
        return self._manifest is None

    @property
    def manifest(self) -> IndexManifest:
        """What made its vectors: the model, its settings.

        Raises:
            StoreError: there is no index, as nobody has updated this one yet.
        """
        if self.is_new or self._manifest is None:
            remedy = f"mlx-stella index FOLDER --to {self.uri}"
            raise StoreError("no index", where=self.uri, remedy=remedy)
        return self._manifest

    @property
    def model(self) -> Encoder:
        """The model that made its vectors, loaded when first asked for.

        Raises:
            StoreError: there is no index, or what was loaded is another model.
            ModelNotFoundError, CheckpointError, InputError: as :func:`mlx_stella.load`.
        """
        made = self.manifest
        with self._loading:
            if self._encoder is None:
                self._encoder = self._load(made, self._asked.dtype)
            if self._encoder is not self._checked:
                check_model(made, self._encoder, self.uri)
                self._checked = self._encoder
            return self._encoder

    def update(
        self,
        paths: StrPath | Sequence[StrPath],
        *,
        globs: Sequence[str] = (),
        fields: Sequence[str] = (),
        progress: Callable[[int], Tell] | None = None,
    ) -> UpdateReport:
        """Bring the index up to date with files: only what is new or changed is embedded.

        A run that was stopped, however it was, is taken up where it had come to.

        Args:
            paths: folders and files. What the index has of other folders stays.
            globs: only files of such names, "*.md" say.
            fields: of .jsonl, .csv and .parquet, what makes up a text; by default "text".
            progress: called with the number of files; what it returns is called after each commit
                with the number of files done since, and that of chunks done in all.

        Returns:
            What was done, and which files were left out and why.

        Raises:
            InputError: a path does not exist, or a new index would be of nothing; a setting that
                the model cannot meet.
            StoreError: somebody else is writing, the index is of another model or other settings,
                or it cannot be written to.
        """
        store, folder = self._store, None if "://" in self.uri else Path(self.uri)
        named = [paths] if isinstance(paths, str | os.PathLike) else paths
        found = scan_sources(store, [Path(path) for path in named], globs, folder)
        made = read_manifest(store)
        check_found(found, named, is_new=made is None)
        encoder = self._model_for_writing(made)
        with lock.writing(self.uri):
            made = begin(store, encoder, self._model_name(made), self._asked, __version__)
            remember_sources(store, found, list(fields))
            report = update_rows(
                store,
                found,
                fields,
                Chunker(encoder.tokenizer, made.chunk_tokens, made.overlap),
                made.embedder(encoder, made.prompt),
                progress(len(found.files)) if progress else lambda files, chunks: None,
            )
            forget_sources(store, found)
            tell_of_lost_folders(store)
        self._manifest = made
        return report

    @overload
    def search(  # type: ignore[overload-overlap]  # a str is a sequence of str, and asked for first
        self, query: str, **options: Unpack[SearchOptions]
    ) -> list[Hit]: ...
    @overload
    def search(self, query: Sequence[str], **options: Unpack[SearchOptions]) -> list[list[Hit]]: ...
    def search(
        self,
        query: str | Sequence[str],
        *,
        top: int = 10,
        filters: Sequence[str] = (),
        hybrid: bool = False,
        exact: bool = False,
        task: str | None = None,
        vectors: np.ndarray | None = None,
    ) -> list[Hit] | list[list[Hit]]:
        """The passages that answer a question, best first.

        Args:
            query: a question, or several, which are embedded together.
            top: how many hits.
            filters: only where FIELD=PATTERN, as "file=docs/*"; fields are file, heading and
                record; all must hold.
            hybrid: fuse the ranking by meaning with one by words.
            exact: look at every vector.
            task: which query prompt, as in ``Encoder.encode_query``.
            vectors: those of the questions, (N, width) float32 of unit length, where the caller has
                the index's model at hand, a server say; its fingerprint is that of the manifest.

        Returns:
            Hits; for several questions a list of them each.

        Raises:
            InputError: a question is empty, a filter is not understood, no prompt belongs to the
                task, or the vectors are not the questions'.
            StoreError: as :attr:`model`, or the index cannot be read.
        """
        questions = [query] if isinstance(query, str) else listed(query)
        for number, question in enumerate(questions):
            check_text(question, where=f"question {number}")
        if not all(question.strip() for question in questions):
            raise InputError("the query is empty", remedy="ask something")
        if top < 1:
            raise InputError(f"top is {top}", remedy="at least one hit")
        conditions = parse_filters(filters)
        if vectors is None:
            prompts = self.model.checkpoint.prompts
            prompt = prompts.choose(prompts.for_query(task), None, None)
            vectors = self.manifest.embedder(self.model, prompt)(questions)
        elif vectors.shape != (wanted := (len(questions), self.manifest.width)):
            fault = f"vectors of shape {vectors.shape} for {len(questions)} questions"
            raise InputError(fault, remedy=f"{wanted}")
        found = [
            ranking.search(self._store, words, vector, top, conditions, hybrid, exact)
            for words, vector in zip(questions, vectors, strict=True)
        ]
        return found[0] if isinstance(query, str) else found

    def hit(self, what: str, lines: tuple[int, int] | None = None) -> Hit:
        """A passage by the name that :meth:`search` told; its score is 1, that of itself.

        Args:
            what: a ref; or a file, with the first and the last line of the passage.

        Raises:
            InputError: this is no ref; or no passage of the file, or more than one, has the lines.
            StoreError: the index does not hold it, or cannot be read.
        """
        row = self._row(what) if lines is None else passages.find(self._store, what, lines)
        return Hit(1.0, row)

    def similar(self, hit: Hit | str, *, top: int = 10, filters: Sequence[str] = ()) -> list[Hit]:
        """The passages most like one that the index holds, best first, without itself.

        Args:
            hit: it, or its ref. No model is needed.
            top, filters: as in :meth:`search`.

        Raises:
            InputError: this is no ref.
            StoreError: the index does not hold it, or cannot be read.
        """
        row = self._row(hit)
        vectors = self._store.vectors([row.chunk.text_hash])
        if not vectors:
            raise self._gone(row.ref)  # this moment
        conditions = parse_filters(filters)
        hits = self._store.search(vectors[row.chunk.text_hash], top + 1, conditions, False)
        return [found for found in hits if found.ref != row.ref][:top]

    def read(self, what: Hit | str, lines: tuple[int, int] | None = None) -> str:
        """A passage, a file, or lines of one, as the index holds them. No file is opened.

        Of text, Markdown and code blank lines and line numbers are the file's; white space at the
        ends of chunks and before a chunk of one line is lost, and so is what a binary file was.
        Of HTML the text without its tags is what was indexed, of a PDF that of its pages, of a
        file of rows the fields chosen: those are given as passages, a blank line between them.

        Args:
            what: a hit or its ref; or a file, by its name below its root or by its whole path, as
                hits tell them.
            lines: first and last, counted from 1; of the file that a hit is in, too. None for the
                passage of a hit, and for the whole of a file. Of HTML and of files of rows the
                passages that stand in these lines.

        Raises:
            InputError: there is no such file or no such line, several files have the name, or
                lines are asked of a PDF, which are counted anew on each page.
            StoreError: the index does not hold what the ref names, or cannot be read.
        """
        overlap = self.manifest.overlap
        if isinstance(what, Hit) or is_ref(what):
            row = self._row(what)
            if lines is None:
                return row.chunk.text
            root: str | None = row.key.root
            name = row.key.name
        else:
            root, name = key_of(self._store, what)
        return passages.read(self._store, root, name, lines, overlap)

    def status(self) -> IndexStatus:
        """What the index holds, and which files the next update would embed or take out.

        Looks at every file by its content; loads no model and changes nothing.
        """
        return status_of(self._store, self.manifest)

    def export(self, output: StrPath, *, overwrite: bool = False) -> int:
        """Write all passages and vectors to a .parquet file, or .npy with a .rows.jsonl beside it.

        Returns:
            The number of rows.

        Raises:
            InputError: the ending is another, a file is there, or it would lie in the index.
            OutputError: it cannot be written.
        """
        return export(self._store, self.manifest.width, Path(output), overwrite)

    def _model_for_writing(self, made: IndexManifest | None) -> Encoder:
        """The model in the index's dtype; one that was loaded to search may be of another."""
        dtype = self._asked.dtype or (made.dtype if made else None)
        with self._loading:
            is_other = self._encoder is not None and dtype not in (None, self._encoder.dtype)
            if self._encoder is None or (is_other and self._lent is None):
                self._encoder = self._load(made, dtype)
            return self._encoder

    def _load(self, made: IndexManifest | None, dtype: str | None) -> Encoder:
        name, origin = self._model_name(made), made.origin if made else None
        return load_recorded(name, origin, dtype, self._memory_limit, where=self.uri)

    def _model_name(self, made: IndexManifest | None) -> str:
        """What the model is loaded by, and recorded as."""
        name = self._name or (made.origin.model if made else None)
        if not name:
            raise InputError("no model given", where=self.uri, remedy="name one: stella-400m, say")
        return name

    def _row(self, hit: Hit | str) -> StoredChunk:
        """The row of a hit or a ref."""
        ref = hit.ref if isinstance(hit, Hit) else hit
        if not is_ref(ref):
            raise InputError("no ref of a passage", where=f"{ref!r}", remedy="one of a hit")
        if (row := self._store.row(ref)) is None:
            raise self._gone(ref)
        return row

    def _gone(self, ref: str) -> StoreError:
        fault = f"no passage {ref}, its file has changed or is gone"
        return StoreError(fault, where=self.uri, remedy="search again")
