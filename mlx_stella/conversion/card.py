"""The model card: what was converted from what, under which licence, and what it cost."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mlx_stella.checkpoint.hub import FoundModel
from mlx_stella.config import read_object
from mlx_stella.conversion.destination import PROOF
from mlx_stella.evaluation.closeness import NEIGHBOURS, Closeness

NOT_STATED = "not stated"


def licence(source: FoundModel) -> str:
    """As the catalogue, an earlier conversion, or the head of the source's README states it."""
    if source.entry:
        return source.entry.licence
    if (proof := source.directory / PROOF).exists():
        return str(read_object(proof).get("licence", NOT_STATED))
    readme = source.directory / "README.md"
    if readme.is_file():
        text = readme.read_text(encoding="utf-8", errors="replace")
        head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
        for key in ("license_name", "license"):
            if head and (found := re.search(rf"^{key}:\s*([\w.-]+)\s*$", head[1], re.MULTILINE)):
                return found[1]
    return NOT_STATED


def is_non_commercial(licence: str) -> bool:
    return "nc" in re.split(r"[^a-z0-9]+", licence.lower())


def size(size_bytes: int) -> str:
    """A size for people."""
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"


def table(rows: Sequence[Closeness]) -> list[str]:
    """Lines of a table for people, which is Markdown, too."""
    cells: list[tuple[str, ...]] = [
        ("dim", "mean cosine", "1 %", "worst", "relative L2", f"top {NEIGHBOURS} kept")
    ]
    cells += [
        (
            str(row.dim),
            f"{row.mean:.5f}",
            f"{row.percentile_1:.5f}",
            f"{row.worst:.5f}",
            f"{row.relative_l2:.4f}",
            f"{row.neighbours_kept:.1%}",
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, tuple("-" * (width - 1) + ":" for width in widths))
    return [
        "| " + " | ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]


def card(facts: Mapping[str, Any], rows: Sequence[Closeness], dims: Sequence[int]) -> str:
    """README.md of a converted checkpoint; ``facts`` are those of conversion.json."""
    source, stated = facts["source"], facts["licence"]
    link = f"[{source}](https://huggingface.co/{source})" if source else "the source"
    quantized = facts["bits_per_weight"] < 15
    what = f"quantized to {facts['format']}" if quantized else f"in {facts['dtype']}"
    if facts["recipe"]:
        what += f" (recipe {facts['recipe']})"
    if calibration := facts["calibration"]:
        what += f", calibrated on {calibration['texts']} texts ({calibration['text_source']}),"
    head = ["library_name: mlx", "pipeline_tag: sentence-similarity"]
    if source:
        head.insert(0, f"base_model: {source}")
        head.insert(1, f"base_model_relation: {'quantized' if quantized else 'finetune'}")
    if stated != NOT_STATED:
        head.insert(0, f"license: {stated.lower()}")
    head += ["tags:", "- mlx", "- sentence-transformers", "- feature-extraction"]
    lines = ["---", *head, "---", "", f"# {facts['name']}", ""]
    model = f"The text embedding model {link}" if source else "A text embedding model"
    lines += [f"{model}, {what} for MLX with mlx-stella.", ""]
    lines += [
        "```python",
        "from mlx_stella import load",
        "",
        f'model = load("{facts["name"]}")  # this directory, or its Hub id',
        'vectors = model.encode_document(["Green tea is made from unoxidised leaves."])',
        "```",
        "",
        f"Sizes of vectors: {', '.join(map(str, dims))}. The Dense heads"
        f"{' and norms' if calibration else ', norms and biases'} are the source's, byte for byte.",
    ]
    if facts["folded"]:
        lines.append(
            "The latent attention is stored folded: products that do not depend on the text are "
            "computed, so other programs cannot read this part."
        )
    lines += ["", "## Licence", "", _licence_words(stated, link), "", "## What it cost", ""]
    lines += [
        f"{facts['bits_per_weight']:.2f} bits per weight, {size(facts['size_bytes'])} on "
        f"disk; the conversion held {size(facts['peak_memory_bytes'])} at its peak. Vectors "
        f"of {facts['comparison']['texts']} texts ({facts['comparison']['text_source']}), both "
        "models computed in float32, against the source's:",
        "",
        *table(rows),
        "",
        f"`1 %`: one text in a hundred is below. `top {NEIGHBOURS} kept`: of a text's nearest "
        f"others, the share that is the same in both. {PROOF} has these figures and the settings.",
    ]
    return "\n".join(lines) + "\n"


def _licence_words(stated: str, link: str) -> str:
    if is_non_commercial(stated):
        return f"{link} is licensed {stated}: **for non-commercial use only**, and so is this copy."
    if stated == NOT_STATED:
        return f"None is stated by {link}; ask its authors before you use this copy."
    return f"{stated}, that of {link}."


def proof(rows: Sequence[Closeness]) -> list[dict[str, Any]]:
    return [asdict(row) for row in rows]
