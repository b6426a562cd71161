"""The plan of the house, kept by reading the code: imports go down, one door per package."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mlx_stella"
FILES = sorted(PACKAGE.rglob("*.py"))

# Each file imports only from floors below its own.
FLOORS = [
    {"errors"},
    {"config", "batching", "blas", "cpu", "progress", "prompts", "catalog", "formats", "extras"},
    {"resident"},
    {"layers", "pipeline", "arguments"},
    {"mteb_prompts"},
    {"quantized"},
    {"models.bert", "models.new", "models.qwen2", "models.nv_embed", "heads"},
    {"models"},
    {"tensors", "weights", "hub", "tokenization"},
    {"checkpoint", "windows"},
    {"memory", "padding"},
    {"encoder"},
    {"quantization", "loading", "published", "benchmark", "compare", "conversion"},
    {"quantization.affine", "quantization.stages", "quantization.allocate"},
    {"quantization.gptq"},
    {"quantization.sensitivity", "quantization.calibrate"},
    {"conversion.plan", "conversion.writer", "conversion.output", "conversion.recipes"},
    {"conversion.rounding", "conversion.folder", "conversion.card"},
    {"conversion.calibration"},
    {"conversion.convert"},
    {"retrieval"},
    {"retrieval.gitignore"},
    {"retrieval.files", "retrieval.html", "retrieval.rows", "retrieval.stamp", "retrieval.lock"},
    {"retrieval.reading"},
    {"retrieval.headings"},
    {"retrieval.chunking"},
    {"retrieval.store"},
    {
        "retrieval.lance",
        "retrieval.qdrant",
        "retrieval.indexing",
        "retrieval.searching",
        "retrieval.export",
        "retrieval.evaluation",
    },
    {"retrieval.opening", "retrieval.sources"},
    {"retrieval.standing"},
    {"bulk"},
    {"bulk.ranks", "bulk.source"},
    {"bulk.manifest"},
    {"bulk.parts"},
    {"bulk.embedding"},
    {"bulk.run"},
    {"mteb"},
    {"cli.options", "cli.texts", "cli.progress"},
    {"cli.output", "cli.evaluation", "cli.folder", "cli.hits"},
    {"cli.corpus"},
    {
        "cli.embed",
        "cli.similarity",
        "cli.info",
        "cli.models",
        "cli.demo",
        "cli.verify",
        "cli.bench",
        "cli.convert",
        "cli.compare",
        "cli.index",
        "cli.search",
        "cli.status",
        "cli.export",
        "cli.eval",
    },
    {"cli"},
    {"__main__"},
]
FLOOR = {name: number for number, floor in enumerate(FLOORS) for name in floor}

DOORS = {
    "tokenizers": {"tokenization"},
    "huggingface_hub": {"hub"},
    "safetensors": {"tensors"},
    "torch": {"tensors"},
    "lancedb": {"retrieval"},
    "pyarrow": {"retrieval", "bulk"},
    "qdrant_client": {"retrieval"},
    "mteb": {"mteb"},
    "semantic_text_splitter": {"retrieval"},
    "pypdf": {"retrieval"},
    "pathspec": {"retrieval"},
    "typer": {"cli"},
    "rich": {"cli"},
}


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imports_of(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            files = {name for name in whole if name.removeprefix("mlx_stella.") in FLOOR}
            found |= files | ({node.module} if whole - files else set())
    return found


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_go_down(file):
    name = name_of(file)
    if name == "__init__":
        return
    for imported in imports_of(file):
        if imported.startswith("mlx_stella."):
            below = imported.removeprefix("mlx_stella.")
            assert FLOOR[below] < FLOOR[name], f"{name} imports {below}"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_each_package_has_one_door(file):
    room = name_of(file).split(".")[0]
    for imported in imports_of(file):
        assert room in DOORS.get(imported.split(".")[0], {room}), f"{room} imports {imported}"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_files_say_what_they_are_for_and_only_the_cli_prints(file):
    tree = ast.parse(file.read_text())
    assert ast.get_docstring(tree)
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    prints = any(isinstance(func, ast.Name) and func.id == "print" for func in calls)
    assert not prints or name_of(file).startswith("cli")


def test_every_file_has_a_floor():
    assert {name_of(file) for file in FILES} == set(FLOOR) | {"__init__"}


def test_no_file_is_long():
    assert {name_of(f): n for f in FILES if (n := len(f.read_text().splitlines())) > 400} == {}
