"""README and docs/ are true: commands parse and run, Python, too; tables, links and plots."""

import ast
import importlib
import importlib.util
import re
import shutil
import tomllib
from pathlib import Path

import pytest
import typer
from support import CHECKPOINTS, ROOT, pages
from support.commands import succeed, write

import mlx_stella
from mlx_stella.checkpoint.catalog import MODELS
from mlx_stella.cli import VERBS, app

ALL = [command for page in pages.PAGES for command in pages.commands(page)]
TINY = str(CHECKPOINTS / "tiny-stella-400m")
PROGRAMS = {"mlx-stella", "python", "pip", "pipx", "uv", ".venv/bin/ruff"}

FILES = {
    "notes/keys.md": "# Keys\n\nThe keys are in the car.\n",
    "papers/tea.txt": "Green tea is an infusion of leaves.\n",
    "notes.txt": "The keys are in the car.\nBuy tea.\n",
    "questions.txt": "Where are the keys?\n",
    "docs.jsonl": '{"id": "a", "body": "green tea"}\n',
}
"""What the pages' commands and Python are run on."""

PARSED_ONLY = re.compile(r"qdrant\+http|mlx\.launch|demo --corpus|mlx-stella (eval|convert)")
"""What wants a server, several machines or folders of its own; their own tests run them."""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with all that the pages speak of, and the current one."""
    write(tmp_path, FILES)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def with_tiny(text: str) -> str:
    """The tiny Stella, with its four heads, in place of the models the pages name."""
    return re.sub(r"\b(stella-400m|stella-1\.5b|all-minilm-l6-v2)(?![\w-])", TINY, text)


def run(command: pages.Command, folder: Path, model: str = TINY) -> str:
    """The output of an mlx-stella command line of a page."""
    words = [with_tiny(word) if model == TINY else word for word in command.words[1:]]
    words = [word.removeprefix("~/") for word in words]
    stdin = (folder / command.stdin).read_text() if command.stdin else ""
    return succeed(*words, cwd=folder, stdin=stdin, model=model)


def test_the_table_is_the_catalogue():
    for entry in MODELS:
        sizes = [f"{entry.parameters * bits / 8e9:.2f} GB" for bits in (16, 8.5, 4.5)]
        dims = ", ".join(map(str, entry.dims))
        cells = (entry.alias, dims, str(entry.max_seq_length), entry.licence, *sizes)
        assert f"| {' | '.join(cells)} |" in pages.text("docs/models.md")


def test_the_readme_is_short_and_names_known_sizes():
    readme = pages.text("README.md")
    assert len(readme.splitlines()) <= 180
    for entry in MODELS:
        if row := re.search(rf"^\| \**{re.escape(entry.alias)}\** \| ([\d.]+) GB", readme, re.M):
            assert row[1] == f"{entry.parameters * 2 / 1e9:.2f}", entry.alias


def test_the_verbs_exist_and_all_are_shown():
    assert {command.words[1] for command in ALL if command.words[0] == "mlx-stella"} == set(VERBS)


@pytest.mark.parametrize("command", ALL, ids=lambda command: command.line)
def test_a_command_parses(command):
    program, *words = command.words
    assert program in PROGRAMS or program.startswith("scripts/")
    if program == "mlx-stella":
        group = typer.main.get_command(app)
        verb = group.commands[words[0]]
        verb.make_context(words[0], words[1:])  # raises on what the verb does not know
    elif program == "python":
        source = (ROOT / words[0]).read_text()
        for option in [word for word in words if word.startswith("--")]:
            parameter = option[2:].replace("-", "_")  # argparse's option or Typer's parameter
            assert f'"{option}"' in source or f"    {parameter}: Annotated" in source
    elif program.startswith("scripts/"):
        assert (ROOT / program).is_file()


def test_commands_have_no_prompt_before_them_and_are_all_found():
    for page in pages.PAGES:
        assert not re.search(r"^\s*\$ ", pages.text(page), re.MULTILINE), page
        prose = re.sub(r"```.*?```", "", pages.text(page), flags=re.DOTALL)
        assert not re.search(r"^ {4}(mlx-stella|python|pip|uv|pipx) ", prose, re.MULTILINE), page


def test_extras_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for page in pages.PAGES:
        for names in re.findall(r"'\.\[([\w,]+)\]'", pages.text(page)):
            assert set(names.split(",")) <= set(extras), page


@pytest.mark.parametrize("page", ["README.md", "docs/searching.md", "docs/bulk.md"])
def test_the_commands_run(page, folder):
    pytest.importorskip("lancedb")
    write_parquet(folder / "big.parquet")
    ran = 0
    for command in pages.commands(page):
        if command.words[0] == "mlx-stella" and not PARSED_ONLY.search(command.line):
            run(command, folder)
            ran += 1
    assert ran >= 4


def write_parquet(path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"id": ["a", "b"], "body": ["green tea", "keys"]}), path)


@pytest.mark.real
def test_the_output_shown_is_true(minilm_directory, folder):
    """To the line; a score may differ in its last digits from CPU to CPU."""
    pytest.importorskip("lancedb")
    (shown,) = pages.blocks("README.md", "text")
    shown = shown.split("\n\n", 1)[1]  # the first line is stderr's
    searched = [c for c in pages.commands("README.md") if "--top" in c.words]
    made = [c for c in pages.commands("README.md") if "--chunk-tokens" in c.words]
    printed = [run(command, folder, "all-minilm-l6-v2") for command in (*made, *searched)]
    score = re.compile(r"^-?\d\.\d{4}", re.MULTILINE)
    printed = "\n".join(part for part in printed if part)
    assert score.sub("", printed).split() == score.sub("", shown).split()
    for got, expected in zip(score.findall(printed), score.findall(shown), strict=True):
        assert float(got) == pytest.approx(float(expected), abs=5e-3)


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_python_runs(page, folder, capsys):
    pytest.importorskip("lancedb")
    if page == "README.md":
        run(next(c for c in pages.commands(page) if c.words[1:2] == ("index",)), folder)
    names = {}
    for block in pages.blocks(page, "python"):
        exec(compile(with_tiny(block), page, "exec"), names)
    assert names["small"].shape[1] == 256
    if page == "docs/python.md":
        assert names["d"].shape == names["raw"].shape == (2, 1024)
        assert names["both"][256].shape == (2, 256)


@pytest.mark.real
def test_the_python_runs_with_a_real_model(minilm_directory, folder, capsys):
    """With the small model in place of Stella, and without what only Stella has."""
    code = "\n".join(pages.blocks("docs/python.md", "python")[:2])
    code = code.replace('"stella-400m"', repr(str(minilm_directory)))
    lines = [line for line in code.splitlines() if not re.search(r"dims?=|instruction=", line)]
    names = {}
    exec("\n".join(lines), names)
    assert capsys.readouterr().out.splitlines()[-2].endswith("The keys are in the car.")
    assert names["d"].shape == (2, 384) and names["raw"].shape == (2, 384)


@pytest.mark.parametrize("page", pages.PAGES)
def test_the_python_compiles_and_names_what_exists(page):
    for block in pages.blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("mlx_stella"):
                if node.module == "mlx_stella.mteb" and not importlib.util.find_spec("mteb"):
                    assert "class MtebModel" in (ROOT / "mlx_stella/mteb.py").read_text()
                    continue
                module = importlib.import_module(node.module)
                assert all(hasattr(module, name.name) for name in node.names)


def test_all_that_is_public_is_named():
    page = pages.text("docs/python.md")
    assert not [name for name in mlx_stella.__all__ if f"`{name}`" not in page]


@pytest.mark.parametrize("page", pages.PAGES)
def test_links_lead_to_files(page):
    for link in pages.links(page):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in pages.anchors(str(target.resolve().relative_to(ROOT))), link
    for path in re.findall(r"`((?:tests|scripts|mlx_stella|docs)/[\w/.-]+)`", pages.text(page)):
        assert (ROOT / path).exists() or "NAME" in path, path


def test_every_file_is_in_the_tree():
    tree = pages.text("docs/design.md")
    for path in (ROOT / "mlx_stella").rglob("*.py"):
        if path.parent.name != "cli" and path.name != "__main__.py":
            assert path.name in tree
    for path in (ROOT / "scripts").iterdir():
        assert path.is_dir() or path.name in tree


def test_the_plots_are_the_figures():
    """What is drawn is what the tables and the measurement say, and what the script draws."""
    spec = importlib.util.spec_from_file_location("plots", ROOT / "scripts" / "plots.py")
    plots = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plots)
    for name, plot in (("bits", plots.bits), ("speed", plots.speed)):
        picture, count = plot()
        assert picture == (plots.PICTURES / f"{name}.svg").read_text(encoding="utf-8")
        assert count >= 4
