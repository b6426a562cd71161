"""``mlx-stella info``: what a checkpoint is and how it would be used. Weights are not loaded."""

import textwrap
from collections import Counter
from itertools import zip_longest

from mlx_stella.cli import options
from mlx_stella.cli.terminal import printable, say


def info(model: options.ModelArgument = None) -> None:
    """Describe a model: backbone, pooling, heads, prompts, lengths, types, sizes."""
    from mlx_stella.checkpoint import hub
    from mlx_stella.checkpoint.checkpoint import open_checkpoint
    from mlx_stella.encoding.memory import Memory
    from mlx_stella.loading import default_dtype

    source = hub.resolve(options.required(model))
    checkpoint = open_checkpoint(source.directory, source.entry.prompts if source.entry else None)
    prompts, files, dtype = checkpoint.prompts, checkpoint.files, default_dtype()

    _line("directory", checkpoint.directory)
    if source.entry:
        _line("model", f"{source.entry.repo}, licence {source.entry.licence}")
    _line("backbone", checkpoint.args.summary)
    _line("parameters", f"{checkpoint.parameters / 1e6:,.1f} M, without heads")
    stored = Counter(tensor.dtype for tensor in files.tensors.values())
    tensors = ", ".join(f"{count} {name}" for name, count in stored.items()) or "not known"
    _line("on disk", f"{_size(files.size_bytes)}, tensors: {tensors}")
    if checkpoint.is_quantized:
        held = Counter(str(r.format) for r in checkpoint.assemblies if r.format is not None)
        _line("quantized", ", ".join(f"{count} matrices: {name}" for name, count in held.items()))
    _line("in memory", f"{_size(checkpoint.memory_bytes(dtype))} of weights as {dtype}")
    pooling = checkpoint.pooling + ", without the prompt" * checkpoint.masks_prompt
    at_work = Memory(checkpoint.args, checkpoint.memory_bytes(dtype))
    length = checkpoint.usual_length
    _line("at work", f"{_size(at_work.peak(length))} at most, with texts of {length} tokens")
    _line("pooling", pooling + ", then normalised" * checkpoint.normalizes)
    default = checkpoint.default_dim
    dims = (f"{dim} (default)" if dim == default else str(dim) for dim in checkpoint.dims)
    _line("dimensions", ", ".join(dims))
    _line("similarity", checkpoint.similarity)
    limits = f"{checkpoint.max_seq_length} by default, {checkpoint.max_positions} at most"
    _line("tokens", limits)
    _line("prompts", ", ".join(prompts.named) or "none")
    uses = [("by default", prompts.default_name), ("queries", prompts.for_query(None))]
    for use, name in [*uses, ("documents", prompts.for_document())]:
        _line(use, "no prompt" if name is None else f"{name}: {prompts.named[name]!r}")


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"


def _line(label: str, value: object) -> None:
    lines = textwrap.wrap(printable(value), 66, break_long_words=False) or [""]
    for start, line in zip_longest([f"{label}:"], lines, fillvalue=""):
        say(f"{start:<13}{line}")
