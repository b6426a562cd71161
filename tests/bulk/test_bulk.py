"""Embedding a file into a folder of parts: the same vectors, every row accounted for."""

import csv
import json
import os
import resource
import signal
import subprocess
import time
from unittest import mock

import numpy as np
import pytest

pytest.importorskip("pyarrow")
import pyarrow as pa
import pyarrow.parquet as parquet
from support import edit_json, load_tiny
from support.bulk import CHECKPOINT, contents, run_bulk, same_bits, some_texts, write_jsonl
from support.commands import fail, run, succeed
from support.processes import COMMAND

from mlx_stella import InputError, OutputError, StoreError, VectorError
from mlx_stella.bulk import manifest
from mlx_stella.bulk import run as bulk_run
from mlx_stella.bulk.embedding import embed_rows
from mlx_stella.bulk.parts import read_failed, read_vectors
from mlx_stella.cli.progress import progress_lines
from mlx_stella.encoding import windows
from mlx_stella.encoding.progress import Progress
from mlx_stella.files import lock
from mlx_stella.files.tables import Fault, TableRow
from mlx_stella.machine import packages

MODEL = str(CHECKPOINT)
HARD = {
    "broken": "{",
    "a list": "[1]",
    "null": '{"text": null}',
    "a number": '{"text": 5}',
    "none": '{"body": "a"}',
    "surrogate": '{"text": "\\ud800"}',
}


@pytest.fixture
def encoder():
    return load_tiny(CHECKPOINT.name)


@pytest.fixture
def texts(tmp_path):
    """Forty texts, in tmp_path/in.jsonl, too."""
    texts = some_texts(40)
    write_jsonl(tmp_path / "in.jsonl", texts)
    return texts


def test_the_vectors_are_those_of_one_stream_to_the_bit(tmp_path, encoder, monkeypatch):
    monkeypatch.setattr(windows, "WINDOW_TEXTS", 32)
    write_jsonl(tmp_path / "in.jsonl", texts := some_texts(300))
    report = run_bulk(tmp_path / "in.jsonl", tmp_path / "out", encoder, 64)
    assert (report.rows, report.failed, report.before, report.left) == (300, 0, 0, 0)
    rows, vectors = read_vectors(tmp_path / "out")
    assert rows.tolist() == list(range(300))
    assert same_bits(vectors, np.concatenate(list(encoder.encode_stream(texts))))


def test_parts_of_the_usual_size_and_npy_are_equal_to_the_bit(tmp_path):
    texts = [f"text {number}" for number in range(bulk_run.PART_ROWS + 100)]
    write_jsonl(tmp_path / "in.jsonl", texts)
    for output in ("out/", "out.npy"):
        arguments = ("--input", "in.jsonl", "--output", output)
        succeed("embed", *arguments, cwd=tmp_path, model=MODEL)
    assert len(list((tmp_path / "out").glob("part-*.parquet"))) == 2
    assert same_bits(read_vectors(tmp_path / "out")[1], np.load(tmp_path / "out.npy"))


def test_a_part_is_parquet_for_any_program(tmp_path, texts, encoder):
    run_bulk(tmp_path / "in.jsonl", tmp_path / "out", encoder)
    assert sorted(contents(tmp_path / "out")) == [
        "manifest.json",
        *[f"part-0000{number}.parquet" for number in range(3)],
    ]
    table = parquet.read_table(tmp_path / "out" / "part-00001.parquet")
    assert table.schema.names == ["row", "id", "embedding"]
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 48)
    assert table["row"].to_pylist() == list(range(16, 32))
    assert table["id"].to_pylist() == [f"d{row}" for row in range(16, 32)]
    assert np.float32(table["embedding"][3].as_py()).shape == (48,)
    made = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert made["input"] == "in.jsonl" and made["rows"] == 40
    assert made["part_rows"] == 16 and made["dtype"] == "float32"
    assert made["model"] == MODEL


