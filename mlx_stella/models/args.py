"""What an architecture is told by its config.json: checked, frozen dataclasses.

A field's annotation says what is implemented: ``Size`` a number that may vary, ``Literal["gelu"]``
the only value the code computes. :func:`parse` checks all fields of a file and reports every
fault at once. A key that no dataclass knows and that is not listed in :data:`INERT` gets a
warning: it may change the arithmetic, and nobody has looked.
"""

import dataclasses
import json
import types
import typing
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeVar

import numpy as np

from mlx_stella.config import is_positive
from mlx_stella.errors import ConfigError, StellaWarning

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

# Bounds keep an untrusted config from asking for more than any machine has.
Size = Annotated[int, range(1, 2**24)]
Count = Annotated[int, range(0, 2**24)]
Layers = Annotated[int, range(1, 1025)]
Positive = Annotated[float, "positive"]

# Keys of config.json that do not touch an embedding: training, generation, bookkeeping.
INERT = frozenset(
    """
    _attn_implementation _attn_implementation_autoset _name_or_path add_cross_attention
    add_eos add_pad_token architectures attention_dropout attention_probs_dropout_prob auto_map
    bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward classifier_activation
    classifier_bias classifier_dropout classifier_pooling cls_token_id
    cross_attention_hidden_size decoder_bias decoder_start_token_id deterministic_flash_attn
    directionality diversity_penalty do_sample dtype early_stopping embedding_dropout
    encoder_no_repeat_ngram_size eos_token_id
    exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id
    gradient_checkpointing hidden_dropout_prob id2label initializer_cutoff_factor
    initializer_range is_encoder_decoder label2id length_penalty mask_type max_length
    max_window_layers min_length mlp_dropout model_type no_repeat_ngram_size
    num_beam_groups num_beams num_return_sequences output_attentions output_hidden_states
    output_past output_scores pad_token_id pooler_fc_size pooler_num_attention_heads
    pooler_num_fc_layers
    pooler_size_per_head pooler_type prefix problem_type pruned_heads reference_compile
    remove_invalid_values repad_logits_with_grad repetition_penalty return_dict
    return_dict_in_generate sep_token_id sparse_pred_ignore_index sparse_prediction suppress_tokens
    task_specific_params temperature tf_legacy_loss tie_encoder_decoder tie_word_embeddings
    tokenizer_class top_k top_p torch_dtype torchscript transformers_version typical_p
    use_bfloat16 use_cache
    """.split()
)


def parse(cls: type[T], data: Mapping[str, Any], file: Path) -> T:
    """Build a frozen dataclass from a JSON object, checking every field.

    Raises:
        ConfigError: keys are missing or hold values that are not implemented; all are named.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    known = {field.name for field in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    faults: list[str] = []
    for field in dataclasses.fields(cls):
        if field.name in data:
            value = data[field.name]
            if fault := _fault(value, hints[field.name]):
                faults.append(f"{field.name} = {json.dumps(value)} {fault}")
            values[field.name] = value
        elif field.default is dataclasses.MISSING:
            faults.append(f"{field.name} is missing")
    if faults:
        raise ConfigError("; ".join(faults), where=file, remedy="use a checkpoint as published")
    unknown = sorted(set(data) - known - INERT)
    if unknown:
        warnings.warn(
            f"{file}: ignored keys that are not known here: {', '.join(unknown)}",
            StellaWarning,
            stacklevel=2,
        )
    return cls(**values)


def _fault(value: Any, hint: Any) -> str | None:
    """What is wrong with a value for an annotation, or None."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        options = typing.get_args(hint)
        if any(value == option and type(value) is type(option) for option in options):
            return None
        return f"is not implemented (only {', '.join(json.dumps(o) for o in options)})"
    if origin in (types.UnionType, typing.Union):
        faults = [_fault(value, option) for option in typing.get_args(hint)]
        return None if None in faults else faults[0]
    if origin is list and isinstance(value, list):
        (kind,) = typing.get_args(hint)
        return next((fault for item in value if (fault := _fault(item, kind))), None)
    if hint == Positive:
        return None if is_positive(value) else "should be a positive number"
    if origin is Annotated:
        allowed = hint.__metadata__[0]
        if type(value) is int and value in allowed:
            return None
        return f"should be a whole number from {allowed.start} to {allowed.stop - 1}"
    expected = origin or hint
    return None if isinstance(value, expected) else f"should be a {expected.__name__}"


