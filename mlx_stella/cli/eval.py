"""``mlx-stella eval``: how well a model finds what people judged relevant.

$ mlx-stella eval scifact --model stella-400m --dim 256 --dim 1024
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mlx_stella.cli import options
from mlx_stella.cli.terminal import say, say_json


def evaluate(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="corpus.jsonl, queries.jsonl, qrels/, as BEIR has."),
    ],
    model: options.Model = None,
    dim: Annotated[
        list[int] | None, typer.Option(help="A size of the vectors; repeatable, one pass for all.")
    ] = None,
    dtype: Annotated[
        list[str] | None, typer.Option(help="float16, bfloat16 or float32; repeatable.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which judgements: qrels/SPLIT.tsv.")] = "test",
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects.")] = False,
) -> None:
    """Measure nDCG@10, recall@10, recall@100 and MRR, by trec_eval's definitions.

    The whole corpus is embedded and every document compared with every question.
    """
    from mlx_stella import load
    from mlx_stella.evaluation.beir import measure, open_beir, rank

    data = open_beir(folder, split)
    results: list[dict[str, Any]] = []
    kinds: Sequence[str | None] = dtype or [None]
    for kind in kinds:
        encoder = load(options.required(model), dtype=kind)
        for size, run in rank(encoder, data, dim or [encoder.default_dim]).items():
            row = {"model": model, "dtype": encoder.dtype, "dim": size}
            results.append(row | measure(run, data.judgements))
    if as_json:
        say_json(results, indent=1)
        return
    say(f"{len(data.queries)} questions, {split}")
    say(f"{'dtype':9}{'dim':>6}{'nDCG@10':>10}{'recall@10':>11}{'recall@100':>12}{'MRR':>9}")
    for row in results:
        numbers = f"{row['ndcg@10']:10.4f}{row['recall@10']:11.4f}{row['recall@100']:12.4f}"
        say(f"{row['dtype']:9}{row['dim']:6}{numbers}{row['mrr']:9.4f}")
