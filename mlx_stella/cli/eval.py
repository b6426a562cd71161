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
    recall: Annotated[
        list[int] | None,
        typer.Option(
            min=1, metavar="K", help="Recall among the best K; repeatable (default: 10 and 100)."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects.")] = False,
) -> None:
    """Measure nDCG@10, recall and MRR, by trec_eval's definitions.

    The whole corpus is embedded and every document compared with every question.
    """
    from mlx_stella import load
    from mlx_stella.evaluation.beir import DEPTH, RECALL_AT, measure, open_beir, rank

    data = open_beir(folder, split)
    recall_at = sorted(set(recall or RECALL_AT))
    depth = max(DEPTH, *recall_at)
    results: list[dict[str, Any]] = []
    kinds: Sequence[str | None] = dtype or [None]
    for kind in kinds:
        encoder = load(options.required(model), dtype=kind)
        for size, run in rank(encoder, data, dim or [encoder.default_dim], depth).items():
            row = {"model": model, "dtype": encoder.dtype, "dim": size}
            results.append(row | measure(run, data.judgements, recall_at))
    if as_json:
        say_json(results, indent=1)
        return
    say(f"{len(data.queries)} questions, {split}")
    names = [f"recall@{k}" for k in recall_at]
    heads = "".join(f"  {name}" for name in names)
    say(f"{'dtype':9}{'dim':>6}{'nDCG@10':>10}{heads}{'MRR':>9}")
    for row in results:
        numbers = "".join(f"{row[name]:{len(name) + 2}.4f}" for name in names)
        say(f"{row['dtype']:9}{row['dim']:6}{row['ndcg@10']:10.4f}{numbers}{row['mrr']:9.4f}")
