"""Mixed precision by name, for all architectures alike.

Word embeddings are robust and layers are not: on all-MiniLM-L6-v2, where embeddings are half of
the weights, 5 bits with embeddings of 3 (4.48 bits per weight) keep a mean cosine of 0.977, and 4
bits throughout (4.54) one of 0.964. The name-based recipes of mlx-lm did worse than that at more
bits (mixed_4_6: 0.972 at 4.72) and are not offered.
"""

from collections.abc import Mapping

from mlx_stella.checkpoint.checkpoint import Checkpoint
from mlx_stella.errors import InputError
from mlx_stella.models.formats import Format
from mlx_stella.models.layers import Embedding

EMBEDDING_BITS = {"embeddings_3": 3, "embeddings_4": 4}
NAMES = tuple(EMBEDDING_BITS)


def exceptions(name: str, checkpoint: Checkpoint, format: Format) -> Mapping[str, Format]:
    """Formats by layer of the model that differ from the one asked for.

    Raises:
        InputError: the recipe is unknown, or does not go with the format.
    """
    if name not in EMBEDDING_BITS:
        raise InputError(f"recipe {name!r} is unknown", remedy=f"one of {', '.join(NAMES)}")
    if format.mode != "affine":
        raise InputError(f"recipes mix widths, and {format.mode} has one", remedy="--mode affine")
    model = checkpoint.architecture.model(checkpoint.args)
    fewer = Format(EMBEDDING_BITS[name], format.group_size)
    return {path: fewer for path, m in model.named_modules() if isinstance(m, Embedding)}
