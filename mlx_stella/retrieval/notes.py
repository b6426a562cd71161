"""The notes of an index, which anybody may have written: as they should be, or refused."""

from collections.abc import Mapping
from typing import Any, TypedDict, TypeGuard

from mlx_stella.errors import StoreError
from mlx_stella.retrieval.store import Store

SOURCES, REPORT = "sources", "report"
"""What an index was made of; what the last run left out."""


class Source(TypedDict):
    """Of a root: the files that were asked for one by one, or None for the whole folder."""

    names: list[str] | None
    globs: list[str]
    fields: list[str]


def read_sources(store: Store) -> dict[str, Source]:
    """Of each root what was asked for; empty where there is no index yet.

    Raises:
        StoreError: the note is damaged.
    """
    note: Mapping[str, Any] = _read(store, SOURCES)
    for source in note.values():
        lists = source if isinstance(source, dict) else {}
        names = [] if lists.get("names", ()) is None else lists.get("names")
        if not all(map(_is_strings, (names, lists.get("globs"), lists.get("fields")))):
            raise damaged(store, SOURCES)
    return dict(note)


def read_report(store: Store) -> dict[str, list[list[str]]]:
    """Root, name and reason, or hash, of what is "skipped", "failed" or "empty", or of "bad_rows".

    Raises:
        StoreError: the note is damaged.
    """
    note: Mapping[str, Any] = _read(store, REPORT)
    for entries in note.values():
        rows = entries if isinstance(entries, list) else [None]
        if not all(_is_strings(row) and len(row) == 3 for row in rows):
            raise damaged(store, REPORT)
    return dict(note)


def damaged(store: Store, name: str) -> StoreError:
    """The error of a note that is not as this program writes it."""
    return StoreError(f"its note {name!r} is damaged", where=store.uri, remedy="make it anew")


def _read(store: Store, name: str) -> Mapping[str, Any]:
    note: Any = store.read_note(name)
    if not isinstance(note, dict | None):
        raise damaged(store, name)
    return note or {}


def _is_strings(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
