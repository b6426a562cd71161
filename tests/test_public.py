"""What is public: its names, signatures and documentation, frozen. The rest may change."""

import ast
import dataclasses
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from support import ROOT

import mlx_stella

SURFACE = """
load(name, *, revision=None, dtype=None, memory_limit=None)
Encoder.default_dim
Encoder.dims
Encoder.document_prompt
Encoder.document_room
Encoder.encode(self, texts, *, settings=None, progress=None, **options)
Encoder.encode_document(self, texts, *, dims=None, progress=None, **options)
Encoder.encode_query(self, texts, *, task=None, dims=None, progress=None, **options)
Encoder.encode_stream(self, texts, *, settings=None, progress=None, **options)
Encoder.max_seq_length
Encoder.prepare(self, texts, settings, *, first=0)
Encoder.prompts
Encoder.run(self, prepared, settings, *, done=...)
Encoder.settings(self, *, prompt_name=None, prompt=None, instruction=None, dim=None, dims=None,
    truncate_dim=None, normalize=True, max_length=None, on_long='truncate', max_batch_tokens=None)
Encoder.similarity(self, a, b)
Encoder.tokenizer
Settings(prefix, sizes, normalize, max_length, on_long, budget, by_size=False, truncate_dim=None)
Settings.widths
Prepared(ids, untruncated_lengths, masked, first=0)
Prepared.cut
Prepared.join(cls, parts)
Prepared.lengths
Index.create(cls, uri, model, *, dim=None, truncate_dim=None, chunk_tokens=None, overlap=None,
    dtype=None, memory_limit=None, exist_ok=False)
Index.export(self, output, *, overwrite=False)
Index.hit(self, what, lines=None)
Index.is_new
Index.manifest
Index.model
Index.open(cls, uri, *, model=None, dtype=None, memory_limit=None)
Index.read(self, what, lines=None)
Index.search(self, query, *, top=10, filters=(), hybrid=False, exact=False, task=None,
    vectors=None)
Index.similar(self, hit, *, top=10, filters=())
Index.status(self)
Index.update(self, paths, *, globs=(), fields=(), progress=None)
Hit(score, row)
Hit.file
Hit.heading
Hit.lines
Hit.record
Hit.ref
Hit.root
Hit.text
bulk.read_vectors(folder)
"""

ERRORS = """
CheckpointError ConfigError HubUnreachableError InputError MemoryLimitError MissingExtraError
ModelNotFoundError OutputError StellaError StoreError TextTooLongError VectorError WeightsError
StellaWarning
""".split()

OTHERS = ("load", "Encoder", "Settings", "Prepared", "Index", "Hit")


def members() -> Iterator[tuple[str, object]]:
    """Functions, classes that callers make, and what has no underscore in a class or above it."""
    for name in OTHERS:
        top = getattr(mlx_stella, name)
        fields = {f.name for f in dataclasses.fields(top)} if dataclasses.is_dataclass(top) else ()
        if fields or not inspect.isclass(top):
            yield name, top
        if inspect.isclass(top):
            for member in sorted(dir(top)):
                if not member.startswith("_") and member not in fields:
                    yield f"{name}.{member}", inspect.getattr_static(top, member)
    yield "bulk.read_vectors", importlib.import_module("mlx_stella.bulk").read_vectors


def signature(what: object) -> str:
    """Names, order and defaults; of types mypy knows more. A property has none."""
    if isinstance(what, property):
        return ""
    found = inspect.signature(what.__func__ if isinstance(what, classmethod) else what)
    bare = [p.replace(annotation=p.empty) for p in found.parameters.values()]
    return re.sub("<function .*? at 0x[0-9a-f]+>", "...", str(inspect.Signature(bare)))


def test_the_surface_is_what_it_was():
    pytest.importorskip("pyarrow")
    found = "\n".join(name + signature(what) for name, what in members())
    assert found.split() == SURFACE.split()


def test_what_is_public_is_documented():
    pytest.importorskip("pyarrow")
    for name in mlx_stella.__all__:
        assert inspect.getdoc(getattr(mlx_stella, name)), name
    for name, what in members():
        assert inspect.getdoc(what), name


def test_all_is_what_the_page_names():
    assert set(mlx_stella.__all__) == {*OTHERS, *ERRORS}
    page = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `(mlx_stella[\w.]*)` \| (.*?) [|(]", page, re.MULTILINE)
    assert [module for module, _ in table] == ["mlx_stella", "mlx_stella.bulk", "mlx_stella.mteb"]
    assert all(f"`{name}`" in page for name in mlx_stella.__all__)
    for module, names in table[1:]:
        path = ROOT / module.replace(".", "/")
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        (declared,) = (
            ast.literal_eval(node.value)
            for node in ast.parse(file.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
        )
        assert declared == re.findall(r"`(\w+)`", names)


def test_the_model_for_mteb_is_called_as_before():
    """Read, not imported: mteb brings torch."""
    tree = ast.parse((ROOT / "mlx_stella/mteb.py").read_text(encoding="utf-8"))
    (made,) = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "__init__")
    names = [argument.arg for argument in (*made.args.args, *made.args.kwonlyargs)]
    assert names == ["self", "name", "revision", "device", "dim", "dtype"]


def test_type_checkers_see_what_is_imported_late():
    tree = ast.parse(inspect.getsource(mlx_stella))
    (seen,) = (n for n in tree.body if isinstance(n, ast.If) and n.test.id == "TYPE_CHECKING")
    assert {n.names[0].name: n.module for n in seen.body} == mlx_stella._LATE


def test_all_can_be_imported_without_the_search():
    code = """
import sys
for name in ("lancedb", "pyarrow", "semantic_text_splitter", "pypdf", "pathspec", "markdown_it"):
    sys.modules[name] = None
from mlx_stella import *
for make in (lambda: Index.open("notes.index"), lambda: Index.create("notes.index", None)):
    try:
        make()
    except MissingExtraError as error:
        assert "[search]" in error.remedy
    else:
        raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
