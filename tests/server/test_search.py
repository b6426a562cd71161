"""Search over HTTP, beside Index in this process: same hits, newest commit, no path told."""

import shutil
import threading
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

pytest.importorskip("lancedb")
pytest.importorskip("fastapi")
from support import CHECKPOINTS, load_tiny
from support.commands import TEXTS, write
from support.listening import ask, serving, short_folder

from mlx_stella import Index, InputError, StoreError
from mlx_stella.checkpoint.origin import fingerprint
from mlx_stella.server import openai
from mlx_stella.server import search as search_routes
from mlx_stella.server.embedding import Served
from mlx_stella.server.indexes import Indexes, recorded_models
from mlx_stella.server.models import Models

STELLA = CHECKPOINTS / "tiny-stella-1.5b"
QUESTION = "where are my keys?"
LINES = "\n".join(f"line {number} of tea" for number in range(1, 200))


@pytest.fixture(scope="module")
def model():
    return load_tiny("tiny-stella-1.5b")


def make(folder, model, dim=256):
    """An index of a folder's notes beside them."""
    index = Index.create(folder / "idx", model, dim=dim, chunk_tokens=64)
    index.update(folder / "notes")
    return index


@pytest.fixture(scope="module")
def server(tmp_path_factory, model):
    """A port; the index that it serves as "notes", and its folder."""
    root = tmp_path_factory.mktemp("served")
    write(root / "notes", {**TEXTS, "long.txt": LINES})
    index = make(root, model)
    served = Served(
        Models([str(STELLA)], dtype="float32"),
        shape=openai.shape,
        indexes={"notes": str(root / "idx")},
    )
    with short_folder() as short, serving(served, Path(short, "s")) as port:
        yield port, index, root


def search(port, **request):
    status, answer, text = ask(port, "POST", "/v1/search", {"query": QUESTION, **request})
    assert status == 200, text
    return answer["results"][0]["hits"]


@pytest.mark.parametrize(
    "options",
    [{}, {"hybrid": True}, {"exact": True, "top": 2}, {"filters": ["file=*.md"]}],
    ids=["plain", "hybrid", "exact", "filters"],
)
def test_the_hits_are_those_of_the_index(server, options):
    port, index, _ = server
    hits = search(port, index="notes", **options)
    expected = index.search(QUESTION, **options)
    assert [hit["id"] for hit in hits] == [hit.ref for hit in expected]
    assert [hit["score"] for hit in hits] == [hit.score for hit in expected]
    assert hits[0]["text"] == expected[0].text and "root" not in hits[0]
    first, last = expected[0].lines
    assert hits[0]["ref"] == f"notes/{expected[0].file}#L{first}-{last}"


def test_several_questions_in_one_request(server):
    port, index, _ = server
    status, answer, _ = ask(port, "POST", "/v1/search", {"query": ["tea", "keys"], "top": 1})
    assert status == 200 and [found["query"] for found in answer["results"]] == ["tea", "keys"]
    expected = index.search(["tea", "keys"], top=1)
    found = [[hit["id"] for hit in one["hits"]] for one in answer["results"]]
    assert found == [[hit.ref for hit in hits] for hits in expected]


def test_a_passage_by_its_ref_or_id_with_lines_around_it(server):
    port, index, _ = server
    hit = next(h for h in index.search("tea", top=50) if h.file == "long.txt" and h.lines[0] > 9)
    first, last = hit.lines
    ref, by_id = quote(f"notes/long.txt#L{first}-{last}", safe=""), f"notes/{hit.ref}"

    def get(path):
        status, answer, text = ask(port, "GET", f"/v1/passages/{path}")
        assert status == 200, text
        return answer

    rows = LINES.split("\n")
    assert get(by_id)["text"] == hit.text and get(by_id)["lines"] == [first, last]
    assert get(ref)["text"] == "\n".join(rows[first - 1 : last])
    around = get(f"{ref}?context=3")
    assert around["lines"] == [first - 3, last + 3]
    assert around["text"] == "\n".join(rows[first - 4 : last + 3])
    assert get(f"{by_id}?from=2&to=4")["text"] == "\n".join(rows[1:4])
    assert get("notes/long.txt")["text"] == LINES


