"""The measures of `eval` are those of trec_eval, and its ranking is brute force."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import load_tiny

from mlx_stella.errors import InputError, StellaWarning
from mlx_stella.evaluation.beir import measure, open_beir, rank

trec = pytest.importorskip("pytrec_eval")
NAMES = {
    "ndcg@10": "ndcg_cut_10",
    "recall@10": "recall_10",
    "recall@100": "recall_100",
    "mrr": "recip_rank",
}
DOCUMENTS = st.sampled_from([f"d{n}" for n in range(40)])
RUNS = st.dictionaries(DOCUMENTS, st.floats(-1, 1, width=16), min_size=1, max_size=40)
JUDGEMENTS = st.dictionaries(DOCUMENTS, st.integers(0, 3), min_size=1, max_size=40)


def public(run, judgements) -> dict[str, float]:
    """trec_eval's own code, means over the questions."""
    evaluator = trec.RelevanceEvaluator(judgements, set(NAMES.values()))
    rows = evaluator.evaluate(run).values()
    return {ours: float(np.mean([row[theirs] for row in rows])) for ours, theirs in NAMES.items()}


@given(st.dictionaries(st.sampled_from("abc"), st.tuples(RUNS, JUDGEMENTS), min_size=1))
def test_measures_are_those_of_trec_eval(cases):
    run = {query: found for query, (found, _) in cases.items()}
    judgements = {query: judged for query, (_, judged) in cases.items()}
    ours, theirs = measure(run, judgements), public(run, judgements)
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, atol=1e-9, err_msg=name)


def write_beir(folder, documents, queries, judgements) -> None:
    (folder / "qrels").mkdir(parents=True)
    for name, rows in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = ["query-id\tcorpus-id\tscore", *["\t".join(map(str, row)) for row in judgements]]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def folder(tmp_path):
    documents = [{"_id": f"d{n}", "title": "A", "text": f"text number {n}"} for n in range(150)]
    documents[3] = {"_id": "d3", "text": "no title"}
    documents[4] = {"_id": "q1", "text": "what is number 4?"}  # the question itself
    queries = [{"_id": f"q{n}", "text": f"what is number {n}?"} for n in range(6)]
    judgements = [(f"q{n}", f"d{n}", n % 2 + 1) for n in range(5)] + [("q0", "d9", 0)]
    write_beir(tmp_path / "beir", documents, queries, judgements)
    return tmp_path / "beir"


def test_the_ranking_is_brute_force(folder):
    model, data = load_tiny("tiny-stella-1.5b"), open_beir(folder)
    runs = rank(model, data, [256, 1024])
    assert list(data.queries) == ["q0", "q1", "q2", "q3", "q4"] and list(runs) == [256, 1024]
    names, texts = zip(*data.documents(), strict=True)
    assert texts[0] == "A text number 0" and texts[3] == "no title"
    for dim, run in runs.items():
        queries = model.encode_query(list(data.queries.values()), dim=dim)
        scores = model.similarity(queries, model.encode_document(texts, dim=dim))
        for query, row in zip(data.queries, scores, strict=True):
            order = [names[n] for n in np.argsort(-row) if names[n] != query][:100]
            assert len(run[query]) == 100 and query not in run[query]
            np.testing.assert_allclose(
                list(run[query].values()), [row[names.index(name)] for name in order], atol=1e-6
            )
    found = measure(runs[1024], data.judgements)
    for name, value in public(runs[1024], data.judgements).items():
        np.testing.assert_allclose(found[name], value, atol=1e-9)


def test_a_folder_that_is_not_beir(folder):
    with pytest.raises(InputError, match=r"qrels/dev\.tsv: no such file; remedy"):
        open_beir(folder, "dev")
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td0\tgood\n")
    with pytest.raises(InputError, match=r"test\.tsv, line 2: not question"):
        open_beir(folder)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nz\td0\t1\n")
    with pytest.raises(InputError, match="judges no question"):
        open_beir(folder)
    (folder / "queries.jsonl").write_text("{")
    with pytest.raises(InputError, match=r"queries\.jsonl, line 1: not JSON"):
        open_beir(folder)


