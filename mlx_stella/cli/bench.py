"""``mlx-stella bench``: how fast a model is on this machine, as a text to paste.

$ mlx-stella bench all-minilm-l6-v2 --lengths 64
all-minilm-l6-v2, float32
AMD EPYC (CPU), Linux 6.18, Python 3.11.7, MLX 0.32.4
loaded in 0.47 s, first vector after 0.48 s; peak of a product 187 GFLOP/s
texts             tokens/s   texts/s  spread  padding  of peak  peak memory
64 tokens            5,476      85.6      3%     0.0%      64%       131 MB

On a GPU a line more: the kernels of a layer, and the bytes a token that they move.
"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mlx_stella.cli import options
from mlx_stella.cli.terminal import say, say_json
from mlx_stella.cli.texts import read_records

_LAYER_TOKENS = 512


def bench(
    model: options.ModelArgument = None,
    lengths: Annotated[
        str, typer.Option(help="Tokens per text, a measurement each.")
    ] = "16,64,256,512",
    texts: Annotated[Path | None, typer.Option(help="Embed this .txt or .jsonl file, too.")] = None,
    field: Annotated[str | None, typer.Option(help="JSON Lines: the key of the text.")] = None,
    batch_tokens: Annotated[
        int | None, typer.Option(help="Padded tokens per batch (default: for this device).")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs of each measurement.")] = 5,
    dtype: options.Dtype = None,
    memory_limit: options.MemoryLimit = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure tokens and texts a second, padding, memory, loading, and the share of the peak."""
    records = read_records(None, str(texts), field) if texts else []
    wanted = _parse_lengths(lengths)
    name = options.required(model)

    start = time.perf_counter()
    from mlx_stella import load
    from mlx_stella.evaluation import speed

    encoder = load(name, dtype=dtype, memory_limit=memory_limit)
    load_s = time.perf_counter() - start
    encoder.encode("light on the water")
    first_vector_s = time.perf_counter() - start
    peak = speed.peak_flops(encoder.dtype)
    sets: list[tuple[str, list[str], int | None]] = [
        (f"{n} tokens", speed.texts_of_length(encoder, n, max(4, 4096 // n)), n)
        for n in wanted
        if n <= encoder.checkpoint.max_positions
    ]
    if texts is not None and records:
        sets.append((texts.name, [record.text for record in records], None))
    results = [
        speed.measure(
            encoder, title, rows, peak, max_length=n, max_batch_tokens=batch_tokens, runs=runs
        )
        for title, rows, n in sets
    ]
    layer = speed.layer_cost(encoder, _LAYER_TOKENS)
    head = {
        "model": name,
        "dtype": encoder.dtype,
        "machine": speed.machine(),
        "load_s": round(load_s, 3),
        "first_vector_s": round(first_vector_s, 3),
        "peak_gflops": round(peak / 1e9, 1),
        "layer": layer,
    }
    if as_json:
        rows = [
            asdict(r)
            | {"tokens_per_second": r.tokens_per_second, "texts_per_second": r.texts_per_second}
            for r in results
        ]
        say_json(head | {"measurements": rows})
        return
    say(f"{name}, {encoder.dtype}", head["machine"])
    say(
        f"loaded in {load_s:.2f} s, first vector after {first_vector_s:.2f} s; "
        f"peak of a product {peak / 1e9:,.0f} GFLOP/s"
    )
    if layer:
        say(
            f"a layer at {_LAYER_TOKENS} tokens: {layer['kernels']} kernels, "
            f"{layer['bytes_per_token'] / 1e3:,.0f} KB a token beside products"
        )
    say("texts             tokens/s   texts/s  spread  padding  of peak  peak memory")
    for r in results:
        say(
            f"{r.name:14.14} {r.tokens_per_second:11,.0f} {r.texts_per_second:9,.1f}"
            f" {r.spread:7.0%} {r.padding:8.1%} {r.peak_share:8.0%}"
            f" {r.peak_memory_bytes / 1e6:9,.0f} MB"
        )


def _parse_lengths(text: str) -> list[int]:
    from mlx_stella.errors import InputError

    try:
        lengths = [int(part) for part in text.split(",")]
    except ValueError:
        lengths = []
    if not lengths or min(lengths) < 4:
        raise InputError(
            "no list of numbers", where=f"--lengths {text}", remedy="--lengths 16,64,256"
        )
    return lengths
