"""``mlx-stella embed``: texts to vectors.

$ mlx-stella embed "What is Deep Learning?" --model stella-400m
{"text": "What is Deep Learning?", "embedding": [-0.0000634196, 0.0380410, ...]}
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mlx_stella.cli import options
from mlx_stella.cli.output import check_output, write_vectors
from mlx_stella.cli.progress import progress_bar
from mlx_stella.cli.texts import read_texts


def embed(
    model: options.Model,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts to embed.")
    ] = None,
    input: Annotated[
        str | None,
        typer.Option(help="A .txt file (a text a line), a .jsonl file, or - for stdin."),
    ] = None,
    field: Annotated[
        str | None,
        typer.Option(help="JSON Lines: the key that holds the text. [default: text]"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="A .npy or .jsonl file. [default: JSON Lines on stdout]"),
    ] = None,
    prompt_name: Annotated[str | None, typer.Option(help="A prompt of the model's.")] = None,
    prompt: Annotated[str | None, typer.Option(help="A prefix, as it is.")] = None,
    instruction: Annotated[
        str | None, typer.Option(help="A task in a sentence, for models trained with instructions.")
    ] = None,
    dim: options.Dim = None,
    normalize: Annotated[bool, typer.Option(help="Vectors of unit length.")] = True,
    dtype: options.Dtype = None,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens per text. [default: the model's]")
    ] = None,
    on_long: Annotated[
        Literal["truncate", "error"], typer.Option(help="What to do with longer texts.")
    ] = "truncate",
) -> None:
    """Embed texts given as arguments, in a file, or on stdin; a vector for each, in order."""
    check_output(output)
    rows = read_texts(texts, input, field)

    from mlx_stella import load

    encoder = load(model, dtype=dtype)
    with progress_bar("Embedding", len(rows)) as progress:
        vectors = encoder.encode(
            rows,
            prompt_name=prompt_name,
            prompt=prompt,
            instruction=instruction,
            dim=dim,
            normalize=normalize,
            max_length=max_length,
            on_long=on_long,
            progress=progress,
        )
    write_vectors(output, rows, vectors)
