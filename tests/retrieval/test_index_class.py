"""The public ``Index``, as a program uses it, with tiny checkpoints."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("lancedb")
from support import CHECKPOINTS, ROOT, load_tiny
from support.commands import TEXTS, fail, write

from mlx_stella import Hit, Index, InputError, StellaWarning, StoreError
from mlx_stella.retrieval.lance import LanceStore

pytestmark = pytest.mark.filterwarnings("ignore:.*[Ll]ocal:UserWarning")
MODEL = "tiny-stella-1.5b"


@pytest.fixture
def notes(tmp_path):
    write(tmp_path / "notes", TEXTS)
    return tmp_path / "notes"


@pytest.fixture
def index(uri, notes) -> Index:
    index = Index.create(uri, load_tiny(MODEL), dim=256)
    index.update(notes)
    return index


def test_a_hit_leads_back_to_its_passage(index, notes):
    hits = index.search("where are my keys?", top=3)
    assert len(hits) == 3 and all(isinstance(hit, Hit) for hit in hits)
    (tea,) = index.search("tea", filters=["file=*a.md"])
    assert (tea.file, tea.lines, tea.heading, tea.record) == ("a.md", (1, 3), "Tea", "")
    assert tea.root == str(notes) and -1 <= tea.score <= 1
    assert index.read(tea.ref) == index.read(tea) == tea.text == TEXTS["a.md"]
    assert index.read(tea, (3, 3)) == index.read("a.md", (3, 3)) == "green tea leaves"
    assert index.read(f"{notes}/sub/c.py") == index.read("sub/c.py") == "x = 'keys'"
    assert str(notes) not in tea.ref and tea.ref.replace("-", "").isalnum()


def test_several_questions_are_as_one_by_one(index):
    questions = ["tea", "keys"]
    found = index.search(questions, top=2, hybrid=True)
    assert found == [index.search(question, top=2, hybrid=True) for question in questions]
    assert index.search([]) == []


def test_similar_is_by_the_vector_and_without_itself(index):
    model = load_tiny(MODEL)
    (tea,) = index.search("tea", filters=["file=a.md"])
    hits = index.similar(tea)
    assert hits == index.similar(tea.ref) and {hit.file for hit in hits} == {"b.md", "sub/c.py"}
    vectors = model.encode_document([tea.text, *[hit.text for hit in hits]], dim=256)
    np.testing.assert_allclose([hit.score for hit in hits], vectors[1:] @ vectors[0], atol=1e-5)
    assert [hit.file for hit in index.similar(tea, top=1, filters=["file=*.py"])] == ["sub/c.py"]


def test_a_ref_is_never_of_another_passage(index, notes):
    (tea,) = index.search("tea", filters=["file=a.md"])
    (notes / "a.md").write_text("# Tea\n\nwhite tea")
    index.update(notes)
    for ask in (index.read, index.similar):
        with pytest.raises(StoreError, match="its file has changed or is gone; remedy: search"):
            ask(tea.ref)
    with pytest.raises(InputError, match=r"'a\.md': no ref of a passage; remedy"):
        index.similar("a.md")


def test_nothing_is_made_before_the_first_update(tmp_path, notes):
    index = Index.create(tmp_path / "idx", str(CHECKPOINTS / MODEL))
    assert index.is_new and not (tmp_path / "idx").exists()
    with pytest.raises(StoreError, match="no index; remedy"):
        index.search("tea")
    with pytest.raises(InputError, match=r"no file that matches --glob \*\.xyz"):
        index.update(notes, globs=["*.xyz"])
    assert not (tmp_path / "idx").exists()
    done = []
    report = index.update([notes], progress=lambda files: lambda *counts: done.append(counts))
    assert (report.found, report.files, report.embedded) == (3, 3, 3) and done == [(3, 3)]
    assert not index.is_new and index.manifest.dim == index.model.default_dim
    status = index.status()
    assert (status.chunks, len(status.done), status.pending) == (3, 3, [])
    assert index.export(tmp_path / "v.parquet") == 3
    assert index.export(tmp_path / "v.parquet", overwrite=True) == 3


def test_what_is_refused(tmp_path, notes):
    uri, model = tmp_path / "idx", load_tiny(MODEL)
    with pytest.raises(StoreError, match="no index; remedy"):
        Index.open(uri)
    Index.create(uri, model, dim=256).update(notes)
    with pytest.raises(StoreError, match="there is an index; remedy: open it"):
        Index.create(uri, model)
    with pytest.raises(StoreError, match="made with dim 256, not 768"):
        Index.create(uri, model, dim=768, exist_ok=True)
    with pytest.raises(StoreError, match="made with dtype 'float32', not 'float16'"):
        Index.create(uri, model, dtype="float16", exist_ok=True)
    other = load_tiny("tiny-stella-400m")
    for ask in (lambda i: i.search("tea"), lambda i: i.update(notes), lambda i: i.model):
        with pytest.raises(StoreError, match="its vectors are of"):
            ask(Index.open(uri, model=other))
    half = load_tiny(MODEL, "float16")
    assert Index.open(uri, model=half).search("tea", top=1)
    with pytest.raises(StoreError, match="made with dtype 'float32', not 'float16'"):
        Index.open(uri, model=half).update(notes)
    index = Index.open(uri)
    with pytest.raises(InputError, match="the query is empty"):
        index.search(["tea", " "])
    with pytest.raises(InputError, match="at least one hit"):
        index.search("tea", top=0)


def test_a_model_loaded_to_search_is_loaded_anew_to_write(tmp_path, notes):
    uri = tmp_path / "idx"
    Index.create(uri, str(CHECKPOINTS / MODEL), dtype="bfloat16").update(notes)
    index = Index.open(uri)
    assert index.search("tea") and index.model.dtype == "float32"
    (notes / "new.md").write_text("mate")
    assert index.update(notes).embedded == 1 and index.model.dtype == "bfloat16"


def test_reading_and_searching_from_threads(index):
    expected = index.search("tea", exact=True)
    vector = load_tiny(MODEL).encode_query("tea", dim=256)
    store = index._store

    def ask(_):
        hits = store.search(vector, 10, (), True)
        return hits == expected and [index.read(hit) for hit in hits] == [h.text for h in hits]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(100)))


def test_what_another_process_writes_is_seen(tmp_path, notes):
    """By stores that were open before; and a table that was not there yet."""
    uri = tmp_path / "idx"
    early = LanceStore(str(uri))
    assert early.count() == 0
    index = Index.create(uri, load_tiny(MODEL))
    index.update(notes)
    assert early.count() == 3
    assert len(index.search("tea")) == 3
    (notes / "d.md").write_text("mate")
    (notes / "b.md").unlink()
    arguments = [sys.executable, "-m", "mlx_stella", "index", str(notes), "--to", str(uri)]
    subprocess.run(arguments, check=True, capture_output=True, cwd=ROOT, timeout=120)
    assert {hit.file for hit in index.search("tea")} == {"a.md", "d.md", "sub/c.py"}
    assert early.count() == 3 and index.read("d.md") == "mate"


def test_an_index_of_version_0_1(tmp_path, notes):
    """Tables and notes as commit 3361085 wrote them; only the model's folder is this one's."""
    import lancedb
    import pyarrow as pa

    model = load_tiny(MODEL)
    manifest = {
        "format": 1,
        "version": "0.1.0",
        "model": str(CHECKPOINTS / MODEL),
        "revision": "",
        "fingerprint": "dafc404440381646f93f902b09175389",
        "dim": 256,
        "dtype": "float32",
        "prompt": "",
        "chunk_tokens": 509,
        "overlap": 63,
    }
    sources = {str(notes): {"names": None, "globs": [], "fields": []}}
    report = {"skipped": [], "failed": [], "empty": []}
    kept = {"stamp": manifest, "sources": sources, "report": report}
    text = TEXTS["a.md"]
    row = {
        "root": str(notes),
        "file": "a.md",
        "content_hash": "a4063fcee692d5777b6389cfdd14d3e8",
        "number": 0,
        "is_last": True,
        "text": text,
        "text_hash": "a4063fcee692d5777b6389cfdd14d3e8",
        "start_line": 1,
        "end_line": 3,
        "heading": "Tea",
        "record": "",
    }
    kinds = {str: pa.string(), int: pa.int64(), bool: pa.bool_()}
    columns = [(name, kinds[type(value)]) for name, value in row.items()]
    row["vector"] = model.encode_document(text, dim=256).tolist()
    schema = pa.schema([*columns, ("vector", pa.list_(pa.float32(), 256))])
    database = lancedb.connect(tmp_path / "idx")
    database.create_table("chunks", pa.Table.from_pylist([row], schema))
    database.create_table(
        "notes", [{"name": name, "value": json.dumps(value)} for name, value in kept.items()]
    )
    index = Index.open(tmp_path / "idx")
    assert index.manifest.to_json() == manifest
    assert [len(index.status().done), len(index.status().pending)] == [1, 2]
    assert [hit.file for hit in index.search("tea")] == ["a.md"]
    report = index.update(notes)
    assert (report.unchanged, report.embedded) == (1, 2)
    assert index.read("a.md") == text
    found = LanceStore(str(tmp_path / "idx")).read_note("stamp")
    assert found == manifest


def test_damaged_records(tmp_path, notes):
    Index.create(tmp_path / "idx", load_tiny(MODEL)).update(notes)
    store = LanceStore(str(tmp_path / "idx"))
    made = store.read_note("stamp")
    store.write_note("stamp", {name: made[name] for name in made if name != "dim"})
    assert "its record lacks 'dim'; remedy: make it anew" in fail("status", "idx", cwd=tmp_path)


def test_help_needs_neither_mlx_nor_lancedb():
    script = (
        "import sys\nfrom mlx_stella.cli import main\nsys.argv = ['x', 'index', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "assert not {'mlx.core', 'lancedb', 'pyarrow'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize(
    "query, options, message",
    [
        (None, {}, "texts are a NoneType"),
        (["tea", 3], {}, "question 1: a int, not a string"),
        ("tea", {"filters": "file=a.md"}, r"filters are a string; remedy: a list, \['file=a.md'\]"),
        ("tea", {"top": 0}, "top is 0"),
    ],
)
def test_questions_that_are_none(index, query, options, message):
    with pytest.raises(InputError, match=message):
        index.search(query, **options)


def test_a_folder_that_is_gone_is_told_while_others_are_indexed(index, notes, tmp_path):
    write(tmp_path / "more", {"d.md": "mate"})
    notes.rename(tmp_path / "moved")
    with pytest.warns(StellaWarning, match=r"notes is gone, and its chunks still answer; remedy"):
        index.update(tmp_path / "more")


def test_what_lies_in_a_folder_that_cannot_be_read_is_not_gone(index, notes, monkeypatch):
    system = os.scandir

    def denied(path):
        if str(path).endswith("/sub"):
            raise PermissionError(13, "Permission denied", path)
        return system(path)

    monkeypatch.setattr(os, "scandir", denied)
    status = index.status()
    assert status.gone == [] and [note.key.name for note in status.failed] == ["sub"]
