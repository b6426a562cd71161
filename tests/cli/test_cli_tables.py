"""Tables, .csv and .parquet, through `embed` to a file or to stdout."""

import csv
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from unittest import mock

import numpy as np
import pytest

pytest.importorskip("pyarrow")
import pyarrow as pa
import pyarrow.parquet as parquet
from support import load_tiny
from support.bulk import CHECKPOINT, some_texts
from support.commands import fail, succeed

from mlx_stella.machine import packages

MODEL = str(CHECKPOINT)
ROWS = [{"_id": number, "body": text, "x": 1.5} for number, text in enumerate(some_texts(5))]


@pytest.fixture
def folder(tmp_path):
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "in.parquet")
    with (tmp_path / "in.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["x", "body", "_id"])
        writer.writeheader()
        writer.writerows(ROWS)
    return tmp_path


@pytest.mark.parametrize("name", ["in.csv", "in.parquet"])
def test_a_row_is_a_vector(folder, name):
    expected = load_tiny(CHECKPOINT.name).encode([row["body"] for row in ROWS])
    arguments = ("embed", "--input", name, "--field", "body")
    succeed(*arguments, "--output", "out.npy", cwd=folder, model=MODEL)
    np.testing.assert_allclose(np.load(folder / "out.npy"), expected, atol=1e-6)
    output = succeed(*arguments, cwd=folder, model=MODEL)
    lines = [json.loads(line) for line in output.splitlines()]
    kind = str if name.endswith(".csv") else lambda value: value
    assert [line | {"embedding": None} for line in lines] == [
        {key: kind(value) for key, value in row.items()} | {"embedding": None} for row in ROWS
    ]
    np.testing.assert_allclose([line["embedding"] for line in lines], expected, atol=1e-6)


def test_values_that_json_lacks(tmp_path):
    noon = datetime(2024, 5, 6, 12, 30, tzinfo=UTC)
    rows = {
        "text": ["tea"],
        "when": [noon],
        "day": [noon.date()],
        "hour": [noon.time()],
        "took": [timedelta(seconds=90, milliseconds=500)],
        "price": [Decimal("12.50")],
        "raw": [b"\xff\x00"],
        "score": [float("nan")],
        "many": [{"limits": [float("inf"), 1.5, None], "day": noon.date()}],
        "embedding": [[1.0]],
    }
    parquet.write_table(pa.table(rows), tmp_path / "in.parquet")
    succeed("embed", "--input", "in.parquet", "-o", "out.jsonl", cwd=tmp_path, model=MODEL)
    line = json.loads((tmp_path / "out.jsonl").read_text(), parse_constant=pytest.fail)
    assert len(line.pop("embedding")) == 48
    assert line == {
        "text": "tea",
        "when": "2024-05-06T12:30:00+00:00",
        "day": "2024-05-06",
        "hour": "12:30:00",
        "took": 90.5,
        "price": "12.50",
        "raw": "/wA=",
        "score": None,
        "many": {"limits": [None, 1.5, None], "day": "2024-05-06"},
    }


def test_columns_that_no_value_of_python_fits_are_read_only_where_they_are_written(tmp_path):
    days = pa.array([2**30], pa.int32()).cast(pa.date32())
    parquet.write_table(pa.table({"text": ["tea"], "day": days}), tmp_path / "in.parquet")
    arguments = ("embed", "--input", "in.parquet", "--output")
    error = fail(*arguments, "out.jsonl", cwd=tmp_path, model=MODEL)
    assert "in.parquet: row 1: field 'day' cannot be read" in error
    succeed(*arguments, "out.npy", cwd=tmp_path, model=MODEL)


def test_stdin_as_json_lines(tmp_path):
    arguments = ("embed", "--field", "body")
    stdin = '{"body": "tea", "score": NaN}\n\n{"body": "mate"}\n'
    lines = succeed(*arguments, cwd=tmp_path, model=MODEL, stdin=stdin).splitlines()
    assert [list(json.loads(line)) for line in lines] == [
        ["body", "score", "embedding"],
        ["body", "embedding"],
    ]
    error = fail(*arguments, cwd=tmp_path, model=MODEL, stdin="tea\n")
    assert "stdin: line 1: not JSON" in error and "remedy: mend it: an object of JSON" in error
    (tmp_path / "in.txt").write_text('{"body": 5}\n')
    error = fail(*arguments, "--input", "in.txt", cwd=tmp_path, model=MODEL)
    assert "in.txt: line 1: field 'body' is no string; remedy: another --field" in error


def test_what_is_refused(folder):
    def refused(name: str) -> str:
        return fail("embed", "--input", name, "--output", "out.npy", cwd=folder, model=MODEL)

    assert "in.csv: line 2: no field 'text', but x, body, _id; remedy" in refused("in.csv")
    assert "in.parquet: no field 'text', but _id, body, x; remedy" in refused("in.parquet")
    parquet.write_table(pa.table({"text": ["a", None]}), folder / "null.parquet")
    assert "null.parquet: row 2: field 'text' is null; remedy" in refused("null.parquet")
    (folder / "bad.parquet").write_bytes(b"PAR1 no")
    assert "bad.parquet: no readable Parquet" in refused("bad.parquet")
    assert "none.csv: No such file" in refused("none.csv")
    with mock.patch.dict(packages.EXTRAS, search=("no_such_package",)):
        assert f"remedy: {packages.installation('search')}\n" in refused("in.parquet")
    assert not (folder / "out.npy").exists()
