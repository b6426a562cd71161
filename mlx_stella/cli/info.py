"""``mlx-stella info``: what a checkpoint is and how it would be used. Weights are not loaded."""

import textwrap
from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest

from mlx_stella.checkpoint.catalog import told
from mlx_stella.cli import options
from mlx_stella.cli.terminal import printable, say


def info(model: options.ModelArgument = None) -> None:
    """Describe a model: backbone, pooling, heads, prompts, lengths, types, sizes."""
    # All or nothing: what config.json asks for may not fit the tensors.
    for label, value in list(_facts(options.required(model))):
        lines = textwrap.wrap(printable(value), 66, break_long_words=False) or [""]
        for start, line in zip_longest([f"{label}:"], lines, fillvalue=""):
            say(f"{start:<13}{line}")


def _facts(model: str) -> Iterator[tuple[str, object]]:
    """What is told of a model, label by label."""
    from mlx_stella.checkpoint import hub
    from mlx_stella.checkpoint.checkpoint import open_checkpoint
    from mlx_stella.encoding.memory import Memory
    from mlx_stella.loading import default_dtype

    source = hub.resolve(model)
    checkpoint = open_checkpoint(source.directory, source.entry)
    prompts, files, dtype = checkpoint.prompts, checkpoint.files, default_dtype()

    yield "directory", checkpoint.directory
    if source.entry:
        yield "model", f"{source.entry.repo}, licence {source.entry.licence}"
    yield "backbone", checkpoint.args.summary
    yield "parameters", f"{checkpoint.parameters / 1e6:,.1f} M, without heads"
    stored = Counter(tensor.dtype for tensor in files.tensors.values())
    tensors = ", ".join(f"{count} {name}" for name, count in stored.items()) or "not known"
    yield "on disk", f"{_size(files.size_bytes)}, tensors: {tensors}"
    if checkpoint.is_quantized:
        held = Counter(str(r.format) for r in checkpoint.assemblies if r.format is not None)
        yield "quantized", ", ".join(f"{count} matrices: {name}" for name, count in held.items())
    yield "in memory", f"{_size(checkpoint.memory_bytes(dtype))} of weights as {dtype}"
    pooling = checkpoint.pooling + ", without the prompt" * checkpoint.masks_prompt
    at_work = Memory(checkpoint.args, checkpoint.memory_bytes(dtype))
    length = checkpoint.usual_length
    yield "at work", f"{_size(at_work.peak(length))} at most, with texts of {length} tokens"
    yield "pooling", pooling + ", then normalised" * checkpoint.normalizes
    default = checkpoint.default_dim
    dims = (f"{dim} (default)" if dim == default else str(dim) for dim in checkpoint.dims)
    yield "dimensions", ", ".join(dims)
    if checkpoint.prefix_sizes:
        yield "cut to", f"trained for {told(checkpoint.prefix_sizes)}"
    yield "similarity", checkpoint.similarity
    limits = f"{checkpoint.max_seq_length} by default, {checkpoint.max_positions} at most"
    yield "tokens", limits
    yield "prompts", ", ".join(prompts.named) or "none"
    uses = [("by default", prompts.default_name), ("queries", prompts.for_query(None))]
    for use, name in [*uses, ("documents", prompts.for_document())]:
        yield use, "no prompt" if name is None else f"{name}: {prompts.named[name]!r}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"
