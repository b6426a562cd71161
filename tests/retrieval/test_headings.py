"""The headings of Markdown and the definitions of code."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.growth import growth

pytest.importorskip("semantic_text_splitter")
pytest.importorskip("tree_sitter")
pytest.importorskip("markdown_it")
from support.indexing import TOKENIZER

from mlx_stella.retrieval.chunking import Chunker
from mlx_stella.retrieval.headings import markdown_headings
from mlx_stella.retrieval.reading import Passage
from mlx_stella.retrieval.syntax import MAX_DEPTH, outline

LANGUAGES = "python javascript typescript rust go c cpp java swift bash".split()


def headings(text, kind) -> dict[str, str]:
    """The heading of each line that is a single word."""
    found = markdown_headings(text) if kind == "markdown" else outline(text, kind).definitions
    starts = {line.start(): line.group() for line in re.finditer(r"^ *\w+$", text, re.MULTILINE)}
    return {
        word.strip(): next((title for at, title in reversed(found) if at <= start), "")
        for start, word in starts.items()
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Any tea\n===\na\n\n  Green!\n---\nb\n", {"a": "Any tea", "b": "Any tea > Green!"}),
        ("   # C#\na\n    # code\nb\n# Tea ##\nc", {"a": "C#", "b": "C#", "c": "Tea"}),
        ("# A\n```\n```python\n# B\n```\na\n", {"a": "A"}),
        ("# A\n````\n```\n# B\n~~~~\n````  \n# C\na\n", {"a": "C"}),
        ("# A\n```in line```\n# B\na\n", {"a": "B"}),
        ("---\ntitle: x\n---\na\n\n- item\n---\nb\n\n> said\n---\nc", {"a": "", "b": "", "c": ""}),
        ("two lines\nof prose\n---\n\n---\na\n", {"a": ""}),
    ],
)  # fmt: skip
def test_headings_of_markdown(text, expected):
    assert headings(text, "markdown") == expected


def test_headings_of_python_end_with_their_block():
    text = (
        "import os\na\nclass Tea(Leaf):\n    b\n    def brew(\n        self\n    ):\n        c\n"
        '        """\n        class of leaves, module of water\n        """\n# note\n        d\n'
        "    e\n\nf\nasync def pour():\n    g\n"
    )
    found = headings(text, "python")
    assert found.pop("self") == "def brew("
    brew, tea = "def brew(", "class Tea(Leaf)"
    expected = {"a": "", "b": tea, "c": brew, "d": brew, "e": tea, "f": "", "g": "async def pour()"}
    assert found == expected


def test_each_language_has_its_own_definitions():
    for kind, line, heading in (
        ("rust", "pub(crate) fn brew(tea: Tea) {", "pub(crate) fn brew(tea"),
        ("go", "type Tea struct {", "type Tea struct"),
        ("java", "public final class Tea {", "public final class Tea"),
        ("c", "function of time", ""),
        ("bash", "class of its own", ""),
    ):
        close = "}" if "{" in line else ""
        assert headings(f"{line}\nx\n{close}\n", kind)["x"] == heading


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# A\n<!--\n# B\n-->\n<pre>\n\n# C\n</pre>\n\na\n", {"a": "A"}),
        ("# A\n- b\n\n  # B\n\n> # C\n\na\n", {"a": "A"}),
        ("---\r\nt: x\r\n---\r\n# A *b*\r\n\r\na\n## &amp;\rc\n", {"a": "A *b*"}),
        ("#\n## \n#a\n", {}),
    ],
)
def test_markdown_as_its_standard_has_it(text, expected):
    assert headings(text, "markdown") == expected


CODE = {
    "javascript": "export default class Tea {\n brew(leaves) {\nx\n }\ny\n}\nz\n",
    "typescript": "export abstract class Tea {\n brew(leaves) {\nx\n }\n  y\n}\nz\n",
    "cpp": "class Tea {\n int brew(leaves) {\nx\n;}\n};\nvoid Tea::pour() {\n  y\n;}\n",
    "java": "class Tea {\n @Override\n int brew(leaves a) {\nx\n;}\n}\n",
    "swift": "struct Tea {\n func brew() {\nx\n }\n}\nz\n",
    "bash": "function tea {\nx\n}\nbrew() {\ny\n}\nz\n",
    "c": "struct tea *a;\nstatic int brew(struct tea *b) {\nx\n;}\n",
    "go": "func (t *Tea) Brew() {\nx\n}\n",
    "rust": "// 茶\nimpl fmt::Display for Tea {\n fn brew() {\nx\n }\n}\n",
}
INNERMOST = {
    "javascript": {"x": "brew(leaves)", "y": "export default class Tea", "z": ""},
    "typescript": {"x": "brew(leaves)", "y": "export abstract class Tea", "z": ""},
    "cpp": {"x": "int brew(leaves)", "y": "void Tea::pour()"},
    "java": {"x": "int brew(leaves a)"},
    "swift": {"x": "func brew()", "z": ""},
    "bash": {"x": "function tea", "y": "brew()", "z": ""},
    "c": {"x": "static int brew(struct tea *b)"},
    "go": {"x": "func (t *Tea) Brew()"},
    "rust": {"x": "fn brew()"},
}


@pytest.mark.parametrize("kind", CODE)
def test_the_innermost_definition_is_the_heading(kind):
    assert headings(CODE[kind], kind) == INNERMOST[kind]


@settings(deadline=None)  # a parser is made ready when its language first comes
@given(st.sampled_from(LANGUAGES), st.text("(){}[]<>:;\n \"'def class fn 茶", max_size=60))
def test_any_code_has_an_outline(kind, text):
    found = outline(text, kind).definitions
    starts = [start for start, _ in found]
    assert starts == sorted(starts) and all(0 <= start <= len(text) for start in starts)


@pytest.mark.parametrize("line", ["# a_b", "# a#_#b", "a_", "a_b\n===", "```_b`", "-_-"])
def test_time_grows_with_the_blanks_of_markdown(line):
    def headings_with(blanks: int):
        return markdown_headings(f"{line}\n\n".replace("_", " " * blanks) * 20)

    assert growth(headings_with, 20_000) < 8


@pytest.mark.parametrize(
    "piece", [">", "[", "-\n", "- ", "<!--\n\n", "[a]: <\n\n", "```\na\n", "> a\n"]
)
def test_time_grows_with_the_size_of_markdown(piece):
    assert growth(lambda size: markdown_headings(piece * size), 10_000) < 8


@pytest.mark.parametrize(
    "piece", ["(", "def f(", "a+", "class A:\n def f(): 1\n", "'\n", "x = (1)\n"]
)
def test_time_grows_with_the_size_of_code(piece):
    assert growth(lambda size: outline(piece * size, "python"), 10_000) < 8


def nested_if(count: int) -> str:
    lines = [" " * (depth % 400) + "if x:\n" for depth in range(400)]
    return ("".join(lines) + " " * 400 + "y\n") * count


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("python", lambda size: "(" * size + ")" * size),
        ("python", nested_if),
        ("javascript", lambda size: "a(function(){" * size + "})" * size),
        ("cpp", lambda size: "A<" * size + "int" + ">" * size + " x;"),
    ],
)
def test_deep_code_is_cut_as_prose_is(kind, make):
    def chunks(size):
        return list(Chunker(TOKENIZER, 64, 0).chunks(Passage(make(size), kind)))

    size = 1 if make is nested_if else 2 * MAX_DEPTH
    prose = Chunker(TOKENIZER, 64, 0).chunks(Passage(make(size), "text"))
    assert [chunk.text for chunk in chunks(size)] == [chunk.text for chunk in prose]
    assert growth(chunks, size) < 8


def test_parsing_that_takes_too_long_is_given_up():
    """Twice this size takes four times as long: over a minute for 112 KB."""
    text = "case a:" * 8000
    assert outline(text, "javascript") == ([], [0, len(text)])
