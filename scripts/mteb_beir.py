"""Run a BEIR folder as a task of mteb, and measure it with `mlx-stella eval`'s own code beside it.

$ python scripts/mteb_beir.py ../shared/corpus/debian --model all-minilm-l6-v2
mteb 2.26.24, all-minilm-l6-v2, 1000 questions
                 mteb     eval
ndcg@10       0.85361  0.85361
recall@10     0.92900  0.92900
recall@100    0.98500  0.98500

Needs the extra `mteb`. Nothing is asked of the network.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the task is here, and so is the model

import mteb
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

from mlx_stella.evaluation.beir import Beir, measure, open_beir, rank
from mlx_stella.mteb import MtebModel

_NAMES = {
    "ndcg@10": "ndcg_at_10",
    "recall@10": "recall_at_10",
    "recall@100": "recall_at_100",
}


def task_of(data: Beir, name: str) -> AbsTaskRetrieval:
    """The folder as a task that is not on the Hub."""

    class Folder(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=name,
            description="A folder in BEIR's layout.",
            dataset={"path": "none", "revision": "none"},
            type="Retrieval",
            category="t2t",
            modalities=["text"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
            prompt={"query": "Given a question, retrieve passages that answer the question"},
        )
        ignore_identical_ids = True

        def load_data(self, *_, **__) -> None:
            corpus = [{"id": record, "text": text} for record, text in data.documents()]
            queries = [{"id": query, "text": text} for query, text in data.queries.items()]
            split = {
                "corpus": Dataset.from_list(corpus),
                "queries": Dataset.from_list(queries),
                "relevant_docs": {query: dict(data.judgements[query]) for query in data.queries},
                "top_ranked": None,
            }
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    return Folder()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dim", type=int)
    arguments = parser.parse_args()
    data = open_beir(arguments.folder)
    model = MtebModel(arguments.model, dim=arguments.dim)
    task = task_of(data, arguments.folder.resolve().name)
    (result,) = mteb.evaluate(model, task, cache=None, co2_tracker=False).task_results
    (theirs,) = result.scores["test"]
    ours = measure(rank(model.model, data, [model.dim])[model.dim], data.judgements)
    print(f"mteb {mteb.__version__}, {arguments.model}, {len(data.queries)} questions")
    print(f"{'':12}{'mteb':>9}{'eval':>9}")
    for name, their_name in _NAMES.items():
        print(f"{name:12}{theirs[their_name]:9.5f}{ours[name]:9.5f}")


if __name__ == "__main__":
    main()