def test_a_long_file_comes_in_pages(server, monkeypatch):
    monkeypatch.setattr(search_routes, "PAGE_CHARACTERS", 1000)
    port, pages, at = server[0], [], 0
    while at is not None:
        status, answer, _ = ask(port, "GET", f"/v1/passages/notes/long.txt?at={at}")
        assert status == 200 and len(answer["text"]) <= 1000
        pages.append(answer["text"])
        at = answer.get("next")
    assert "".join(pages) == LINES and len(pages) > 3
    status, _, text = ask(port, "GET", "/v1/passages/notes/long.txt?at=999999")
    assert status == 400 and "at is 999999" in text


def test_similar_passages(server):
    port, index, _ = server
    hit = index.search(QUESTION)[0]
    expected = [other.ref for other in index.similar(hit, top=3)]
    first, last = hit.lines
    for ref in (f"notes/{hit.ref}", f"notes/{hit.file}#L{first}-{last}"):
        status, answer, _ = ask(port, "POST", "/v1/similar", {"ref": ref, "top": 3})
        assert status == 200 and [found["id"] for found in answer["hits"]] == expected


def test_status_tells_labels_and_files_and_no_path(server):
    port, _, root = server
    status, answer, text = ask(port, "GET", "/v1/index/status")
    (entry,) = answer["indexes"]
    assert status == 200 and entry["label"] == "notes" and entry["dim"] == 256
    assert entry["model"] == "tiny-stella-1.5b" and entry["dtype"] == "float32"
    assert "uri_hash" not in entry and "models" not in answer and str(root) not in text
    _, answer, text = ask(port, "GET", "/v1/index/status?index=notes")
    assert answer["done"] == 4 and answer["pending"] == [] and str(root) not in text


GONE = f"{'0' * 32}-0-{'0' * 12}"


@pytest.mark.parametrize(
    ("status", "method", "path", "request_"),
    [
        (404, "POST", "/v1/search", {"query": "a", "index": "other"}),
        (400, "POST", "/v1/search", {"query": " "}),
        (400, "POST", "/v1/search", {"query": []}),
        (400, "POST", "/v1/search", {"query": ["a"] * 65}),
        (400, "POST", "/v1/search", {"query": "a", "top": 0}),
        (400, "POST", "/v1/search", {"query": "a", "filters": ["size=1"]}),
        (400, "POST", "/v1/search", {"query": "a", "hybrid": "perhaps"}),
        (400, "POST", "/v1/search", b"{"),
        (400, "POST", "/v1/similar", {"ref": "notes"}),
        (503, "POST", "/v1/similar", {"ref": f"notes/{GONE}"}),
        (503, "GET", f"/v1/passages/notes/{GONE}", None),
        (404, "GET", "/v1/passages/other/a.md", None),
        (400, "GET", "/v1/passages/notes/no.md", None),
        (400, "GET", "/v1/passages/notes/long.txt%23L900-901", None),
        (400, "GET", "/v1/passages/notes/long.txt?context=-1", None),
        (400, "GET", "/v1/passages/notes/long.txt?from=a", None),
        (400, "GET", "/v1/passages/notes/long.txt?from=5&to=3", None),
        (400, "GET", "/v1/passages/notes//etc/passwd", None),
        (400, "GET", "/v1/passages/notes/..%2Fidx", None),
        (404, "GET", "/v1/index/status?index=no", None),
    ],
)
def test_a_fault_is_one_line_in_openais_shape_without_a_path(
    server, status, method, path, request_
):
    port, _, root = server
    found, answer, text = ask(port, method, path, request_)
    assert found == status, text
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert "\n" not in answer["error"]["message"] and str(root) not in text