@dataclass(frozen=True)
class BackboneArgs:
    """What every architecture's ``ModelArgs`` offers the rest of the package."""

    eos_as_text: ClassVar[bool] = False
    """The reference appends the EOS token to the text, before truncation (NV-Embed)."""
    masks_prompt: ClassVar[bool] = False
    """The reference keeps the prompt out of the pooling, whatever 1_Pooling says (NV-Embed)."""
    default_pooling: ClassVar[str | None] = None
    """Pooling of repositories without modules.json; None where guessing would be wrong."""
    adds_to_scores: ClassVar[bool] = False
    """Attention is given a number for each of its scores, an array as large as they are (MPNet)."""
    prompts: ClassVar[Mapping[str, str]] = {}
    """Prompts of the family, for repositories that ship none."""

    if TYPE_CHECKING:  # each has them, as a field or computed; here a property would be a default

        @property
        def hidden_size(self) -> int: ...
        @property
        def intermediate_size(self) -> int: ...
        @property
        def max_position_embeddings(self) -> int: ...
        @property
        def num_attention_heads(self) -> int: ...
        @property
        def num_hidden_layers(self) -> int: ...
        @property
        def vocab_size(self) -> int: ...

    @property
    def sides(self) -> dict[str, int]:
        """Sizes by their names that some tensor of the checkpoint has as a side, or more of it."""
        return {
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "vocab_size": self.vocab_size,
        }

    @property
    def layer_width(self) -> int:
        """Numbers for a token in the widest array of a layer."""
        return self.intermediate_size

    @property
    def max_positions(self) -> int:
        """Tokens that a text may have."""
        return self.max_position_embeddings

    @property
    def summary(self) -> str:
        """A line for people: the architecture and its sizes."""
        name = type(self).__module__.rsplit(".", 1)[-1]
        return f"{name}, {self.num_hidden_layers} layers, hidden size {self.hidden_size}"

    @classmethod
    def from_config(cls, config: Mapping[str, Any], file: Path) -> Self:
        """Parse config.json; architectures with nested or renamed keys override this."""
        head_dim(config, file)
        return parse(cls, config, file)


_ROPE_KINDS = ("rope_theta", "rope_type", "type")


@dataclass(frozen=True)
class Llama3Args:
    """How Llama 3.1 stretches its rotary positions: slow pairs by a factor, fast ones not at all.

    A pair is slow if it turns less than ``low_freq_factor`` times in the length trained with, fast
    from ``high_freq_factor`` times on; between the two it is both, by shares.
    """

    factor: Positive
    high_freq_factor: Positive
    low_freq_factor: Positive
    original_max_position_embeddings: Size


