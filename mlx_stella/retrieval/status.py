"""How an index stands to the files it was made of: what is done, and what is left."""

from dataclasses import dataclass, field

from mlx_stella.retrieval import reading
from mlx_stella.retrieval.scanning import Key, Note
from mlx_stella.retrieval.sources import look_again
from mlx_stella.retrieval.store import Store
from mlx_stella.retrieval.updating import REPORT, read_empty, read_notes, stored_versions


@dataclass
class Standing:
    """Files by what the next run of `index` would do with them.

    Attributes:
        done: nothing; pending: embed them, the reason is "new", "changed" or "part of it is done";
            gone: take them out; failed: try again; skipped: leave them out; empty: nothing, they
            hold no words.
    """

    done: list[Key] = field(default_factory=list)
    pending: list[Note] = field(default_factory=list)
    gone: list[Key] = field(default_factory=list)
    failed: list[Note] = field(default_factory=list)
    skipped: list[Note] = field(default_factory=list)
    empty: list[Key] = field(default_factory=list)


def compare(store: Store) -> Standing:
    """Look at every file of an index, by its content."""
    standing = Standing()
    report = store.read_note(REPORT) or {}
    versions, empty = stored_versions(store), read_empty(report)
    standing.skipped = read_notes(report, "skipped")
    reasons = {note.key: note for note in read_notes(report, "failed")}
    left_out = {note.key for note in standing.skipped} | set(reasons)
    seen: set[Key] = set()
    for root, found, fields in look_again(store):
        if found is None:
            reason = "the folder is gone; remedy: name it to `index`, which takes its files out"
            standing.failed.append(Note(Key(root, ""), reason))
            seen |= {key for key in versions if key.root == root}
            continue
        for file in found.files:
            key = file.key
            seen.add(key)
            try:
                content_hash = reading.content_hash(file, fields)
            except OSError as error:
                standing.failed.append(Note(key, error.strerror or str(error)))
                continue
            state = versions.get(key, {}).get(content_hash)
            if state and state.is_complete:
                standing.done.append(key)
            elif empty.get(key) == content_hash:
                standing.empty.append(key)
            elif key in reasons:
                standing.failed.append(reasons[key])
            elif state:
                standing.pending.append(Note(key, "part of it is done"))
            elif key not in left_out:
                standing.pending.append(Note(key, "changed" if key in versions else "new"))
        standing.failed += found.failed
    standing.gone = sorted(key for key in versions if key not in seen)
    return standing
