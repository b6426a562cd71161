"""``mlx-stella convert``: a model in another type or in few bits, with proof of what it cost."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mlx_stella.cli.progress import stage_bars
from mlx_stella.cli.terminal import say, tell_message
from mlx_stella.errors import InputError
from mlx_stella.models.formats import MODES, choose

if TYPE_CHECKING:
    from mlx_stella.conversion.convert import Conversion

Mode = Literal["affine", "mxfp4", "mxfp8", "nvfp4"]


def convert(
    source: Annotated[
        str,
        typer.Argument(metavar="SRC", help="An alias, a Hub id or a directory; not quantized."),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The directory to write.")
    ] = None,
    dtype: Annotated[
        Literal["float16", "bfloat16", "float32"],
        typer.Option(metavar="TYPE", help="Of float matrices and of scales."),
    ] = "float16",
    bits: Annotated[
        int | None, typer.Option(help="2, 3, 4, 5, 6 or 8 bits a weight (default: no quantizing).")
    ] = None,
    group_size: Annotated[
        int | None, typer.Option(help="Weights that share a scale: 32, 64 (default) or 128.")
    ] = None,
    mode: Annotated[
        Mode | None,
        typer.Option(help="How weights are coded; each mode but affine has one width and group."),
    ] = None,
    recipe: Annotated[
        Literal["embeddings_3", "embeddings_4", "auto"] | None,
        typer.Option(
            metavar="NAME",
            help="embeddings_3 or _4: embeddings in 3 or 4 bits; auto: each matrix in the bits "
            "that serve --target-bits best, calibrated.",
        ),
    ] = None,
    target_bits: Annotated[
        float | None, typer.Option(help="Bits per weight, all counted, for --recipe auto.")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Choose codes by what they do to vectors of texts.")
    ] = False,
    calibration_texts: Annotated[
        str | None,
        typer.Option(help="Texts to calibrate on: .txt or .jsonl (default: a built-in set)."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of what calibration draws (default: 0).")
    ] = None,
    eval_texts: Annotated[
        str | None,
        typer.Option(help="Texts to compare on: .txt or .jsonl (default: a built-in set)."),
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Say what would be written, and stop.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier conversion.")] = False,
    upload_repo: Annotated[
        str | None, typer.Option(help="Upload the result to this repository of the Hub.")
    ] = None,
) -> None:
    """Convert a model: another type, or few bits a weight; compare both and write a card."""
    is_auto = recipe == "auto"
    if is_auto != (target_bits is not None):
        raise InputError("--recipe auto and --target-bits belong together", remedy="give both")
    if is_auto and bits is not None:
        raise InputError("--recipe auto chooses the bits", remedy="drop --bits, or the recipe")
    is_quantized = bits is not None or mode is not None or is_auto
    calibrate = calibrate or is_auto
    if calibrate and not is_quantized:
        raise InputError("--calibrate belongs to --bits", remedy="give both")
    for name, value in (("--calibration-texts", calibration_texts), ("--seed", seed)):
        if value is not None and not calibrate:
            raise InputError(f"{name} belongs to --calibrate", remedy="give both")
    if calibration_texts is not None and calibration_texts == eval_texts:
        raise InputError(
            "a model is close to its source on the texts it was calibrated on",
            where=eval_texts,
            remedy="compare on others",
        )
    if group_size is not None and not is_quantized:
        raise InputError("--group-size belongs to --bits", remedy="give both")
    if recipe is not None and not is_quantized:
        raise InputError("--recipe belongs to --bits", remedy="give both")
    format = choose(bits, group_size, mode or MODES[0]) if is_quantized else None
    if output is None and not dry_run:
        raise InputError("no output given", remedy="--output DIRECTORY, or --dry-run")

    from mlx_stella.checkpoint import hub
    from mlx_stella.cli import comparison_texts
    from mlx_stella.conversion.card import is_non_commercial, licence, size, table
    from mlx_stella.conversion.convert import Conversion, Request

    texts = comparison_texts.evaluation_texts(eval_texts)
    found = hub.resolve(source)
    request = Request(
        dtype,
        format,
        recipe=None if is_auto else recipe,
        calibration=comparison_texts.calibration_texts(calibration_texts) if calibrate else None,
        seed=seed or 0,
        target_bits=target_bits,
    )
    conversion = Conversion(found, request)
    _print_plan(conversion, licence(found))
    if output is None or dry_run:
        return
    with stage_bars() as report:
        facts, rows = conversion.run(output, texts, overwrite, report)
    say(*table(rows))
    say(
        f"{facts['bits_per_weight']:.2f} bits per weight, {size(facts['size_bytes'])} on "
        f"disk, {size(facts['peak_memory_bytes'])} resident at the peak of converting"
    )
    if is_non_commercial(facts["licence"]):
        tell_message(f"note: the licence is {facts['licence']}")
    say(f"written to {output}")
    if upload_repo is not None:
        say(f"uploaded to {hub.upload(output, upload_repo)}")


def _print_plan(conversion: "Conversion", licence: str) -> None:
    """What will be written: matrices by format, and sizes."""
    from mlx_stella.conversion.card import size

    dtype = conversion.request.dtype
    kinds: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for piece in conversion.pieces:
        kind = str(piece.format or dtype) if piece.is_matrix else "norms and biases"
        if piece.format is not None and conversion.chooses_widths:
            kind = f"bits to be chosen, in groups of {piece.format.group_size}"
        else:
            sizes[kind] += piece.size_bytes(dtype)
        kinds[kind] += 1
    say(f"from {conversion.checkpoint.directory}, licence {licence}")
    for kind, count in kinds.most_common():
        taken = sizes.get(kind, conversion.backbone_bytes - sizes.total())
        say(f"  {count:5} tensors  {size(taken):>9}  {kind}")
    parameters = conversion.checkpoint.parameters
    say(
        f"  {size(conversion.backbone_bytes)} of weights, "
        f"{8 * conversion.backbone_bytes / parameters:.2f} bits per weight, and "
        f"{size(conversion.other_bytes)} of heads, tokenizer and other files"
    )
    if (calibration := conversion.calibration) is not None:
        say(
            f"  calibrating on {len(calibration.texts.texts)} texts ({calibration.texts.source}) "
            f"takes up to {size(calibration.memory_bytes)} of memory"
        )
