"""``mlx-stella embed``: texts to vectors.

$ mlx-stella embed hello --model all-minilm-l6-v2
{"text": "hello", "embedding": [-0.0627717748, 0.0549587756, 0.0521648079, ...]}
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from mlx_stella.cli import options, warm
from mlx_stella.cli.bulk import embed_folder
from mlx_stella.cli.progress import progress_bar
from mlx_stella.cli.texts import read_records
from mlx_stella.cli.vector_files import check_output, write_vectors
from mlx_stella.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from mlx_stella.encoding.settings import EncodeOptions


def embed(
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT", help="Texts to embed; -- before one that starts with -."),
    ] = None,
    model: options.Model = None,
    input: Annotated[
        str | None,
        typer.Option(
            "--input",
            "-i",
            help="A .txt file (a text a line), a .jsonl, .csv or .parquet file, or - for stdin.",
        ),
    ] = None,
    field: Annotated[
        str | None,
        typer.Option(help="The key or column of the text (default: text); makes stdin JSON Lines."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="A .npy or .jsonl file (default: JSONL on stdout), or a folder, which ends in /: "
            "Parquet parts, resumable.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the output file.")] = False,
    prompt_name: Annotated[
        str | None,
        typer.Option(help="A prompt that `info` lists, such as s2p_query (default: none)."),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="Words to put before each text, exactly as given.")
    ] = None,
    instruction: Annotated[
        str | None, typer.Option(help="A task in a sentence, for models trained with instructions.")
    ] = None,
    task: options.Task = None,
    dim: options.Dim = None,
    truncate_dim: options.TruncateDim = None,
    normalize: Annotated[bool, typer.Option(help="Vectors of unit length.")] = True,
    dtype: options.Dtype = None,
    memory_limit: options.MemoryLimit = None,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens per text (default: what `info` says).")
    ] = None,
    on_long: Annotated[
        Literal["truncate", "error"], typer.Option(help="What to do with longer texts.")
    ] = "truncate",
    no_server: options.NoServer = False,
) -> None:
    """Embed texts given as arguments, in a file, or on stdin; a vector for each, in order."""
    choice: EncodeOptions = {
        "prompt_name": prompt_name,
        "prompt": prompt,
        "instruction": instruction,
        "dim": dim,
        "truncate_dim": truncate_dim,
        "normalize": normalize,
        "max_length": max_length,
        "on_long": on_long,
    }
    if output is not None and (output.endswith("/") or Path(output).is_dir()):
        if texts:
            raise InputError(
                "parts are made of a file", where=output, remedy="--input, no arguments"
            )
        if overwrite:
            raise InputError(
                "parts are added to, not replaced", where=output, remedy="drop --overwrite"
            )
        name = options.required(model)
        embed_folder(input, field, output, name, dtype, memory_limit, choice, task)
        return
    path = None if output is None else Path(output)
    check_output(path, input, overwrite)
    records = read_records(texts, input, field, keeps_fields=path is None or path.suffix != ".npy")
    rows = [record.text for record in records]
    if not no_server and memory_limit is None:
        few = _embed_there(options.required(model), dtype, rows, choice, task)
        if few is not None:
            write_vectors(path, records, [few], few.nbytes // (4 * len(rows)), overwrite)
            return

    from mlx_stella import load

    encoder = load(options.required(model), dtype=dtype, memory_limit=memory_limit)
    settings = encoder.settings(**options.with_task(choice, task, encoder))
    (width,) = settings.widths
    with progress_bar("Embedding", len(records)) as progress:
        blocks = encoder.encode_stream(rows, settings=settings, progress=progress)
        write_vectors(path, records, cast("Iterator[np.ndarray]", blocks), width, overwrite)


def _embed_there(
    model: str, dtype: str | None, texts: Sequence[str], choice: "EncodeOptions", task: str | None
) -> "memoryview[float] | None":
    """The vectors (n, dim) of a few texts, by a server that has the model; None if it is done here.

    So is what its protocol has no words for, and what is refused or warned of, which is told
    better here.
    """
    words = {
        "prompt_name": choice["prompt_name"],
        "prompt": choice["prompt"],
        "instruction": choice["instruction"],
        "task": task,
    }
    given = {name: value for name, value in words.items() if value is not None}
    if len(given) > 1 or choice["max_length"] is not None or choice["truncate_dim"] is not None:
        return None
    request = {
        "dimensions": choice["dim"],
        "normalize": choice["normalize"],
        "on_long": choice["on_long"],
        **given,
    }
    server = warm.find(dtype)
    return server.embed(model, texts, request) if server else None
