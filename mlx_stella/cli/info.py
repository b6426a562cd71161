"""``mlx-stella info``: what a checkpoint is and how it would be used. Weights are not loaded."""

from collections import Counter

from mlx_stella.cli import options


def info(model: options.ModelArgument) -> None:
    """Describe a model: backbone, pooling, heads, prompts, lengths, types, sizes."""
    from mlx_stella import hub
    from mlx_stella.checkpoint import open_checkpoint
    from mlx_stella.encoder import default_dtype

    source = hub.resolve(model)
    checkpoint = open_checkpoint(source.directory, source.entry.prompts if source.entry else None)
    dtype = default_dtype()
    stored = Counter(tensor.dtype for tensor in checkpoint.files.tensors.values())
    dims = ", ".join(
        f"{dim} (default)" if dim == checkpoint.default_dim else str(dim) for dim in checkpoint.dims
    )
    _line("directory", checkpoint.directory)
    if source.entry:
        _line("model", f"{source.entry.repo}, licence {source.entry.licence}")
    _line("backbone", checkpoint.args.summary)
    _line("parameters", f"{checkpoint.parameters / 1e6:,.1f} M, without heads")
    _line(
        "on disk",
        f"{checkpoint.files.size_bytes / 1e9:.2f} GB in {len(checkpoint.files.paths)} files"
        + "".join(f", {count} tensors {name}" for name, count in stored.items()),
    )
    _line("in memory", f"{checkpoint.memory_bytes(dtype) / 1e9:.2f} GB of weights as {dtype}")
    _line("pooling", checkpoint.pooling + (", without the prompt" * checkpoint.masks_prompt))
    _line("dimensions", dims)
    _line("similarity", checkpoint.similarity)
    _line(
        "tokens",
        f"{checkpoint.max_seq_length} by default, {checkpoint.max_positions} at most",
    )
    for name, prompt in checkpoint.prompts.named.items():
        default = " (default)" if name == checkpoint.prompts.default_name else ""
        _line("prompt", f"{name}{default}: {prompt!r}")
    query = checkpoint.prompts.for_query(None)
    _line("queries get", f"the prompt {query}" if query else "no prompt")
    document = checkpoint.prompts.for_document()
    _line("documents get", f"the prompt {document}" if document else "no prompt")


def _line(label: str, value: object) -> None:
    print(f"{label + ':':<15}{value}")