@dataclass(frozen=True)
class RopeArgs:
    """Rotary angles ``position * theta**(-2i/E) / divisor`` for pair i of a head of size E.

    Those of Llama 3.1 are stretched besides.
    """

    theta: float
    divisor: float = 1.0
    llama3: Llama3Args | None = None

    def frequencies(self, head_dim: int) -> np.ndarray:
        """Angles by position, (E / 2,) float64."""
        found: np.ndarray = self.theta ** (-np.arange(0, head_dim, 2) / head_dim) / self.divisor
        if (scaling := self.llama3) is None:
            return found
        turns = scaling.original_max_position_embeddings * found / (2 * np.pi)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        share = np.clip((turns - low) / (high - low), 0.0, 1.0)
        return share * found + (1.0 - share) * found / scaling.factor

    @classmethod
    def from_config(cls, config: Mapping[str, Any], file: Path, head_dim: int) -> Self:
        """Read either spelling of the rotary settings, for heads of this size.

        Older configs have ``rope_theta`` and ``rope_scaling``; transformers 5 writes
        ``rope_parameters``. "ntk" is the NTK-aware scaling of GTE's modeling.py
        (https://kexue.fm/archives/9706, eq. 8): theta times factor, angles divided by
        factor**(2/E). The GTE port in transformers spells the same thing as "linear".

        Raises:
            ConfigError: theta is missing, or the kind of scaling is not implemented.
        """
        tables = [config[key] for key in ("rope_parameters", "rope_scaling") if config.get(key)]
        scaling = tables[0] if tables else {}
        if len(tables) > 1 or not isinstance(scaling, dict):
            raise ConfigError(
                "rope_parameters and rope_scaling are both given, or are not objects",
                where=file,
                remedy="use a checkpoint as published",
            )
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        known = {"factor", *_ROPE_KINDS}
        if kind == "llama3":
            known |= {field.name for field in dataclasses.fields(Llama3Args)}
        unknown = [key for key in scaling if key not in known and scaling[key] is not None]
        if unknown:
            raise ConfigError(
                f"{', '.join(unknown)} in the rope settings is not implemented",
                where=file,
                remedy="use a checkpoint as published",
            )
        theta = scaling.get("rope_theta", config.get("rope_theta"))
        factor = scaling.get("factor", 1.0)
        if not is_positive(theta) or not is_positive(factor):
            raise ConfigError(
                f"rope_theta {theta} or its factor {factor} is no positive number",
                where=file,
                remedy="use a checkpoint as published",
            )
        match kind:
            case "default":
                return cls(float(theta))
            case "linear":
                return cls(float(theta), float(factor))
            case "ntk":
                return cls(float(theta) * factor, factor ** (2 / head_dim))
            case "llama3":
                own = {key: value for key, value in scaling.items() if key not in _ROPE_KINDS}
                llama3 = parse(Llama3Args, own, file)
                if llama3.high_freq_factor <= llama3.low_freq_factor:
                    raise ConfigError(
                        f"high_freq_factor {llama3.high_freq_factor} is not above the low one",
                        where=file,
                        remedy="use a checkpoint as published",
                    )
                return cls(float(theta), llama3=llama3)
        raise ConfigError(
            f"rope type {kind!r} is not implemented (default, linear, ntk, llama3)",
            where=file,
            remedy="use a checkpoint as published",
        )


_ROPE_KEYS = ("rope_theta", "rope_scaling", "rope_parameters")


def parse_rotary(
    cls: type[T], config: Mapping[str, Any], file: Path, handled: tuple[str, ...] = ()
) -> T:
    """:func:`parse` for a model with rotary positions; its field ``rope`` comes from several keys.

    A field ``head_dim`` is computed where the config has none. ``handled`` names keys that the
    caller has dealt with. Errors are those of parse and RopeArgs.
    """
    has_own = any(field.name == "head_dim" for field in dataclasses.fields(cls))
    size = rotary_head_dim(config, file, has_own)
    own = {key: value for key, value in config.items() if key not in (*_ROPE_KEYS, *handled)}
    own |= {"head_dim": size} if has_own else {}
    return parse(cls, own | {"rope": RopeArgs.from_config(config, file, size)}, file)


def rotary_head_dim(config: Mapping[str, Any], file: Path, has_own: bool = False) -> int:
    """:func:`head_dim`, where an odd one is refused."""
    size = head_dim(config, file, has_own)
    if size % 2:
        raise ConfigError(
            f"heads of {size}, which rotary positions cannot pair",
            where=file,
            remedy="download it again",
        )
    return size


def head_dim(config: Mapping[str, Any], file: Path, has_own: bool = False) -> int:
    """E, the size of an attention head: hidden_size / num_attention_heads.

    With ``has_own`` it is what the key head_dim says, if it is there.

    Raises:
        ConfigError: the sizes are missing, not positive, or do not divide.
    """
    hidden_size: Any = config.get("hidden_size")  # whatever JSON has, until it is checked
    heads: Any = config.get("num_attention_heads")
    kv_heads: Any = config.get("num_key_value_heads", heads)
    own: Any = config.get("head_dim") if has_own else None
    sizes = (hidden_size, heads, kv_heads)  # before a size is divided by another
    if (
        any(type(size) is not int or size < 1 for size in sizes)
        or (own is None and hidden_size % heads)
        or heads % kv_heads
    ):
        raise ConfigError(
            f"hidden_size {hidden_size}, num_attention_heads {heads} and num_key_value_heads "
            f"{kv_heads} do not fit together",
            where=file,
            remedy="download it again",
        )
    if own is None:
        return int(hidden_size // heads)
    if type(own) is not int or own not in range(1, 2**16):
        raise ConfigError(f"head_dim {own!r} is no size", where=file, remedy="download it again")
    return own