def test_judgements_without_a_heading_lose_none(folder):
    qrels = folder / "qrels" / "test.tsv"
    expected = open_beir(folder).judgements
    qrels.write_text(qrels.read_text().split("\n", 1)[1])
    assert open_beir(folder).judgements == expected
    qrels.write_bytes(b"\xef\xbb\xbf" + qrels.read_bytes().replace(b"\n", b"\r\n"))
    assert open_beir(folder).judgements == expected


def test_blank_lines_at_the_end_are_nothing(folder):
    before = open_beir(folder)
    documents = list(before.documents())
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        with (folder / name).open("a") as file:
            file.write("\n \n")
    after = open_beir(folder)
    assert (after.queries, after.judgements) == (before.queries, before.judgements)
    assert list(after.documents()) == documents


def test_questions_that_are_nowhere_are_told(folder):
    with (folder / "qrels" / "test.tsv").open("a") as file:
        file.write("gone\td1\t1\n")
    with pytest.warns(StellaWarning, match=r"1 of 6 questions of .*test\.tsv are not in .*quer"):
        assert "gone" not in open_beir(folder).queries


@pytest.mark.parametrize(
    "name, content, pattern",
    [
        ("qrels/test.tsv", b"q0\td0\t1\nq\xe9\td1\t1\n", r"test\.tsv, line 2: not question.*UTF-8"),
        ("qrels/test.tsv", b"q0 0 d0 1\n", r"test\.tsv, line 1: not question.* tabs"),
        ("queries.jsonl", b'{"text": "a"}\n', r"queries\.jsonl, line 1: no _id; remedy"),
        ("corpus.jsonl", b"", r"corpus\.jsonl: holds no document; remedy"),
        (
            "corpus.jsonl",
            b'{"_id": "a", "text": "a"}\n{"_id": "b", "body": "b"}\n',
            r"corpus\.jsonl, line 2: no field 'text', but _id, body; remedy: an object with _id",
        ),
    ],
)
def test_what_is_refused(folder, name, content, pattern):
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=pattern) as caught:
        rank(load_tiny("tiny-stella-1.5b"), open_beir(folder), [256])
    assert "--field" not in str(caught.value)


def test_the_verb(folder):
    pytest.importorskip("lancedb")
    from support.commands import run

    status, output, _ = run("eval", str(folder), "--dim", "256", "--json", cwd=folder)
    (row,) = json.loads(output)
    data = open_beir(folder)
    expected = measure(rank(load_tiny("tiny-stella-1.5b"), data, [256])[256], data.judgements)
    assert status == 0 and row["dim"] == 256 and row["dtype"] == "float32"
    for name, value in expected.items():
        np.testing.assert_allclose(row[name], value, atol=1e-6)
    assert "nDCG@10" in run("eval", str(folder), cwd=folder)[1]


def test_recall_among_any_number(folder):
    pytest.importorskip("lancedb")
    from support.commands import run

    arguments = ("eval", str(folder), "--dim", "256", "--recall", "120", "--recall", "5")
    _, output, _ = run(*arguments, "--json", cwd=folder)
    (row,) = json.loads(output)
    assert [name for name in row if "recall" in name] == ["recall@5", "recall@120"]
    model, data = load_tiny("tiny-stella-1.5b"), open_beir(folder)
    deep = rank(model, data, [256], 120)[256]
    evaluator = trec.RelevanceEvaluator(data.judgements, {"recall.5,120"})
    rows = evaluator.evaluate(deep).values()
    for k in (5, 120):
        assert row[f"recall@{k}"] == pytest.approx(np.mean([r[f"recall_{k}"] for r in rows]))
    shallow = measure(rank(model, data, [256])[256], data.judgements)
    assert (row["mrr"], row["ndcg@10"]) == pytest.approx((shallow["mrr"], shallow["ndcg@10"]))
    assert "nDCG@10  recall@5  recall@120" in run(*arguments, cwd=folder)[1]
