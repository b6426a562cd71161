"""How well a model finds what people judged relevant: nDCG, recall and MRR on a BEIR folder.

The measures are those of trec_eval, on the best 100 documents of each question: gains are the
judgements themselves, discounts log2(rank + 1), equal scores are ordered by descending id.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from mlx_stella.encoding.encoder import Encoder
from mlx_stella.errors import InputError, StellaWarning
from mlx_stella.files.tables import TableRow, read_rows

DEPTH = 100
"""Of a ranking; deeper only where recall is asked for further down."""

RECALL_AT = (10, 100)
_BLOCK_TEXTS = 2048

Run = dict[str, dict[str, float]]
"""Question id -> document id -> score, as public evaluators take it."""


@dataclass(frozen=True)
class Beir:
    """A folder in BEIR's layout.

    Attributes:
        corpus: corpus.jsonl, documents with ``_id``, ``text`` and maybe ``title``.
        queries: id -> text, only of questions with a judgement.
        judgements: question id -> document id -> how relevant; 0 is not at all.
    """

    corpus: Path
    queries: Mapping[str, str]
    judgements: Mapping[str, Mapping[str, int]]

    def documents(self) -> Iterator[tuple[str, str]]:
        """(id, title and text) of each document, as it is read.

        Raises:
            InputError: there is none, or one is malformed; file and line are named.
        """
        row = None
        for row in _rows(self.corpus, ("title", "text")):
            yield row.record, row.text
        if row is None:
            raise InputError("holds no document", where=self.corpus, remedy="a corpus of BEIR")


def open_beir(folder: Path, split: str = "test") -> Beir:
    """Read questions and judgements. A judged question that is nowhere is told, and left out.

    Raises:
        InputError: a file is missing or malformed; it is named.
    """
    corpus, queries = folder / "corpus.jsonl", folder / "queries.jsonl"
    qrels = folder / "qrels" / f"{split}.tsv"
    for path in (corpus, queries, qrels):
        if not path.is_file():
            raise InputError("no such file", where=path, remedy="a folder in BEIR's layout")
    judgements = _read_judgements(qrels)
    texts = {row.record: row.text for row in _rows(queries, ("text",))}
    judged = {query: texts[query] for query in judgements if query in texts}
    if not judged:
        raise InputError(f"judges no question of {queries}", where=qrels, remedy="another split")
    if missing := len(judgements) - len(judged):
        warnings.warn(
            f"{missing} of {len(judgements)} questions of {qrels} are not in {queries}: they are "
            "not counted",
            StellaWarning,
            stacklevel=2,
        )
    return Beir(corpus, judged, judgements)


def _read_judgements(path: Path) -> dict[str, dict[str, int]]:
    """Lines of question, document and gain, with tabs between; the first may be a heading."""
    judgements: dict[str, dict[str, int]] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            query, document, gain = line.decode("utf-8-sig").split("\t")
            if number > 1 or _is_whole(gain):
                judgements.setdefault(query, {})[document] = int(gain)
        except ValueError:  # as is a UnicodeDecodeError
            raise InputError(
                "not question, document and a whole number, in UTF-8 and with tabs between",
                where=f"{path}, line {number}",
                remedy="mend it",
            ) from None
    return judgements


def _is_whole(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return True


def _rows(path: Path, fields: Sequence[str]) -> Iterator[TableRow]:
    """The rows of a file of BEIR's, where documents may lack a title."""
    try:
        for row in read_rows(path, fields, optional=("title",), joint=" "):
            if not row.record:
                raise InputError("no _id", where=f"line {row.line}")
            yield row
    except InputError as error:
        # Its own remedy is for files of other layouts, too.
        where, remedy = f"{path}, {error.where}", "an object with _id and text a line"
        raise InputError(error.fault, where=where, remedy=remedy) from None


def rank(encoder: Encoder, data: Beir, dims: Sequence[int], depth: int = DEPTH) -> dict[int, Run]:
    """The best ``depth`` documents for each question by each size of vectors, exactly.

    Documents are embedded once for all sizes and forgotten at once: memory grows with the
    questions only. A document with the id of the question is left out, as BEIR does.
    """
    ids = list(data.queries)
    queries = encoder.encode_query(list(data.queries.values()), dims=dims)
    best = {dim: _Best(ids, depth) for dim in dims}
    documents = data.documents()
    while block := list(islice(documents, _BLOCK_TEXTS)):
        names = [name for name, _ in block]
        vectors = encoder.encode_document([text for _, text in block], dims=dims)
        for dim in dims:
            best[dim].add(encoder.similarity(queries[dim], vectors[dim]), names)
    return {dim: found.run() for dim, found in best.items()}


class _Best:
    """The best documents so far: scores (Q, at most depth + 1) and ids of the same shape."""

    def __init__(self, queries: Sequence[str], depth: int):
        self._queries, self._depth = queries, depth
        self._scores = np.empty((len(queries), 0), np.float32)
        self._names = np.empty((len(queries), 0), object)

    def add(self, scores: np.ndarray, names: Sequence[str]) -> None:
        new = np.broadcast_to(np.array(names, object), scores.shape)
        scores = np.concatenate([self._scores, scores], axis=1)
        every = np.concatenate([self._names, new], axis=1)
        keep = min(self._depth + 1, scores.shape[1])
        top = np.argpartition(-scores, keep - 1, axis=1)[:, :keep]
        self._scores = np.take_along_axis(scores, top, axis=1)
        self._names = np.take_along_axis(every, top, axis=1)

    def run(self) -> Run:
        found = {}
        for query, names, scores in zip(self._queries, self._names, self._scores, strict=True):
            pairs = [pair for pair in zip(names, scores.tolist(), strict=True) if pair[0] != query]
            found[query] = dict(_ordered(dict(pairs))[: self._depth])
        return found


def measure(
    run: Run, judgements: Mapping[str, Mapping[str, int]], recall_at: Sequence[int] = RECALL_AT
) -> dict[str, float]:
    """Means over the questions of a run: "ndcg@10", "recall@10" and so on, and "mrr".

    Questions without a relevant document score 0 in all of them. MRR looks at the best 100, however
    many there are.
    """
    rows = []
    for query, scores in run.items():
        relevant = {name: gain for name, gain in judgements.get(query, {}).items() if gain > 0}
        gains = np.array([relevant.get(name, 0) for name, _ in _ordered(scores)], np.float64)
        hits = np.flatnonzero(gains)
        ideal = _dcg(np.array(sorted(relevant.values(), reverse=True), np.float64))
        rows.append(
            (
                _dcg(gains) / ideal if ideal else 0.0,
                *((hits < k).sum() / max(len(relevant), 1) for k in recall_at),
                1 / (hits[0] + 1) if len(hits) and hits[0] < DEPTH else 0.0,
            )
        )
    means = np.mean(rows, axis=0).tolist()
    names = ("ndcg@10", *(f"recall@{k}" for k in recall_at), "mrr")
    return dict(zip(names, means, strict=True))


def _dcg(gains: np.ndarray) -> float:
    gains = gains[:10]
    return float((gains / np.log2(np.arange(len(gains)) + 2)).sum())


def _ordered(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(scores.items(), key=lambda pair: (pair[1], pair[0]), reverse=True)
