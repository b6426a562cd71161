"""A task runs in mteb with our model, and gives what `eval` gives. Skipped without mteb."""

import json
import sys

import pytest
from support import CHECKPOINTS, ROOT, TESTS

pytest.importorskip("mteb", reason="needs the extra mteb, which brings torch")
sys.path.append(str(ROOT / "scripts"))
import mteb
from mteb_beir import task_of

from mlx_stella.evaluation.beir import measure, open_beir, rank
from mlx_stella.mteb import MtebModel

pytestmark = pytest.mark.filterwarnings("ignore")  # mteb's, about data that it does not have


@pytest.fixture
def data(tmp_path):
    """Questions that are words of the documents, some of which two documents answer."""
    words = (TESTS / "golden" / "texts.txt").read_text().split()
    texts = [" ".join(words[n : n + 12]) for n in range(0, 480, 12)]
    (tmp_path / "qrels").mkdir()
    documents = [{"_id": f"d{n}", "title": "A" * (n % 2), "text": t} for n, t in enumerate(texts)]
    queries = [{"_id": f"q{n}", "text": texts[3 * n][:20]} for n in range(12)]
    for name, rows in (("corpus", documents), ("queries", queries)):
        lines = [json.dumps(row) for row in rows]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    judged = [f"q{n}\td{3 * n + more}\t{2 - more}" for n in range(12) for more in range(n % 2 + 1)]
    lines = ["query-id\tcorpus-id\tscore", *judged]
    (tmp_path / "qrels" / "test.tsv").write_text("\n".join(lines))
    return open_beir(tmp_path)


@pytest.mark.parametrize("name", ["tiny-stella-400m", "tiny-nv-embed", "tiny-stella-zh-v2"])
def test_a_task_gives_what_eval_gives(data, name):
    model = MtebModel(str(CHECKPOINTS / name))
    (result,) = mteb.evaluate(
        model, task_of(data, "tiny"), cache=None, co2_tracker=False
    ).task_results
    (found,) = result.scores["test"]
    expected = measure(rank(model.model, data, [model.dim])[model.dim], data.judgements)
    assert 0 < expected["ndcg@10"] < 1
    for ours, theirs in (("ndcg@10", "ndcg_at_10"), ("recall@10", "recall_at_10")):
        assert found[theirs] == pytest.approx(expected[ours], abs=1e-5)  # it rounds to five


def test_results_of_two_sizes_are_two_results():
    """mteb keeps results, and takes those of the same description for the same model's."""
    metas = [
        MtebModel(str(CHECKPOINTS / "tiny-stella-400m"), dim=dim).mteb_model_meta
        for dim in (256, 1024)
    ]
    assert metas[0].name == metas[1].name == "mlx-stella/tiny-stella-400m"
    assert metas[0].revision == metas[1].revision != "no_revision_available"
    assert metas[0].experiment_name != metas[1].experiment_name
