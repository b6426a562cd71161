"""The rules of the house: those on imports stand in pyproject.toml, the others here."""

import ast
from pathlib import Path

import pytest
from support import ROOT

PACKAGE = ROOT / "mlx_stella"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = sorted(PACKAGE.glob("*/__init__.py"))


def name_of(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


def room_of(file: Path) -> str:
    return file.parent.name


def test_imports_go_down_and_each_outside_package_has_one_door(monkeypatch, capsys):
    cli = pytest.importorskip("importlinter.cli")
    monkeypatch.chdir(ROOT)
    assert cli.lint_imports(cache_dir=None, no_cache=True) == 0, capsys.readouterr().out


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_file_says_what_it_is_for_and_is_not_long(file):
    text = file.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 400


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_only_the_command_line_prints(file):
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    prints = [n.lineno for n in nodes if isinstance(n, ast.Name) and n.id == "print"]
    assert not prints or PACKAGE / "cli" in file.parents, prints


@pytest.mark.parametrize("room", ROOMS, ids=room_of)
def test_a_room_is_a_docstring_or_a_declared_door(room):
    _, *rest = ast.parse(room.read_text(encoding="utf-8")).body
    names = [t.id for n in rest if isinstance(n, ast.Assign) for t in n.targets]
    assert not rest or "__all__" in names
