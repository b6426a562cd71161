"""From hidden states to vectors: pooling, Dense heads, normalising. All float32.

The order is sentence-transformers': Transformer, Pooling, Dense, Normalize. A Dense *head*
projects a pooled vector to another size; it is not an ``lm_head``, and choosing one is not
cutting a prefix off a vector, for which there is :func:`prefix`.
"""

from typing import Literal, get_args

import mlx.core as mx

PoolingMode = Literal["mean", "cls", "lasttoken"]
POOLING_MODES: tuple[str, ...] = get_args(PoolingMode)

Activation = Literal["Identity", "Tanh"]
ACTIVATIONS: tuple[str, ...] = get_args(Activation)


def pool(hidden_states: mx.array, pooling_mask: mx.array | None, mode: PoolingMode) -> mx.array:
    """One vector per text.

    Args:
        hidden_states: (B, L, D) float32, padded on the right.
        pooling_mask: (B, L) bool, True for the tokens to pool; None for all. Each row has one.
        mode: "mean" of the tokens, "cls" the first one, "lasttoken" the last one.

    Returns:
        (B, D) float32.
    """
    match mode:
        case "cls":
            return hidden_states[:, 0]
        case "lasttoken":
            if pooling_mask is None:
                return hidden_states[:, -1]
            positions = mx.arange(hidden_states.shape[1])
            last = mx.where(pooling_mask, positions, -1).max(axis=1)
            return mx.take_along_axis(hidden_states, last[:, None, None], axis=1)[:, 0]
        case "mean":
            if pooling_mask is None:
                return hidden_states.mean(axis=1)
            weights = pooling_mask[:, :, None].astype(mx.float32)
            # where, not a product: a padded position that is not finite must not count
            kept = mx.where(pooling_mask[:, :, None], hidden_states, 0.0)
            return kept.sum(axis=1) / weights.sum(axis=1)


def dense(x: mx.array, weight: mx.array, bias: mx.array | None, activation: Activation) -> mx.array:
    """A Dense head, ``activation(x @ weight.T + bias)``: (B, D) -> (B, N), float32."""
    y = x @ weight.T
    if bias is not None:
        y = y + bias
    return mx.tanh(y) if activation == "Tanh" else y


def prefix(x: mx.array, size: int) -> mx.array:
    """The first ``size`` numbers of each vector: (B, N) -> (B, size).

    Cut before normalising: prefixes of unit vectors have unlike lengths. A model trained for it
    keeps most of what it knows in front (Kusupati et al. 2022, Matryoshka Representation
    Learning, https://arxiv.org/abs/2205.13147).
    """
    return x[:, :size]


def layer_norm(x: mx.array) -> mx.array:
    """A LayerNorm without weights, eps 1e-5, of (B, N) float32: what Nomic puts before a cut."""
    return mx.fast.layer_norm(x, None, None, 1e-5)


def normalize(x: mx.array) -> mx.array:
    """Rows of (B, N) float32 at unit length. A zero row becomes NaN, which the encoder reports."""
    # The largest entry first, so that squares neither overflow nor vanish.
    x = x / mx.abs(x).max(axis=-1, keepdims=True)
    return x / mx.linalg.norm(x, axis=-1, keepdims=True)
