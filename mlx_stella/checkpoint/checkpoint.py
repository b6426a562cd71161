"""One local directory, opened and typed: backbone, pooling, Dense heads, prompts, lengths.

A checkpoint is a sentence-transformers repository: modules.json lists Transformer, Pooling, Dense
and Normalize with a folder each. Opening reads JSON files and tensor headers only; weights are
loaded by :meth:`Checkpoint.load_backbone` and :meth:`Head.load`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlx_stella.checkpoint import modules
from mlx_stella.checkpoint.catalog import Entry
from mlx_stella.checkpoint.modules import Head
from mlx_stella.checkpoint.prompts import Prompts
from mlx_stella.checkpoint.tensors import TensorFiles, find_tensors
from mlx_stella.checkpoint.tokenization import Tokenizer
from mlx_stella.checkpoint.weights import DTYPES, Assembly, assemblies, fill, fill_lazily
from mlx_stella.config import is_positive, read_object
from mlx_stella.errors import ConfigError, WeightsError
from mlx_stella.models import formats
from mlx_stella.models.architectures import Architecture, architecture
from mlx_stella.models.args import BackboneArgs
from mlx_stella.models.formats import Format
from mlx_stella.models.heads import PoolingMode
from mlx_stella.models.layers import Backbone
from mlx_stella.models.quantized import stays_packed

_USUAL_LENGTH = 512  # what most models of this kind take; NV-Embed's 32,768 are rarely used


@dataclass(frozen=True)
class Checkpoint:
    """A model as its directory describes it.

    Attributes:
        directory: where it lies; ``backbone_directory``: where its backbone and tokenizer lie.
        args: the backbone's settings; ``architecture`` is the code for them.
        files: the backbone's tensors.
        stated: how config.json says they are quantized.
        pooling: how tokens become one vector.
        masks_prompt: the prompt's tokens are attended to but not pooled.
        heads: Dense heads by size.
        default_dim: size of the vectors modules.json describes.
        normalizes: modules.json ends in Normalize.
        prompts: named prefixes.
        max_seq_length: tokens per text by default; ``max_positions``: at most.
        similarity: "cosine" or "dot".
        prefix_sizes: how many of a vector's numbers it was trained to be cut to.
        norms_before_cut: a LayerNorm without weights goes before such a cut.
        absent_dims: sizes that its card names, and for which there are no weights.
    """

    directory: Path
    backbone_directory: Path
    args: BackboneArgs
    architecture: Architecture
    files: TensorFiles
    stated: formats.Stated
    tokenizer_config: Mapping[str, Any]
    lower_case: bool
    pooling: PoolingMode
    masks_prompt: bool
    heads: Mapping[int, Head]
    default_dim: int
    normalizes: bool
    prompts: Prompts
    max_seq_length: int
    max_positions: int
    similarity: str
    prefix_sizes: Sequence[int]
    norms_before_cut: bool
    absent_dims: tuple[int, ...]

    @property
    def dims(self) -> tuple[int, ...]:
        """The sizes a vector can have, ascending."""
        return tuple(sorted({*self.heads, self.default_dim}))

    @cached_property
    def assemblies(self) -> list[Assembly]:
        """What each parameter of the backbone is made of; headers are read, weights are not.

        Raises:
            WeightsError: the tensors do not fit the config; all faults are named.
        """
        return self._assemblies(self._empty_model())

    def _empty_model(self) -> Backbone:
        """The model without its weights: MLX computes nothing yet.

        Raises:
            WeightsError: config.json asks for more than the files hold.
        """
        if asked := self._too_large():
            raise WeightsError(
                f"asks for {asked}",
                where=self.backbone_directory / "config.json",
                remedy="download it again, whole",
            )
        return self.architecture.model(self.args)

    def _too_large(self) -> str | None:
        """What no model of these files has, told before one is made of it.

        A layer has several tensors, and a size is a side of one.
        """
        shapes = [tensor.shape for tensor in self.files.tensors.values()]
        if len(shapes) < self.args.num_hidden_layers:
            return f"{self.args.num_hidden_layers} layers, and there are {len(shapes)} tensors"
        longest = max((side for shape in shapes if 0 not in shape for side in shape), default=0)
        sides = [f"{name} {size}" for name, size in self.args.sides.items() if size > longest]
        return f"{', '.join(sides)}, and no tensor has a side beyond {longest}" if sides else None

    def _assemblies(self, model: Backbone) -> list[Assembly]:
        folds, outline = self.architecture.folded(self.args), self.files.outline()
        where = self.files.paths[0] if len(self.files.paths) == 1 else self.backbone_directory
        return assemblies(model, outline, self.architecture, folds, self.stated, where)

    @property
    def parameters(self) -> int:
        """Numbers in the backbone, as it is loaded."""
        return sum(math.prod(shape) for shape, _ in self._layout())

    @property
    def is_quantized(self) -> bool:
        return any(name.endswith(".scales") for name in self.files.tensors)

    def memory_bytes(self, dtype: str) -> int:
        """Bytes of the backbone's weights and the default head once loaded.

        Matrices take dtype, vectors and heads float32; quantized matrices are as they will be
        held on the default device.
        """
        size = 4 if dtype == "float32" else 2
        head = self.heads.get(self.default_dim)
        total = head.size_bytes if head else 0
        for shape, held in self._layout():
            if held is not None and stays_packed():
                total += held.size_bytes(shape, size)
            else:
                total += math.prod(shape) * (size if len(shape) >= 2 else 4)
        return total

    def _layout(self) -> list[tuple[tuple[int, ...], Format | None]]:
        """Shape and format of each parameter."""
        return [(assembly.shape, assembly.format) for assembly in self.assemblies]

    @property
    def usual_length(self) -> int:
        """Tokens of the longest text that memory is set aside for; most are shorter."""
        return min(self.max_seq_length, _USUAL_LENGTH)

    def load_tokenizer(self) -> Tokenizer:
        file, vocabulary = (self.backbone_directory / n for n in ("tokenizer.json", "vocab.txt"))
        return Tokenizer(
            vocabulary if vocabulary.exists() and not file.exists() else file,
            self.tokenizer_config,
            eos_as_text=self.args.eos_as_text,
            lower_case=self.lower_case,
        )

    def load_backbone(self, dtype: str) -> Backbone:
        """The backbone with its weights, matrices in ``dtype`` ("float16", ...), evaluated.

        Raises:
            WeightsError: the tensors do not fit the config, or are not finite; all are named.
        """
        model, arrays = self._empty_model(), self.files.load()
        where = self.files.paths[0] if len(self.files.paths) == 1 else self.backbone_directory
        fill(model, self._assemblies(model), arrays, DTYPES[dtype], where, stays_packed())
        return model

    def lazy_backbone(self) -> Backbone:
        """The backbone with weights that are read when first used, float32 and expanded."""
        model, arrays = self._empty_model(), self.files.load()
        fill_lazily(model, self._assemblies(model), arrays)
        return model


def open_checkpoint(directory: Path, entry: Entry | None = None) -> Checkpoint:
    """Read and check everything but the weights.

    Args:
        directory: a checkpoint as downloaded.
        entry: what the catalogue knows of the model beside its files. Prompts of it are added
            where the repository has none of that name.

    Raises:
        ConfigError: a file is missing or malformed, or asks for what is not implemented.
        WeightsError: tensors are missing or corrupt.
    """
    listed = modules.read_modules(directory)
    backbone = listed.transformer
    config_file = backbone / "config.json"
    config = read_object(config_file)
    code = architecture(config, config_file)
    own = {k: v for k, v in config.items() if k not in ("quantization", "quantization_config")}
    args = code.args.from_config(own, config_file)

    pooling, include_prompt = modules.read_pooling(directory, listed.pooling, args)
    heads, default_head = modules.read_heads(listed.dense, args.hidden_size)
    tokenizer_config = _read_optional(backbone / "tokenizer_config.json")
    text_config = _read_optional(backbone / "sentence_bert_config.json")
    settings_file = directory / "config_sentence_transformers.json"
    settings = _read_optional(settings_file)

    if tokenizer_config.get("truncation_side", "right") != "right":
        raise ConfigError(
            "truncation on the left is not implemented", where=backbone / "tokenizer_config.json"
        )
    prompts = {**args.prompts, **(entry.prompts if entry else {})}
    max_positions = args.max_positions
    max_seq_length = text_config.get("max_seq_length")
    if max_seq_length is None:
        model_max_length = tokenizer_config.get("model_max_length")
        max_seq_length = model_max_length if is_positive(model_max_length) else max_positions
    elif type(max_seq_length) is not int or max_seq_length < 1:
        raise ConfigError(
            f"max_seq_length = {max_seq_length!r} is no positive whole number",
            where=backbone / "sentence_bert_config.json",
            remedy="download it again",
        )
    return Checkpoint(
        directory=directory,
        backbone_directory=backbone,
        args=args,
        architecture=code,
        files=find_tensors(backbone),
        stated=formats.read(config, config_file),
        tokenizer_config=tokenizer_config,
        lower_case=text_config.get("do_lower_case") is True,
        pooling=pooling,
        masks_prompt=args.masks_prompt or not include_prompt,
        heads=heads,
        default_dim=args.hidden_size if default_head is None else default_head,
        normalizes=listed.normalizes,
        prompts=modules.read_prompts(settings, settings_file, prompts),
        max_seq_length=int(min(max_seq_length, max_positions)),
        max_positions=max_positions,
        similarity=modules.read_similarity(settings, settings_file),
        prefix_sizes=entry.prefix_sizes if entry else (),
        norms_before_cut=entry is not None and entry.norms_before_cut,
        absent_dims=entry.absent_dims if entry else (),
    )


def _read_optional(path: Path) -> dict[str, Any]:
    return read_object(path) if path.exists() else {}
