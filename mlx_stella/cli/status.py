"""``mlx-stella status``: what an index holds, and what is left to do.

$ mlx-stella status notes.index
"""

from typing import Annotated

import typer

from mlx_stella.cli.terminal import say, say_json

_LISTED = 10


def status(
    index: Annotated[str, typer.Argument(metavar="INDEX", help="As `index` made it.")],
    as_json: Annotated[bool, typer.Option("--json", help="An object for programs.")] = False,
) -> None:
    """Show an index's model, and which files are done, pending, gone, failed, skipped or empty.

    The files are looked at by their content; nothing is changed, and no model is loaded.
    """
    from mlx_stella import Index  # needs the extra search

    found = Index.open(index).status()
    made = found.manifest
    lists = {
        "pending": [(note.key, note.reason) for note in found.pending],
        "gone": [(key, "no longer there") for key in found.gone],
        "failed": [(note.key, note.reason) for note in found.failed],
        "skipped": [(note.key, note.reason) for note in found.skipped],
        "bad_rows": [(note.key, note.reason) for note in found.bad_rows],
        "empty": [(key, "no words in it; a scan?") for key in found.empty],
    }
    if as_json:
        entries_of = {
            name: [{"root": key.root, "file": key.name, "reason": why} for key, why in entries]
            for name, entries in lists.items()
        }
        counts = {"chunks": found.chunks, "done": len(found.done)}
        say_json({"stamp": made.to_json(), **counts, **entries_of}, indent=1)
        return
    revision = f" at {made.origin.revision}" if made.origin.revision else ""
    dims = f"{made.dim} dimensions"
    if made.truncate_dim is not None:
        dims += f", the first {made.truncate_dim} of them"
    say(f"Model:   {made.origin.model}{revision}, {made.dtype}, {dims}")
    say(f"Chunks:  {found.chunks}, of at most {made.chunk_tokens} tokens")
    say(f"Done:    {len(found.done)} files")
    for name, entries in lists.items():
        if entries:
            files = len({key for key, _ in entries})
            say(f"{name.replace('_', ' ').capitalize() + ':':8} {files} files")
        for key, reason in entries[:_LISTED]:
            say(f"    {key.name or key.root}: {reason}")
        if len(entries) > _LISTED:
            say(f"    {len(entries) - _LISTED} more; --json lists them")
