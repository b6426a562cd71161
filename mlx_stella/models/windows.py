"""Models whose layers take turns: some see a whole text, the others what is near, a window.

Both kinds have rotary angles of their own. ModernBERT and Gemma 3 are built so.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import mlx.core as mx

from mlx_stella.errors import ConfigError
from mlx_stella.models.args import RopeArgs, parse, rotary_head_dim
from mlx_stella.models.layers import Local, Mask, RopeTables, key_mask, rope_tables

LayerType = Literal["full_attention", "sliding_attention"]
_TYPES: tuple[str, ...] = get_args(LayerType)

T = TypeVar("T", bound="WindowArgs")


@dataclass(frozen=True, kw_only=True)
class WindowArgs:
    """Settings of both kinds of layers, for a ``ModelArgs`` to inherit.

    Attributes:
        layer_types: the kind of each layer; None where the config states a period.
        rope, local_rope: rotary angles of the layers that see all, and of the others.
    """

    num_hidden_layers: int
    rope: RopeArgs
    local_rope: RopeArgs
    layer_types: list[LayerType] | None = None


def parse_windows(
    cls: type[T],
    config: Mapping[str, Any],
    file: Path,
    theta_keys: tuple[str, str],
    handled: tuple[str, ...] = (),
) -> T:
    """:func:`parse` for a model with windows; its two rotary settings come from several keys.

    Args:
        theta_keys: of the two bases, of all and local, where there are no ``rope_parameters``.
        handled: keys that the caller has dealt with.

    Raises:
        ConfigError: as parse and RopeArgs; or the types are not one for each layer.
    """
    has_own = any(field.name == "head_dim" for field in dataclasses.fields(cls))
    size = rotary_head_dim(config, file, has_own)
    given = config.get("rope_parameters") or {}
    if not isinstance(given, dict) or set(given) - set(_TYPES) or config.get("rope_scaling"):
        raise ConfigError(
            "one rope_scaling or rope_parameters for layers of both kinds is not implemented",
            where=file,
        )
    ropes = []
    for kind, key in zip(_TYPES, theta_keys, strict=True):
        one = {"rope_parameters": given.get(kind), "rope_theta": config.get(key)}
        ropes.append(RopeArgs.from_config(one, file, size))
    own = {
        key: value
        for key, value in config.items()
        if key not in ("rope_parameters", "rope_scaling", *theta_keys, *handled)
    }
    own |= {"head_dim": size} if has_own else {}
    args = parse(cls, own | {"rope": ropes[0], "local_rope": ropes[1]}, file)
    if args.layer_types is not None and len(args.layer_types) != args.num_hidden_layers:
        raise ConfigError(
            f"{len(args.layer_types)} layer_types for {args.num_hidden_layers} layers",
            where=file,
            remedy="download it again",
        )
    return args


def of_layers(
    args: WindowArgs,
    is_local: Sequence[bool],
    radius: int,
    head_dim: int,
    length: int,
    attention_mask: mx.array | None,
) -> Iterator[tuple[Mask | None, RopeTables]]:
    """For each layer what it sees, and its rotary tables.

    Args:
        args: with both rotary settings.
        is_local: of each layer; used where the args list no types.
        radius: how many tokens a window goes to either side.
        head_dim: E.
        length: tokens of the texts, padded; attention_mask: (B, L) bool, or None.
    """
    if args.layer_types is not None:
        is_local = [kind == "sliding_attention" for kind in args.layer_types]
    whole = key_mask(attention_mask)
    near = Local(radius, attention_mask) if length > radius + 1 else whole
    kinds = (
        (whole, rope_tables(args.rope, length, head_dim)),
        (near, rope_tables(args.local_rope, length, head_dim)),
    )
    return (kinds[layer] for layer in is_local)
