"""Index, search, status and export as a user types them, with a tiny checkpoint."""

import json
import os
import resource
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

pytest.importorskip("lancedb")
from support import CHECKPOINTS, any_bytes_in_names, edit_json, load_tiny
from support.commands import TEXTS, fail, run, succeed, write
from support.processes import COMMAND, STELLA

from mlx_stella.files import lock


@pytest.fixture
def notes(tmp_path):
    write(tmp_path / "notes", TEXTS)
    return tmp_path / "notes"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An index of three files that only reading tests use."""
    root = tmp_path_factory.mktemp("made")
    write(root / "notes", TEXTS)
    succeed("index", "notes", "--to", "idx", "--dim", "256", cwd=root)
    return root


def test_the_hits_are_the_models(made):
    model = load_tiny("tiny-stella-1.5b")
    question = "where are my keys?"
    output = succeed("search", "idx", question, "--top", "3", "--json", model="", cwd=made)
    hits = json.loads(output)
    query = model.encode_query(question, dim=256)
    scores = model.similarity(query, model.encode_document([h["text"] for h in hits], dim=256))[0]
    np.testing.assert_allclose([hit["score"] for hit in hits], scores, atol=1e-5)
    assert list(scores) == sorted(scores, reverse=True)
    assert {hit["file"]: hit["heading"] for hit in hits} == {
        "a.md": "Tea",
        "b.md": "",
        "sub/c.py": "",
    }
    assert next(hit["lines"] for hit in hits if hit["file"] == "a.md") == [1, 3]


def test_a_table_filters_and_many_questions(made):
    table = succeed("search", "idx", "tea", "--filter", "file=*.md", "--hybrid", cwd=made)
    assert "a.md:1-3  Tea" in table and "green tea leaves" in table and "c.py" not in table
    lines = succeed("search", "idx", "-", "--json", "--top", "1", stdin="tea\n\nkeys\n", cwd=made)
    answers = [json.loads(line) for line in lines.splitlines()]
    assert [(a["query"], len(a["hits"])) for a in answers] == [("tea", 1), ("keys", 1)]
    assert (
        json.loads(succeed("search", "idx", "tea", "--json", "--filter", "file=no", cwd=made)) == []
    )


def test_a_text_cannot_steer_the_terminal(notes):
    (notes / "a.md").write_text("green tea \x1b[2J\x07 leaves")
    succeed("index", str(notes), "--to", "idx", cwd=notes.parent)
    output = succeed("search", "idx", "tea", cwd=notes.parent)
    assert "\x1b" not in output and "\\x1b[2J\\x07" in output


def test_a_table_stays_narrow(notes):
    write(notes, {"h.md": f"# {'tea ' * 999}\n\nmate", "a.txt": "x" * 9999})
    (notes / "r.jsonl").write_text(json.dumps({"id": "i" * 999, "text": "tea " * 9}) + "\n")
    succeed("index", "notes", "--to", "idx", cwd=notes.parent)
    for name in ("h.md", "a.txt", "r.jsonl"):
        table = succeed("search", "idx", "tea", "--filter", f"file={name}", cwd=notes.parent)
        assert table and max(map(len, table.splitlines())) <= 130


def test_status_says_what_is_left(notes):
    succeed("index", "notes", "--to", "idx", cwd=notes.parent)
    (notes / "new.md").write_text("mate")
    (notes / "a.md").write_text("white tea")
    (notes / "b.md").unlink()
    found = json.loads(succeed("status", "idx", "--json", cwd=notes.parent))
    assert found["done"] == 1 and found["chunks"] == 3
    assert [(e["file"], e["reason"]) for e in found["pending"]] == [
        ("a.md", "changed"),
        ("new.md", "new"),
    ]
    assert [e["file"] for e in found["gone"]] == ["b.md"]
    (notes / "bad.jsonl").write_text("{")
    (notes / "x.bin").write_bytes(b"\0\1")
    status, _, error = run("index", "notes", "--to", "idx", cwd=notes.parent)
    assert status == 1
    assert "skipped: x.bin: binary" in error and "failed: bad.jsonl: line 1" in error
    table = succeed("status", "idx", cwd=notes.parent)
    assert "Done:    3 files" in table and "Pending" not in table
    assert "    bad.jsonl: line 1: not JSON" in table and "    x.bin: binary" in table


def test_export(made, tmp_path):
    import pyarrow.parquet as parquet

    succeed("export", "idx", "--output", str(tmp_path / "v.npy"), cwd=made)
    succeed("export", "idx", "--output", str(tmp_path / "v.parquet"), cwd=made)
    vectors = np.load(tmp_path / "v.npy")
    rows = [json.loads(line) for line in (tmp_path / "v.rows.jsonl").read_text().splitlines()]
    table = parquet.read_table(tmp_path / "v.parquet").to_pylist()
    assert vectors.shape == (3, 256) and vectors.dtype == np.float32
    for vector, row, other in zip(vectors, rows, table, strict=True):
        np.testing.assert_array_equal(vector, np.float32(other.pop("embedding")))
        assert row == other
    error = fail("export", "idx", "--output", str(tmp_path / "v.txt"), cwd=made)
    assert ".parquet or .npy" in error
    assert "lies in the index" in fail("export", "idx", "--output", "idx/v.npy", cwd=made)


@pytest.mark.parametrize("name", ["notes.parquet", "notes.npy", "notes.rows.jsonl"])
def test_export_replaces_a_file_only_where_that_was_said(made, tmp_path, name):
    (tmp_path / "notes.jsonl").write_text("what was indexed")
    (tmp_path / name).write_text("mine")
    output = tmp_path / ("notes.parquet" if name == "notes.parquet" else "notes.npy")
    error = fail("export", "idx", "--output", str(output), cwd=made)
    assert f"{tmp_path / name}: exists; remedy: another name, or --overwrite\n" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["notes.jsonl", name])
    assert (tmp_path / name).read_text() == "mine"
    succeed("export", "idx", "--output", str(output), "--overwrite", cwd=made)
    assert (tmp_path / name).read_bytes() != b"mine"
    assert (tmp_path / "notes.jsonl").read_text() == "what was indexed"


def test_why_nothing_is_found(made, tmp_path):
    def told(index, *options):
        status, output, error = run("search", index, "tea", *options, cwd=made)
        assert status == 0 and not output
        return error

    assert told("idx", "--filter", "file=x*") == "nothing found: no passage has file=x*\n"
    (tmp_path / "a.md").write_text(" ")
    index = str(tmp_path / "idx")
    succeed("index", str(tmp_path / "a.md"), "--to", index, cwd=tmp_path)
    for options in ((), ("--filter", "file=x*"), ("--hybrid",)):
        assert told(index, *options) == "nothing found: the index is empty\n"


def test_status_lists_ten_of_a_kind(made, tmp_path):
    shutil.copytree(made / "notes", tmp_path / "notes")
    succeed("index", "notes", "--to", "idx", cwd=tmp_path)
    write(tmp_path / "notes", {f"n{n}.md": "new" for n in range(12)})
    table = succeed("status", "idx", cwd=tmp_path)
    listed = [line for line in table.splitlines() if line.startswith("    ")]
    assert "Pending: 12 files" in table
    assert len(listed) == 11 and listed[-1] == "    2 more; --json lists them"
    assert len(json.loads(succeed("status", "idx", "--json", cwd=tmp_path))["pending"]) == 12


def test_what_is_refused(made, tmp_path, copy_of):
    assert "the query is empty; remedy" in fail("search", "idx", " ", cwd=made)
    assert "the query is empty" in fail("search", "idx", "-", stdin="\n", cwd=made)
    assert "no index; remedy: mlx-stella index" in fail("search", "none", "tea", cwd=tmp_path)
    assert not (tmp_path / "none").exists()
    assert "no index, it holds" in fail("search", "notes", "tea", cwd=made)
    assert "not understood; remedy" in fail("search", "idx", "tea", "--filter", "1=1", cwd=made)
    other = str(CHECKPOINTS / "tiny-stella-400m")
    assert "its vectors are of" in fail("search", "idx", "tea", "--model", other, cwd=made)
    error = fail("index", "notes", "--to", "idx", "--model", other, "--dim", "256", cwd=made)
    assert "its vectors are of" in error
    error = fail("index", "notes", "--to", "idx", "--dim", "768", cwd=made)
    assert "was made with dim 256, not 768" in error
    assert "No such file" in fail("index", "nothing", "--to", "idx", cwd=made)
    assert "no vectors of 7 dimensions" in fail(
        "index", "notes", "--to", "new", "--dim", "7", cwd=made
    )
    assert "chunks of 0 tokens" in fail(
        "index", "notes", "--to", "new", "--chunk-tokens", "0", cwd=made
    )
    moved = copy_of("tiny-stella-1.5b")
    assert len(json.loads(succeed("search", "idx", "a", "--json", "-m", str(moved), cwd=made))) == 3
    edit_json(moved / "config.json", rope_theta=5.0)
    assert "its vectors are of" in fail("search", "idx", "a", "-m", str(moved), cwd=made)


@pytest.mark.parametrize(
    "words, pattern",
    [
        ("search idx - <&-", "stdin is closed; remedy"),
        ("search idx tea >&-", "stdout is closed; remedy"),
        ("status idx >&-", "stdout is closed; remedy"),
        ("similarity a b >&-", "stdout is closed; remedy"),
        ("models >&-", "stdout is closed; remedy"),
        ("search idx tea --filter $'file=\\xe9'", "file=\\xe9: is not UTF-8; remedy"),
        ("index notes --to $'i\\xe9'", "i\\xe9: is not UTF-8; remedy"),
    ],
)
def test_closed_streams_and_arguments_that_are_not_utf8(made, words, pattern):
    script = f"exec {COMMAND} {words}"
    done = subprocess.run(["bash", "-c", script], cwd=made, capture_output=True, timeout=60)
    error = done.stderr.decode()
    assert done.returncode == 1 and done.stdout == b"" and error.count("\n") == 1, error
    assert pattern in error


def test_verbs_that_write_files_need_no_stdout(made, tmp_path):
    script = (
        f"{COMMAND} index notes --to idx >&- && {COMMAND} export idx -o {tmp_path}/v.npy >&- && "
        f"{COMMAND} embed a -m {STELLA} -o {tmp_path}/a.npy >&-"
    )
    subprocess.run(["bash", "-c", script], cwd=made, check=True, capture_output=True, timeout=60)
    assert np.load(tmp_path / "v.npy").shape == (3, 256) and (tmp_path / "a.npy").exists()


@any_bytes_in_names
def test_a_folder_may_have_a_name_that_is_not_utf8(made, tmp_path):
    shutil.copytree(made / "notes", tmp_path / os.fsdecode(b"notes\xe9"))
    succeed("index", os.fsdecode(b"notes\xe9"), "--to", "idx", cwd=tmp_path)


def test_names_that_no_file_has(notes):
    error = fail("index", "notes", "--to", "idx", "--glob", "*.xyz", cwd=notes.parent)
    assert "notes: no file that matches --glob *.xyz; remedy" in error
    assert not (notes.parent / "idx").exists()
    (notes.parent / "none").mkdir()
    assert "none: no file; remedy" in fail("index", "none", "--to", "idx", cwd=notes.parent)
    succeed("index", "notes", "--to", "idx", cwd=notes.parent)
    arguments = ("index", "notes", "--to", "idx", "--glob", "*.xyz", "--glob", "q*")
    status, _, error = run(*arguments, cwd=notes.parent)
    assert status == 0 and "note: there is no file that matches --glob *.xyz or q*\n" in error
    assert "3 files in idx" in error
    shutil.rmtree(notes)
    notes.mkdir()
    status, _, error = run("index", "notes", "--to", "idx", cwd=notes.parent)
    assert status == 0 and "note" not in error.splitlines()[0] and "3 files removed" in error


def test_a_question_that_looks_like_an_option(made):
    assert "a.md" in succeed("search", "idx", "--", "-x", cwd=made)
    for verb in ("search", "index"):
        assert "-- before one that starts with -" in " ".join(
            succeed(verb, "--help", cwd=made).replace("│", " ").split()
        )


def test_an_index_of_another_version(made, tmp_path):
    from mlx_stella.retrieval.lance import LanceStore

    shutil.copytree(made / "idx", tmp_path / "idx")
    store = LanceStore(str(tmp_path / "idx"))
    store.write_note("stamp", store.read_note("stamp") | {"format": 99})
    error = fail("search", "idx", "tea", cwd=tmp_path)
    assert "an index of format 99" in error and "remedy: make it anew" in error


def test_a_writer_names_the_other(notes):
    with lock.writing(str(notes.parent / "idx")):
        error = fail("index", "notes", "--to", "idx", cwd=notes.parent)
    assert f"process {os.getpid()} on" in error and "is writing to it" in error


def test_a_full_disk_is_one_line_and_nothing_is_lost(notes):
    """The limit on the size of a file stands for the disk."""
    succeed("index", "notes", "--to", "idx", cwd=notes.parent)
    (notes / "new.md").write_text("mate " * 500)
    done = subprocess.run(
        [COMMAND, "index", "notes", "--to", "idx", "--model", STELLA],
        cwd=notes.parent,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "the disk is full" in done.stderr
    assert json.loads(succeed("status", "idx", "--json", cwd=notes.parent))["done"] == 3
    succeed("index", "notes", "--to", "idx", cwd=notes.parent)
    assert json.loads(succeed("status", "idx", "--json", cwd=notes.parent))["done"] == 4


def test_interrupted_from_the_keyboard(notes):
    for number in range(400):
        (notes / f"{number}.md").write_text(f"note {number} " * 40)
    process = subprocess.Popen(
        [COMMAND, "index", "notes", "--to", "idx", "--model", STELLA],
        cwd=notes.parent,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (notes.parent / "idx" / "chunks.lance").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    kept = "what the index holds by now is kept; run it again to go on"
    assert process.returncode == 130 and error == f"mlx-stella: interrupted; {kept}\n"
    succeed("index", "notes", "--to", "idx", cwd=notes.parent)
    assert json.loads(succeed("status", "idx", "--json", cwd=notes.parent))["done"] == 403


def test_beir_folders_are_indexed_by_their_corpus(tmp_path):
    folder = tmp_path / "beir"
    folder.mkdir()
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "tea?"}\n')
    rows = [{"_id": "d1", "title": "Tea", "text": "green"}, {"_id": "d2", "title": "", "text": "b"}]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    succeed("index", "beir", "--to", "idx", cwd=tmp_path)
    hits = json.loads(succeed("search", "idx", "tea", "--json", cwd=tmp_path))
    assert {hit["record"]: hit["text"] for hit in hits} == {"d1": "Tea\ngreen", "d2": "b"}
