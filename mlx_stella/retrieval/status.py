"""What an index holds of the files it was made of, and what is left to do."""

from dataclasses import dataclass, field

from mlx_stella.errors import InputError
from mlx_stella.retrieval import reading
from mlx_stella.retrieval.manifest import IndexManifest
from mlx_stella.retrieval.notes import read_report
from mlx_stella.retrieval.scanning import Key, Note, is_below
from mlx_stella.retrieval.sources import look_again
from mlx_stella.retrieval.store import Store
from mlx_stella.retrieval.updating import read_empty, read_notes, stored_versions


@dataclass
class IndexStatus:
    """An index, and its files by what the next update would do with them.

    Attributes:
        manifest: what made its vectors; chunks: the number of its rows.
        done: nothing; pending: embed them, the reason is "new", "changed" or "part of it is done";
            gone: take them out; failed: try again; skipped: leave them out; empty: nothing, they
            hold no words; bad_rows: mend these rows of files that are done.
    """

    manifest: IndexManifest
    chunks: int
    done: list[Key] = field(default_factory=list)
    pending: list[Note] = field(default_factory=list)
    gone: list[Key] = field(default_factory=list)
    failed: list[Note] = field(default_factory=list)
    skipped: list[Note] = field(default_factory=list)
    empty: list[Key] = field(default_factory=list)
    bad_rows: list[Note] = field(default_factory=list)


def status_of(store: Store, manifest: IndexManifest) -> IndexStatus:
    """Look at every file of an index, by its content, and at the names of others beside them."""
    status = IndexStatus(manifest, store.count())
    report = read_report(store)
    versions, empty = stored_versions(store), read_empty(report)
    status.skipped = read_notes(report, "skipped")
    reasons = {note.key: note for note in read_notes(report, "failed")}
    left_out = {note.key for note in status.skipped} | set(reasons)
    seen: set[Key] = set()
    for root, found, fields in look_again(store):
        if isinstance(found, InputError):
            status.failed.append(Note(Key(root, ""), found.reason))
            seen |= {key for key in versions if key.root == root}
            continue
        for file in found.files:
            key = file.key
            seen.add(key)
            content_hash = ""
            if key in versions or key in empty:  # of others there is nothing to compare with
                try:
                    content_hash = reading.content_hash(file, fields)
                except OSError as error:
                    status.failed.append(Note(key, error.strerror or str(error)))
                    continue
            state = versions.get(key, {}).get(content_hash)
            if state and state.is_complete:
                status.done.append(key)
            elif empty.get(key) == content_hash:
                status.empty.append(key)
            elif key in reasons:
                status.failed.append(reasons[key])
            elif state:
                status.pending.append(Note(key, "part of it is done"))
            elif key not in left_out:
                status.pending.append(Note(key, "changed" if key in versions else "new"))
        status.failed += found.failed
        # What lies in a folder that cannot be read may be there.
        closed = [note.key.name for note in found.failed if note.key.root == root]
        here = [key for key in versions if key.root == root]
        seen |= {key for key in here if any(is_below(key.name, folder) for folder in closed)}
    done = set(status.done)
    status.bad_rows = [note for note in read_notes(report, "bad_rows") if note.key in done]
    status.gone = sorted(key for key in versions if key not in seen)
    return status
