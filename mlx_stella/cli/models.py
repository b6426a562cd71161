"""``mlx-stella models``: what this package is made for."""

from mlx_stella.checkpoint.catalog import MODELS
from mlx_stella.cli.terminal import say


def models() -> None:
    """List the known models: alias, sizes of vectors, tokens, GB in float16, prompt, licence."""
    rows = [("ALIAS", "DIMS", "TOKENS", "GB", "QUERY AS", "LICENCE")]
    for entry in MODELS:
        default, *others = entry.dims
        dims = f"{default}, {min(others)}-{max(others)}" if others else str(default)
        size = f"{entry.parameters * 2 / 1e9:.2f}"
        prompt = entry.query_prompt or "-"
        rows.append((entry.alias, dims, str(entry.max_seq_length), size, prompt, entry.licence))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say("  ".join(cells).rstrip())
