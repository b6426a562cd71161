"""``mlx-stella status``: what an index holds, and what is left to do.

$ mlx-stella status notes.index
"""

import json
from typing import Annotated

import typer

from mlx_stella.cli import options


def status(
    index: Annotated[str, typer.Argument(metavar="INDEX", help="As `index` made it.")],
    as_json: Annotated[bool, typer.Option("--json", help="An object for programs.")] = False,
) -> None:
    """Show an index's model, and which files are done, pending, gone, failed, skipped or empty.

    The files are looked at by their content; nothing is changed, and no model is loaded.
    """
    from mlx_stella.machine.packages import require

    require("search")
    from mlx_stella.retrieval.opening import open_index
    from mlx_stella.retrieval.status import compare

    store, stamp = open_index(index)
    standing = compare(store)
    lists = {
        "pending": [(note.key, note.reason) for note in standing.pending],
        "gone": [(key, "no longer there") for key in standing.gone],
        "failed": [(note.key, note.reason) for note in standing.failed],
        "skipped": [(note.key, note.reason) for note in standing.skipped],
        "empty": [(key, "no words in it; a scan?") for key in standing.empty],
    }
    if as_json:
        found = {
            name: [{"root": key.root, "file": key.name, "reason": why} for key, why in entries]
            for name, entries in lists.items()
        }
        counts = {"chunks": store.count(), "done": len(standing.done)}
        print(json.dumps({"stamp": stamp.to_json(), **counts, **found}, indent=1))
        return
    revision = f" at {stamp.origin.revision}" if stamp.origin.revision else ""
    print(f"Model:   {stamp.origin.model}{revision}, {stamp.dtype}, {stamp.dim} dimensions")
    print(f"Chunks:  {store.count()}, of at most {stamp.chunk_tokens} tokens")
    print(f"Done:    {len(standing.done)} files")
    for name, entries in lists.items():
        if entries:
            print(f"{name.capitalize() + ':':8} {len(entries)} files")
        for key, reason in entries:
            print(options.printable(f"    {key.name or key.root}: {reason}"))
