"""Tables, .csv and .parquet, through `embed` to a file or to stdout."""

import csv
import json
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
    assert [(line["id"], line["body"]) for line in lines] == [
        (str(row["_id"]), row["body"]) for row in ROWS
    ]
    np.testing.assert_allclose([line["embedding"] for line in lines], expected, atol=1e-6)


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