@pytest.mark.parametrize(
    "name, options, identity",
    [
        ("tiny-stella-zh-v2", {}, "33fb16c6b3f69893130eecf1890e8c5e"),
        (
            "tiny-stella-zh-v2",
            {"max_length": 20, "normalize": False, "on_long": "truncate", "prompt": "about: "},
            "18d871fa0ef546fd470e7bb909270dec",
        ),
        (
            "tiny-stella-1.5b",
            {"prompt_name": "s2p_query", "dim": 256},
            "c05053b5cac1207d535d2e302987b990",
        ),
    ],
)
def test_the_identity_is_that_of_folders_made_before(tmp_path, name, options, identity):
    lines = [f"{'light on the water ' * (number % 5)}{number}\n" for number in range(40)]
    (tmp_path / "in.txt").write_text("".join(lines))
    run_bulk(tmp_path / "in.txt", tmp_path / "out", load_tiny(name), **options)
    assert manifest.read(tmp_path / "out").identity == identity


def test_every_kind_of_file(tmp_path, texts, encoder):
    rows = [{"_id": number, "body": text, "x": 1.5} for number, text in enumerate(texts)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet", row_group_size=7)
    with (tmp_path / "in.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["x", "body", "_id"])
        writer.writeheader()
        writer.writerows(rows)
    (tmp_path / "in.txt").write_text("\n".join(texts) + "\n")
    run_bulk(tmp_path / "in.jsonl", tmp_path / "jsonl", encoder)
    expected = read_vectors(tmp_path / "jsonl")[1]
    for kind, options in {
        "parquet": {"field": "body"},
        "csv": {"field": "body"},
        "txt": {},
    }.items():
        run_bulk(tmp_path / f"in.{kind}", tmp_path / kind, encoder, **options)
        assert same_bits(read_vectors(tmp_path / kind)[1], expected)
        ids = parquet.read_table(tmp_path / kind / "part-00000.parquet")["id"].to_pylist()
        assert ids == ([None] * 16 if kind == "txt" else [str(n) for n in range(16)])


def test_a_run_does_what_is_missing_or_damaged_and_nothing_else(tmp_path, texts, encoder):
    run_bulk(tmp_path / "in.jsonl", out := tmp_path / "out", encoder)
    whole = contents(out)
    (out / "part-00001.parquet").unlink()
    with pytest.raises(StoreError, match=r"part-00001.parquet: missing; remedy"):
        read_vectors(out)
    (out / "part-00002.parquet").write_bytes(whole["part-00002.parquet"][:-5])
    (tmp_path / "in.jsonl").rename(tmp_path / "moved.jsonl")
    totals = []
    before = (out / "part-00000.parquet").stat()
    report = run_bulk(tmp_path / "moved.jsonl", out, encoder, tell=totals.append)
    assert totals == [24] and report.before == 16 and report.left == 0
    assert contents(out) == whole
    assert (out / "part-00000.parquet").stat() == before


def test_rows_without_a_text_are_recorded_and_the_rest_is_embedded(tmp_path, texts):
    lines = (tmp_path / "in.jsonl").read_text().splitlines()
    (tmp_path / "in.jsonl").write_text("\n".join([*lines[:20], *HARD.values(), *lines[20:]]))
    arguments = ("embed", "--input", "in.jsonl", "--output", "out/")
    for before in (0, 46):
        status, output, error = run(*arguments, cwd=tmp_path, model=MODEL)
        assert status == 1 and output == ""
        assert "failed: row 21 (line 22): no JSON object" in error
        assert f"46 rows of in.jsonl in out/: {before} done before, 6 failed" in error
        assert "mlx-stella: 6 of 46 rows failed; out/failed-*.jsonl say why" in error
    failed = list(read_failed(tmp_path / "out"))
    assert [row["row"] for row in failed] == list(range(20, 26))
    for row, words in zip(
        failed, ["not JSON", "no JSON", "null", "no string", "no field", "surrogate"], strict=True
    ):
        assert words in row["reason"]
    rows, vectors = read_vectors(tmp_path / "out")
    assert rows.tolist() == [*range(20), *range(26, 46)]
    np.testing.assert_allclose(vectors, load_tiny(CHECKPOINT.name).encode(texts), atol=1e-6)


def test_faults_of_lines_do_not_end_a_file(tmp_path, encoder):
    (tmp_path / "in.txt").write_bytes(b"one\n\xff\xfe\n\n" + b"x" * 100 + b"\nfive\n")
    (tmp_path / "in.csv").write_bytes(b'text,n\none,1\n"a"b,2\n\xff,3\nfour\n')
    with mock.patch("mlx_stella.files.tables.MAX_LINE_BYTES", 50):
        run_bulk(tmp_path / "in.txt", tmp_path / "txt", encoder)
        run_bulk(tmp_path / "in.csv", tmp_path / "csv", encoder)
    reasons = {row["row"]: row["reason"] for row in read_failed(tmp_path / "txt")}
    assert "not UTF-8" in reasons.pop(1) and "longer than" in reasons.pop(3) and not reasons
    assert read_vectors(tmp_path / "txt")[0].tolist() == [0, 2, 4]
    reasons = {row["row"]: row["reason"] for row in read_failed(tmp_path / "csv")}
    assert "not CSV" in reasons.pop(1) and "not UTF-8" in reasons.pop(2) and not reasons
    assert read_vectors(tmp_path / "csv")[0].tolist() == [0, 3]


def test_nulls_of_parquet_are_faults(tmp_path, encoder):
    parquet.write_table(pa.table({"text": ["a", None, ""]}), tmp_path / "in.parquet")
    report = run_bulk(tmp_path / "in.parquet", tmp_path / "out", encoder)
    assert report.failed == 1
    assert [row["reason"] for row in read_failed(tmp_path / "out")] == ["field 'text' is null"]
    assert read_vectors(tmp_path / "out")[0].tolist() == [0, 2]


def test_a_text_that_is_too_long_fails_alone_or_is_cut(tmp_path, texts, encoder):
    write_jsonl(tmp_path / "in.jsonl", [*texts[:20], "tea " * 3000, *texts[20:]])
    report = run_bulk(tmp_path / "in.jsonl", tmp_path / "error", encoder, on_long="error")
    assert (report.failed, report.cut) == (1, 0)
    (row,) = read_failed(tmp_path / "error")
    assert (row["row"], row["line"], row["id"]) == (20, 21, "d20")
    assert "tokens exceed" in row["reason"] and "text 0" not in row["reason"]
    assert len(read_vectors(tmp_path / "error")[0]) == 40
    report = run_bulk(tmp_path / "in.jsonl", tmp_path / "cut", encoder)
    assert (report.failed, report.cut) == (0, 1)


@pytest.mark.parametrize("bad", [{3}, {0, 1, 39}, set(range(40)), {7, 8, 20}])
def test_texts_that_give_no_vector_are_found(bad, monkeypatch):
    """Wherever they stand, and though two windows are tokenized when the first breaks off."""
    monkeypatch.setattr("mlx_stella.bulk.embedding.WINDOW_TEXTS", 8)

    def embed(texts):
        ahead = None
        for window in [*windows_of(texts, 8), None]:
            if ahead is not None:
                if bad & set(ahead.ravel().astype(int)):
                    raise VectorError("not finite", row=0)
                yield ahead
            ahead = window

    failed = {}
    rows = ((number, TableRow(str(number), number + 1, "")) for number in range(40))
    found = []
    for block, vectors in embed_rows(rows, embed, failed.__setitem__):
        assert [number for number, _ in block] == vectors.ravel().tolist()
        found += [number for number, _ in block]
    assert found == [number for number in range(40) if number not in bad]
    assert set(failed) == bad
    assert all(fault == Fault(n + 1, "", "not finite") for n, fault in failed.items())


def windows_of(texts, size):
    texts = list(texts)
    numbers = np.array([[float(text)] for text in texts])
    return [numbers[start : start + size] for start in range(0, len(texts), size)]


def test_what_is_refused(tmp_path, texts, copy_of):
    def refused(*arguments, model=MODEL, input="in.jsonl", output="out/"):
        return fail(
            "embed", "--input", input, "--output", output, *arguments, cwd=tmp_path, model=model
        )

    assert "no vectors of 7 dimensions" in refused("--dim", "7")
    assert "a .txt file has no fields" in refused("--field", "a", input="a.txt")
    assert "not .parquet, .jsonl, .csv, .txt" in refused(input="a.pdf")
    assert "none.jsonl: No such file" in refused(input="none.jsonl")
    assert "made of a file; remedy" in refused(input="-")
    assert "made of a file; remedy" in fail("embed", "a", "--output", "out/", cwd=tmp_path)
    assert "no folder of this machine" in refused(output="s3://bucket/out/")
    (tmp_path / "folder.jsonl").mkdir()
    assert "no file; remedy" in refused(input="folder.jsonl")
    assert "none of its rows, 40 in all, has a text; of the first: no field 'body'" in refused(
        "--field", "body"
    )
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    assert "bad.parquet: no readable Parquet" in refused(input="bad.parquet")
    parquet.write_table(pa.table({"body": ["a"]}), tmp_path / "in.parquet")
    assert "in.parquet: no field 'text', but body" in refused(input="in.parquet")
    assert contents(tmp_path / "out") == {}
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("mine")
    assert "holds files, but no manifest.json" in refused(output="full")

    succeed("embed", "--input", "in.jsonl", "--output", "out/", cwd=tmp_path, model=MODEL)
    before = contents(tmp_path / "out")
    (tmp_path / "other.jsonl").write_text('{"text": "a"}\n')
    assert "was made of other content than other.jsonl" in refused(input="other.jsonl")
    assert "was made with prompt '', not 'a '" in refused("--prompt", "a ")
    assert "was made with normalize True, not False" in refused("--no-normalize")
    assert "was made with dtype 'float32', not 'bfloat16'" in refused("--dtype", "bfloat16")
    assert "was made with field 'text', not 'id'" in refused("--field", "id")
    other = copy_of(CHECKPOINT.name)
    edit_json(other / "config.json", layer_norm_eps=1e-5)
    assert "was made with" in refused(model=str(other))
    with lock.writing(str(tmp_path / "out")):
        assert f"process {os.getpid()} on" in refused()
    assert contents(tmp_path / "out") == before
    edit_json(tmp_path / "out" / "manifest.json", format=2)
    assert "manifest.json: not of this version" in refused()
    with pytest.raises(StoreError, match="no folder of parts"):
        read_vectors(tmp_path / "none")


def test_a_model_elsewhere_is_the_same_model(tmp_path, texts, encoder, copy_of):
    run_bulk(tmp_path / "in.jsonl", tmp_path / "out", encoder)
    arguments = ("embed", "--input", "in.jsonl", "--output", "out")
    succeed(*arguments, cwd=tmp_path, model=str(copy_of(CHECKPOINT.name)))


def test_an_empty_input_is_an_empty_part(tmp_path):
    for name, content in {"in.txt": "", "in.csv": "", "in.jsonl": "\n\n"}.items():
        (tmp_path / name).write_text(content)
        output = f"{name}.out/"
        succeed("embed", "--input", name, "--output", output, cwd=tmp_path, model=MODEL)
        rows, vectors = read_vectors(tmp_path / output)
        assert rows.shape == (0,) and vectors.shape == (0, 48)


def test_an_input_that_changes_meanwhile(tmp_path, texts, encoder):
    stream = encoder.encode_stream
    calls = []

    def changing(texts, **options):
        calls.append(1)
        if len(calls) == 2:
            with (tmp_path / "in.jsonl").open("a") as file:
                file.write('{"text": "one more"}\n')
        return stream(texts, **options)

    with (
        mock.patch.object(encoder, "encode_stream", changing),
        pytest.raises(InputError, match="changed while it was read; remedy"),
    ):
        run_bulk(tmp_path / "in.jsonl", tmp_path / "out", encoder)
    assert sorted(contents(tmp_path / "out")) == ["manifest.json", "part-00000.parquet"]
    with pytest.raises(StoreError, match="other content"):
        run_bulk(tmp_path / "in.jsonl", tmp_path / "out", encoder)


def test_damage_in_the_middle_of_the_input(tmp_path, encoder):
    """Parts before it are kept; it is not taken for a fault of texts."""
    path = tmp_path / "in.parquet"
    table = pa.table({"text": some_texts(60)})
    parquet.write_table(table, path, row_group_size=20, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    start = parquet.ParquetFile(path).metadata.row_group(2).column(0).data_page_offset
    data[start : start + 20] = bytes(20)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"in.parquet: no readable Parquet"):
        run_bulk(path, tmp_path / "out", encoder)
    assert sorted(contents(tmp_path / "out")) == [
        "manifest.json",
        "part-00000.parquet",
        "part-00001.parquet",
    ]


def test_a_full_disk_keeps_what_was_done(tmp_path, texts, encoder):
    stream = encoder.encode_stream
    calls = []

    def limited(texts, **options):
        calls.append(1)
        if len(calls) == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        return stream(texts, **options)

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with (
            mock.patch.object(encoder, "encode_stream", limited),
            pytest.raises(OutputError, match=r"part-00001.parquet: could not be written .* remedy"),
        ):
            run_bulk(tmp_path / "in.jsonl", tmp_path / "out", encoder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(contents(tmp_path / "out")) == ["manifest.json", "part-00000.parquet"]
    assert run_bulk(tmp_path / "in.jsonl", tmp_path / "out", encoder).before == 16


def test_a_target_that_cannot_be_written(tmp_path, texts):
    (tmp_path / "file").write_text("")
    arguments = ("embed", "--input", "in.jsonl", "--output", "file/out/")
    assert "cannot be written to" in fail(*arguments, cwd=tmp_path, model=MODEL)


def test_without_the_extra(tmp_path, texts):
    arguments = ("embed", "--input", "in.jsonl", "--output", "out/")
    with mock.patch.dict(packages.EXTRAS, search=("no_such_package",)):
        error = fail(*arguments, cwd=tmp_path, model=MODEL)
    assert f"remedy: {packages.installation('search')}\n" in error
    assert not (tmp_path / "out").exists()


def test_interrupted_from_the_keyboard(tmp_path):
    (tmp_path / "in.txt").write_text("".join(f"text {n}\n" for n in range(40_000)))
    process = subprocess.Popen(
        [COMMAND, "embed", "--input", "in.txt", "--output", "out/", "--model", MODEL],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "out" / "part-00000.parquet").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    kept = "parts that are whole in out are kept; run it again to go on"
    assert process.returncode == 130 and error == f"mlx-stella: interrupted; {kept}\n"
    assert set(contents(tmp_path / "out")) < {
        "manifest.json",
        *[f"part-0000{number}.parquet" for number in range(5)],
    }


def test_a_closed_pipe_is_a_failure_and_nothing_is_lost(tmp_path, texts):
    process = subprocess.Popen(
        [COMMAND, "embed", "--input", "in.jsonl", "--output", "out/", "--model", MODEL],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
    )
    process.stderr.close()
    assert process.wait(timeout=60) == 1
    assert len(read_vectors(tmp_path / "out")[0]) == 40


def test_lines_tell_how_far_it_is(capsys):
    with progress_lines("Embedding", 1000, every_seconds=0) as tell:
        tell(Progress(250, 1000, 5000, 10.0))
    line = "Embedding: 250 of 1,000 texts, 25 texts/s, 500 tokens/s, 0:00:30 left\n"
    assert capsys.readouterr().err == line
    with progress_lines("Embedding", 1000) as tell:
        tell(Progress(250, 1000, 5000, 10.0))
    assert capsys.readouterr().err == ""
