"""Is `mlx-stella eval` right? The same BEIR folder by sentence-transformers' brute force.

$ python scripts/compare_evaluation.py ../shared/corpus/debian MODEL_DIRECTORY --st-python PYTHON
                           nDCG@10  recall@10  recall@100       MRR
mlx-stella eval            0.85361    0.92900     0.98500   0.83132
its ranking, trec_eval     0.85361    0.92900     0.98500   0.83132
sentence-transformers      0.85361    0.92900     0.98500   0.83132
approximate index: recall@10 1.0000 of exact search, 3000 rows

Three lines: mlx-stella's ranking by its own measures, the same ranking by trec_eval's code, and
sentence-transformers' ranking by trec_eval's code. Below them, how many of the ten nearest
documents an approximate index in LanceDB finds of those that exact search finds.

PYTHON is an interpreter that has sentence-transformers; this one needs the extras `search` and
`test`. Exits with 1 if nDCG@10 differs in the third decimal, or recall is below 0.98.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

MEASURES = {
    "ndcg@10": "ndcg_cut_10",
    "recall@10": "recall_10",
    "recall@100": "recall_100",
    "mrr": "recip_rank",
}
DEPTH = 100


def rank_with_sentence_transformers(folder: Path, model: str, output: Path) -> None:
    """Every question against every document; reads the folder without mlx-stella's code."""
    import torch
    from sentence_transformers import SentenceTransformer

    def read(name: str) -> list[dict]:
        return [json.loads(line) for line in (folder / name).read_text().splitlines()]

    encoder = SentenceTransformer(model, device="cpu")
    documents, queries = read("corpus.jsonl"), read("queries.jsonl")
    texts = [f"{row.get('title', '')} {row['text']}".strip() for row in documents]
    vectors = encoder.encode(texts, convert_to_tensor=True)
    asked = encoder.encode([row["text"] for row in queries], convert_to_tensor=True)
    scores = torch.nn.functional.normalize(asked) @ torch.nn.functional.normalize(vectors).T
    best = scores.topk(min(DEPTH, len(documents)))
    run = {
        query["_id"]: {documents[i]["_id"]: value for i, value in zip(rows, row, strict=True)}
        for query, rows, row in zip(
            queries, best.indices.tolist(), best.values.tolist(), strict=True
        )
    }
    output.write_text(json.dumps(run))


def trec_eval(run: dict, judgements: dict) -> dict[str, float]:
    import numpy as np
    import pytrec_eval

    evaluator = pytrec_eval.RelevanceEvaluator(judgements, set(MEASURES.values()))
    rows = evaluator.evaluate({query: run[query] for query in judgements}).values()
    return {name: float(np.mean([row[key] for row in rows])) for name, key in MEASURES.items()}


def approximate_recall(documents, queries, folder: Path) -> float:
    """Of the ten nearest by exact search, the share that the index finds.

    Args:
        documents: unit vectors (documents, dim); queries: (questions, dim).
    """
    from mlx_stella.retrieval import lance
    from mlx_stella.retrieval.chunking import Chunk
    from mlx_stella.retrieval.scanning import Key
    from mlx_stella.retrieval.store import StoredChunk

    lance.INDEX_ROWS = 1  # a corpus of this size would be looked at row by row
    store = lance.LanceStore(str(folder))
    key, last = Key("", "corpus"), len(documents) - 1
    rows = [
        StoredChunk(
            key, "", number, number == last, Chunk(str(number), number + 1, number + 1, "", "")
        )
        for number in range(len(documents))
    ]
    store.add(rows, documents)
    store.finish()
    found = 0
    for query in queries:
        exact, near = (
            {hit.row.number for hit in store.search(query, 10, (), exact)}
            for exact in (True, False)
        )
        found += len(exact & near)
    return found / (10 * len(queries))


def compare(folder: Path, model: str, st_python: str) -> bool:
    from mlx_stella import load
    from mlx_stella.evaluation.beir import measure, open_beir, rank

    data, encoder = open_beir(folder), load(model, dtype="float32")
    judgements = {query: dict(data.judgements[query]) for query in data.queries}
    run = rank(encoder, data, [encoder.default_dim])[encoder.default_dim]
    with tempfile.TemporaryDirectory() as place:
        output = Path(place) / "run.json"
        command = [st_python, __file__, str(folder), model, "--reference", str(output)]
        subprocess.run(command, check=True)
        reference = json.loads(output.read_text())
        vectors = encoder.encode_document([text for _, text in data.documents()])
        queries = encoder.encode_query(list(data.queries.values()))
        recall = approximate_recall(vectors, queries, Path(place) / "index")
    rows = {
        "mlx-stella eval": measure(run, judgements),
        "its ranking, trec_eval": trec_eval(run, judgements),
        "sentence-transformers": trec_eval(reference, judgements),
    }
    print(f"{'':24}{'nDCG@10':>10}{'recall@10':>11}{'recall@100':>12}{'MRR':>10}")
    for name, row in rows.items():
        print(
            f"{name:24}{row['ndcg@10']:10.5f}{row['recall@10']:11.5f}{row['recall@100']:12.5f}"
            f"{row['mrr']:10.5f}"
        )
    print(f"approximate index: recall@10 {recall:.4f} of exact search, {len(vectors)} rows")
    ours, theirs = rows["mlx-stella eval"]["ndcg@10"], rows["sentence-transformers"]["ndcg@10"]
    return round(ours, 3) == round(theirs, 3) and recall >= 0.98


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("model", help="a directory that both can load")
    parser.add_argument("--st-python", help="an interpreter that has sentence-transformers")
    parser.add_argument("--reference", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.reference:
        rank_with_sentence_transformers(arguments.folder, arguments.model, arguments.reference)
    elif not arguments.st_python:
        parser.error("--st-python is missing")
    elif not compare(arguments.folder, arguments.model, arguments.st_python):
        sys.exit(1)


if __name__ == "__main__":
    main()
