"""What can go wrong with an index, as a user meets it: one line each, and nothing is lost."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import tracemalloc

import pytest

pytest.importorskip("lancedb")
from support import ROOT
from support.commands import TEXTS, fail, run, succeed, write
from support.indexing import contents, embed, run_index
from support.processes import COMMAND

from mlx_stella.errors import ConfigError, InputError, MemoryLimitError
from mlx_stella.retrieval import chunking, reading
from mlx_stella.retrieval.lance import LanceStore
from mlx_stella.retrieval.scanning import Key, SourceFile

ASKING = {
    "search": ("search", "idx", "tea"),
    "hybrid": ("search", "idx", "tea", "--hybrid"),
    "status": ("status", "idx"),
    "export": ("export", "idx", "--output", "rows.parquet"),
}
VERBS = ASKING | {"index": ("index", "notes", "--to", "idx")}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("original")
    write(root / "notes", TEXTS)
    succeed("index", "notes", "--to", "idx", cwd=root)
    return root


@pytest.fixture
def folder(original, tmp_path):
    """Three files in notes/ and their index idx/, for a test to damage."""
    write(tmp_path / "notes", TEXTS)
    succeed("index", "notes", "--to", "idx", cwd=tmp_path)
    return tmp_path


def files_done(folder) -> int:
    return json.loads(succeed("status", "idx", "--json", cwd=folder))["done"]


def test_an_unreadable_file_fails_alone(folder, monkeypatch):
    read = reading.content_hash

    def denied(file, fields):
        if file.key.name == "b.md":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file.path))
        return read(file, fields)

    monkeypatch.setattr(reading, "content_hash", denied)
    (folder / "notes" / "new.md").write_text("mate")
    status, _, error = run("index", "notes", "--to", "idx", cwd=folder)
    assert status == 1 and "failed: b.md: Permission denied\n" in error
    assert "1 of 4 files failed; remedy" in error
    assert len(contents(folder / "idx")) == 4


class PanicException(BaseException):
    """As PyO3 raises it where Rust panics."""


@pytest.mark.parametrize("where", ["read_rows", "html_to_text", "_decode", "Chunker.chunks"])
@pytest.mark.parametrize("error", [AssertionError, RecursionError, MemoryError, PanicException])
def test_one_bad_file_never_stops_a_run(tmp_path, monkeypatch, where, error):
    content = '{"text": "mate"}\n{"text": "milk"}\n'
    write(tmp_path / "notes", TEXTS)
    write(tmp_path / "bad", {"b.txt": content, "b.html": content, "b.jsonl": content})
    owner, name = (chunking.Chunker, "chunks") if "." in where else (reading, where)
    works = getattr(owner, name)

    def raising(*arguments, **options):
        if "mate" in repr(arguments) or "b.jsonl" in str(arguments[0]):
            raise error("odd\nbytes")
        return works(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, raising)
        report = run_index(tmp_path / "idx", tmp_path / "bad", tmp_path / "notes")
    assert report.failed and {note.key.root for note in report.failed} == {str(tmp_path / "bad")}
    expected = f"cannot be read ({error.__name__}: odd bytes); remedy: leave it out"
    assert {note.reason for note in report.failed} == {expected}
    assert report.files == 6 - len(report.failed) and report.found == 6
    assert run_index(tmp_path / "idx", tmp_path / "bad", tmp_path / "notes").files == 6


def test_whoever_interrupts_a_run_is_heard(tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    write(tmp_path / "notes", TEXTS)
    monkeypatch.setattr(reading, "_decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_index(tmp_path / "idx", tmp_path / "notes")


@pytest.mark.parametrize("error", [MemoryLimitError("too long"), ConfigError("cannot tokenize")])
def test_a_text_that_cannot_be_embedded_fails_alone(tmp_path, error):
    def choosy(texts):
        if "coffee beans" in texts:
            raise error
        return embed(texts)

    write(tmp_path / "notes", TEXTS)
    report = run_index(tmp_path / "idx", tmp_path / "notes", embed=choosy)
    assert [(note.key.name, note.reason) for note in report.failed] == [
        ("b.md", f"line 1: {error.fault}")
    ]
    assert report.files == 2 and len(contents(tmp_path / "idx")) == 2


def test_a_file_that_is_empty_only_while_it_is_read(tmp_path, monkeypatch):
    """As an editor empties a file and writes it again."""
    folder, uri = tmp_path / "files", tmp_path / "idx"
    folder.mkdir()
    (folder / "a.md").write_text("green tea")
    with monkeypatch.context() as patch:
        read = reading.read

        def emptied(file, fields):
            file.path.write_text("")
            return read(file, fields)

        patch.setattr(reading, "read", emptied)
        report = run_index(uri, folder)
    assert ["changed while it was read" in note.reason for note in report.failed] == [True]
    (folder / "a.md").write_text("green tea")
    assert run_index(uri, folder).embedded == 1


def test_a_line_of_a_gigabyte(folder):
    for name in ("rows.jsonl", "text.txt"):
        with (folder / "notes" / name).open("wb") as file:
            file.truncate(2**30)
    status, _, error = run("index", "notes", "--to", "idx", cwd=folder)
    assert status == 1
    assert "failed: rows.jsonl: line 1: longer than 64 MiB; remedy: a text a line\n" in error
    assert "skipped: text.txt: 1024 MiB, more than 32 MiB\n" in error
    assert len(contents(folder / "idx")) == 3


def test_a_line_of_a_gigabyte_does_not_fill_memory(tmp_path):
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        file.truncate(2**30)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="longer than 64 MiB"):
            list(reading.read(SourceFile(Key(str(tmp_path), "rows.jsonl"), path), ()))
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()


def test_a_wrong_field(tmp_path):
    (tmp_path / "rows.csv").write_text("id,text\n1,tea\n")
    arguments = ("index", "rows.csv", "--to", "idx", "--field")
    status, _, error = run(*arguments, "body", cwd=tmp_path)
    assert status == 1
    reason = "line 2: no field 'body', but id, text; remedy: name it with --field"
    assert f"failed: rows.csv: {reason}\n" in error
    succeed(*arguments, "text", cwd=tmp_path)
    assert files_done(tmp_path) == 1


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_an_index_of_another_version(folder, verb):
    store = LanceStore(str(folder / "idx"))
    store.write_note("stamp", store.read_note("stamp") | {"format": 99, "version": "9.9"})
    error = fail(*verb, cwd=folder)
    assert "an index of format 99, made by version 9.9; this one reads 1; remedy" in error


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("stamp", []),
        ("stamp", "text"),
        ("sources", [1]),
        ("sources", {"/notes": None}),
        ("sources", {"/notes": {"names": None}}),
        ("sources", {"/notes": {"names": [1], "globs": [], "fields": []}}),
        ("report", ["failed"]),
        ("report", {"failed": 1}),
        ("report", {"skipped": [["a", "b"]]}),
        ("report", {"empty": [["a", "b", []]]}),
    ],
)
def test_notes_that_are_damaged(original, tmp_path, name, note):
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    LanceStore(str(tmp_path / "idx")).write_note(name, note)
    expected = f"mlx-stella: idx: its note {name!r} is damaged; remedy: make it anew\n"
    for verb in ("status", "index"):
        assert fail(*VERBS[verb], cwd=tmp_path) == expected


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
@pytest.mark.parametrize("table", ["notes.lance", "chunks.lance"])
def test_a_damaged_index(folder, verb, table):
    """Each file of a table is garbage; then it has lost what says which files are its own."""
    for path in (folder / "idx" / table).rglob("*.*"):
        if path.is_file():
            path.write_bytes(b"garbage")
    error = fail(*verb, cwd=folder)
    assert "idx: cannot be used" in error and ".rs" not in error and "LanceError" not in error
    shutil.rmtree(folder / "idx" / table / "_versions")
    assert f"idx: cannot be used ({table} has lost" in fail(*verb, cwd=folder)
    assert not (folder / "rows.parquet").exists()


def test_a_run_that_ended_before_the_indexes_were_made(tmp_path, monkeypatch):
    write(tmp_path / "notes", TEXTS)

    def interrupted(store):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LanceStore, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_index(tmp_path / "idx", tmp_path / "notes")
    assert run_index(tmp_path / "idx", tmp_path / "notes").unchanged == 3
    table = LanceStore(str(tmp_path / "idx"))._open("chunks")
    assert [index.columns for index in table.list_indices()] == [["text"]]


@pytest.mark.parametrize("output", ["rows.parquet", "rows.npy"])
def test_an_export_to_a_full_disk(original, tmp_path, output):
    """The limit on the size of a file stands for the disk."""
    done = subprocess.run(
        [COMMAND, "export", original / "idx", "--output", tmp_path / output],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500)),
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert f"{output}: could not be written" in done.stderr and "; remedy: " in done.stderr
    assert not list(tmp_path.iterdir())


def test_targets_that_cannot_be_written_to(folder, monkeypatch):
    for output in ("nowhere/rows.parquet", "notes/a.md/rows.npy"):
        assert "is no folder; remedy" in fail("export", "idx", "--output", output, cwd=folder)
    assert "no folder that can be read" in fail("index", "notes", "--to", "notes/a.md", cwd=folder)
    before, system = contents(folder / "idx"), os.open

    def read_only(path, flags, *arguments, **options):
        if flags & os.O_CREAT and str(path).endswith(".lock"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return system(path, flags, *arguments, **options)

    (folder / "notes" / "new.md").write_text("mate")
    monkeypatch.setattr(os, "open", read_only)
    error = fail("index", "notes", "--to", "idx", cwd=folder)
    assert "cannot be written to (Read-only file system); remedy: another place" in error
    assert contents(folder / "idx") == before


ODD = ("--top", "-", "'; DROP TABLE chunks; --", "file=*", '"tea" AND (', "$(touch x)", "%", "*")


def test_paths_that_look_like_options_sql_or_filters(tmp_path):
    for number, name in enumerate(ODD):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(f"note {number}")
    for name in ODD:
        index = f"{name}.index"
        succeed("index", f"--to={index}", "--", name, cwd=tmp_path)
        hits = json.loads(succeed("search", "--json", "--", index, "note", cwd=tmp_path))
        assert [hit["file"] for hit in hits] == [name]
        assert (tmp_path / index).is_dir()


@pytest.mark.parametrize("how", ["--exact", "--hybrid"])
def test_questions_that_look_like_options_sql_or_filters(original, how):
    for question in ODD:
        stdin = question + "\n" if question == "-" else ""
        output = succeed("search", how, "--json", "--", "idx", question, cwd=original, stdin=stdin)
        found = json.loads(output)
        hits = found["hits"] if question == "-" else found
        assert {hit["file"] for hit in hits} == set(TEXTS)


def test_a_table_without_rows_is_made_again(tmp_path):
    """It was emptied; or, without notes beside it, an indexer was ended that had just made it."""
    (tmp_path / "notes").mkdir()
    for name in ("a.md", None, "b.md"):
        for path in tmp_path.glob("notes/*"):
            path.unlink()
        if name:
            (tmp_path / "notes" / name).write_text("tea" if name == "a.md" else "coffee")
        succeed("index", "notes", "--to", "idx", cwd=tmp_path)
    assert "coffee" in succeed("search", "idx", "tea", cwd=tmp_path)


def test_a_library_that_was_imported_before_says_nothing_of_a_new_index(tmp_path):
    script = (
        "import lancedb; from mlx_stella.retrieval.lance import LanceStore;"
        "LanceStore('idx').write_note('report', {})"
    )
    told = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "LANCEDB_LOG"} | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert (told.returncode, told.stderr) == (0, "")
