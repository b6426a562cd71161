"""The README is true: its table is the catalogue's, its Python runs, its verbs exist."""

import re

import pytest
from support import ROOT

from mlx_stella.checkpoint.catalog import MODELS
from mlx_stella.cli import app

README = (ROOT / "README.md").read_text()


def test_the_table_is_the_catalogue():
    for entry in MODELS:
        sizes = [f"{entry.parameters * bits / 8e9:.2f} GB" for bits in (16, 8.5, 4.5)]
        dims = ", ".join(map(str, entry.dims))
        cells = (entry.alias, dims, str(entry.max_seq_length), entry.licence, *sizes)
        assert f"| {' | '.join(cells)} |" in README


@pytest.mark.real
def test_the_python_runs(minilm_directory, tmp_path, monkeypatch, capsys):
    """With the small model in place of Stella, and without what only Stella has."""
    code = "\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    code = code.replace('"stella-400m"', repr(str(minilm_directory)))
    lines = [line for line in code.splitlines() if not re.search(r"dims?=|instruction=", line)]
    (tmp_path / "notes.txt").write_text("The keys are in the car.\nBuy tea.\n")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec("\n".join(lines), names)
    assert capsys.readouterr().out.splitlines()[-2].endswith("The keys are in the car.")
    assert names["d"].shape == (2, 384) and names["raw"].shape == (2, 384)


def test_the_verbs_exist():
    verbs = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert set(re.findall(r"^    \$ mlx-stella (\w+)", README, re.MULTILINE)) == verbs


def test_every_file_is_in_the_tree():
    for path in (ROOT / "mlx_stella").rglob("*.py"):
        if path.parent.name != "cli" and path.name != "__main__.py":
            assert path.name in README