def test_a_name_below_two_folders_tells_neither(tmp_path, model):
    for folder in ("one", "two"):
        write(tmp_path / folder, {"a.md": f"{folder} cup of tea"})
    index = Index.create(tmp_path / "idx", model)
    index.update([tmp_path / "one", tmp_path / "two"])
    place = Indexes({"x": str(tmp_path / "idx")}).place("x/a.md")
    with pytest.raises(InputError, match="several files have the name") as caught:
        index.read(place.what)
    assert str(tmp_path) in str(caught.value)
    assert str(tmp_path) not in str(place.index.untold(caught.value))


def test_an_index_that_is_slow_keeps_nobody_else_waiting(server, monkeypatch):
    port, _, _ = server
    asked, let_go = threading.Event(), threading.Event()

    def slow(*arguments, **options):
        asked.set()
        assert let_go.wait(30)
        return [[]]

    monkeypatch.setattr(Index, "search", slow)
    searching = threading.Thread(target=search, args=(port,))
    searching.start()
    try:
        assert asked.wait(30)
        request = {"input": "tea", "model": "tiny-stella-1.5b"}
        assert ask(port, "POST", "/v1/embeddings", request)[0] == 200
        assert searching.is_alive()
    finally:
        let_go.set()
        searching.join(30)


def test_the_newest_commit_answers_also_of_an_index_made_anew(server, model):
    """Another handle writes while the server has the index open; two processes do no other."""
    port, _, root = server
    try:
        (root / "notes/new.md").write_text("a llama in the larder")
        Index.open(root / "idx", model=model).update(root / "notes")
        assert "new.md" in [hit["file"] for hit in search(port, top=50)]
        shutil.rmtree(root / "idx")
        status, _, text = ask(port, "POST", "/v1/search", {"query": QUESTION})
        assert status == 503 and str(root) not in text
        anew = make(root, model, dim=768)
        expected = [hit.ref for hit in anew.search(QUESTION)]
        assert [hit["id"] for hit in search(port)] == expected
        shutil.rmtree(root / "idx")
        make(root, load_tiny("tiny-gte-en-v1.5"), dim=None)
        status, answer, _ = ask(port, "POST", "/v1/search", {"query": QUESTION})
        assert status == 503 and "its model is not served" in answer["error"]["message"]
    finally:
        shutil.rmtree(root / "idx", ignore_errors=True)
        (root / "notes/new.md").unlink()
        make(root, model)


def test_a_model_that_an_index_records_is_offered_only_if_it_is_here_and_the_same(
    tmp_path, copy_of, model
):
    directory = copy_of("tiny-stella-1.5b")
    write(tmp_path / "notes", TEXTS)
    Index.create(tmp_path / "idx", str(directory), dtype="float32").update(tmp_path / "notes")
    uri = str(tmp_path / "idx")
    assert recorded_models([uri, uri], []) == {str(directory): ""}
    assert recorded_models([uri], [str(STELLA)]) == {}  # the same by its fingerprint
    models = Models([], recorded={str(STELLA): "", str(directory): ""}, dtype="float32")
    names = [model.name for model in models.all]  # of one name, and both to be told apart
    assert names == ["tiny-stella-1.5b", f"tiny-stella-1.5b@{fingerprint(directory)[:8]}"]
    assert [models.find(name)[0].is_pinned for name in names] == [True, False]
    (directory / "config.json").write_text((directory / "config.json").read_text() + " ")
    assert fingerprint(directory) != fingerprint(STELLA) and recorded_models([uri], []) == {}


def test_an_index_that_cannot_be_served_is_refused_at_the_start(tmp_path):
    with pytest.raises(StoreError, match="no index"):
        Indexes({"notes": str(tmp_path / "no")})
    with pytest.raises(InputError, match="no label"):
        Indexes({"a/b": str(tmp_path)})


def test_vectors_of_another_shape_are_refused(server):
    _, index, _ = server
    with pytest.raises(InputError, match=r"vectors of shape \(1, 3\) for 1 questions"):
        index.search("tea", vectors=np.ones((1, 3), np.float32))
