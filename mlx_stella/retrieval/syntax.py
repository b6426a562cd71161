"""Code as tree-sitter reads it: the definitions in a text, and where it is nested too deep."""

import importlib
import re
import time
from typing import Any, NamedTuple

_GRAMMARS = {
    "python": ("tree_sitter_python", "language"),
    "javascript": ("tree_sitter_javascript", "language"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
    "rust": ("tree_sitter_rust", "language"),
    "go": ("tree_sitter_go", "language"),
    "c": ("tree_sitter_c", "language"),
    "cpp": ("tree_sitter_cpp", "language"),
    "java": ("tree_sitter_java", "language"),
    "swift": ("tree_sitter_swift", "language"),
    "bash": ("tree_sitter_bash", "language"),
}
_DEFINITIONS = frozenset(
    "class_definition function_definition "  # Python; functions of C, C++ and Bash, too
    "class_declaration abstract_class_declaration interface_declaration enum_declaration "
    "function_declaration generator_function_declaration method_definition internal_module "
    "function_item struct_item enum_item union_item trait_item impl_item mod_item "  # Rust
    "method_declaration type_spec type_alias "  # Go; methods of Java, too
    "struct_specifier enum_specifier union_specifier class_specifier namespace_definition "
    "constructor_declaration compact_constructor_declaration record_declaration "  # Java
    "protocol_declaration init_declaration deinit_declaration".split()  # Swift
)
"""Kinds of nodes that are definitions where they have a body."""

_MODIFIERS = re.compile(rb"[a-z \t]{0,80}")
_WORDS = re.compile(rb"(?:[^\n{:;]|::){0,500}")

MAX_DEPTH = 200
"""Nodes around a node. Of 568 files of Python's own library one is deeper than 29; the splitter's
time and the number of its chunks grow with the depth, to 32 s for 8 KB of parentheses."""


class Outline(NamedTuple):
    """What the tree of a text tells.

    Attributes:
        definitions: where one begins, or is gone on with, and its words; "" behind the last.
        deep: where nesting deeper than MAX_DEPTH begins and where it ends, by turns.
    """

    definitions: list[tuple[int, str]]
    deep: list[int]


def is_code(kind: str) -> bool:
    """Whether there is a grammar for a kind of passage."""
    return kind in _GRAMMARS


def grammar(kind: str) -> Any:
    """The grammar of a kind of code, as tree-sitter and the splitter take it."""
    module, function = _GRAMMARS[kind]
    return getattr(importlib.import_module(module), function)()


def outline(text: str, kind: str) -> Outline:
    """What the tree of a text tells; all of it counts as deep where parsing takes too long."""
    source = text.encode()
    tree = _parse(source, kind)
    if tree is None:
        return Outline([], [0, len(text)])
    events, deep = _walk(source, tree)
    positions = _characters(source, [at for at, _ in events])
    definitions = list(zip(positions, (words for _, words in events), strict=True))
    return Outline(definitions, _characters(source, deep))


def _parse(source: bytes, kind: str) -> Any:
    """A tree, or None: some grammars take time that grows with the square of a text."""
    import tree_sitter

    # Real code takes a ninth of it, 0.11 s for a MiB.
    give_up = time.thread_time() + 1 + len(source) / 2**20
    parser = tree_sitter.Parser(tree_sitter.Language(grammar(kind)))
    try:
        return parser.parse(
            lambda start, _: source[start : start + 2**16],
            progress_callback=lambda *_: time.thread_time() > give_up,
        )
    except ValueError:
        return None


def _walk(source: bytes, tree: Any) -> tuple[list[tuple[int, str]], list[int]]:
    """As an `Outline`, with bytes for positions."""
    events: list[tuple[int, str]] = []
    deep: list[int] = []
    around: list[tuple[int, str]] = []
    """Depth and words of the definitions that are open."""
    cursor, depth = tree.walk(), 0
    while True:
        node = cursor.node
        if node.type in _DEFINITIONS and _has_body(node):
            start, words = _begin(source, node)
            around.append((depth, words))
            events.append((max(start, events[-1][0] if events else 0), words))
        if depth == MAX_DEPTH:
            deep += node.start_byte, node.end_byte
        elif cursor.goto_first_child():
            depth += 1
            continue
        while True:
            if around and around[-1][0] == depth:
                around.pop()
                events.append((cursor.node.end_byte, around[-1][1] if around else ""))
            if cursor.goto_next_sibling():
                break
            if not cursor.goto_parent():
                return events, deep
            depth -= 1


def _has_body(node: Any) -> bool:
    """Not so the `struct tea` of a parameter, or what is only declared."""
    return any(node.child_by_field_name(name) is not None for name in ("body", "type"))


def _begin(source: bytes, node: Any) -> tuple[int, str]:
    """Where a definition begins, and its first line up to the body."""
    name = node.child_by_field_name("name") or node.child_by_field_name("declarator") or node
    start = first = _with_modifiers(source, node.start_byte, node.start_point.column)
    if name.start_point.row > node.start_point.row:  # behind lines of annotations
        first = name.start_byte - name.start_point.column
    words = _WORDS.match(source, first)
    assert words is not None
    return start, " ".join(words.group().decode(errors="ignore").split())


def _with_modifiers(source: bytes, start: int, column: int) -> int:
    """Where the line begins, if only words such as `export` and blanks are before."""
    if _MODIFIERS.fullmatch(source, start - column, start):
        return start - column
    return start


def _characters(source: bytes, places: list[int]) -> list[int]:
    """Positions in the text for places in its bytes, which ascend."""
    found, position, last = [], 0, 0
    for place in places:
        position += len(source[last:place].decode(errors="ignore"))
        last = place
        found.append(position)
    return found
