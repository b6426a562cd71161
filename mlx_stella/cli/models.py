"""``mlx-stella models``: what this package is made for."""

from mlx_stella.catalog import MODELS


def models() -> None:
    """List the known models: alias, Hub id, sizes of vectors, tokens, parameters, licence."""
    rows = [("ALIAS", "HUB ID", "DIMS", "TOKENS", "PARAMETERS", "FLOAT16", "LICENCE")]
    for entry in MODELS:
        default, *others = entry.dims
        dims = f"{default} ({min(others)}-{max(others)})" if others else str(default)
        millions = entry.parameters / 1e6
        size = f"{entry.parameters * 2 / 1e9:.2f} GB"
        tokens = str(entry.max_seq_length)
        rows.append(
            (entry.alias, entry.repo, dims, tokens, f"{millions:,.0f} M", size, entry.licence)
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
