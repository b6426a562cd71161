"""A model as the ``mteb`` package takes it, so that the tasks of its leaderboard run.

>>> import mteb
>>> from mlx_stella.mteb import MtebModel
>>> mteb.evaluate(MtebModel("stella-400m", dim=1024), mteb.get_tasks(["SciFact", "STS12"]))
"""

from pathlib import Path
from typing import Any

import numpy as np
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction

from mlx_stella import load
from mlx_stella.checkpoint import hub
from mlx_stella.checkpoint.origin import fingerprint, revision_of
from mlx_stella.encoding.settings import EncodeOptions
from mlx_stella.evaluation.mteb_prompts import options_for

__all__ = ["MtebModel"]


class MtebModel(AbsEncoder):
    """A model of this package behind mteb's ``EncoderProtocol``.

    Args:
        name: an alias, a Hub id or a directory, see ``load``.
        revision: a commit on the Hub.
        device: ignored; MLX chooses it.
        dim: size of the vectors; None for the model's default. dtype: see ``load``.
    """

    def __init__(
        self,
        name: str,
        revision: str | None = None,
        device: str | None = None,
        *,
        dim: int | None = None,
        dtype: str | None = None,
    ):
        self.model = load(name, revision=revision, dtype=dtype)
        self.dim = self.model.default_dim if dim is None else dim
        self.mteb_model_meta = self._describe(name)

    def encode(
        self, inputs: Any, *, task_metadata: Any, prompt_type: Any = None, **_: Any
    ) -> np.ndarray:
        """Embed the texts of a task, with the prompt its authors used.

        Args:
            inputs: batches, each with a list "text".
            task_metadata: mteb's; prompt_type: query, document or None.

        Returns:
            float32 (N, dim), rows of unit length.
        """
        texts = [text for batch in inputs for text in batch["text"]]
        options: EncodeOptions = {"dim": self.dim}
        options |= options_for(
            self.model.checkpoint.prompts,
            task_metadata.name,
            task_metadata.type,
            prompt_type.value if prompt_type else None,
            lambda: self.get_instruction(task_metadata, prompt_type),
        )
        return self.model.encode(texts, **options)

    def _describe(self, name: str) -> ModelMeta:
        """What mteb files results under: it takes those of the same description from its cache."""
        checkpoint = self.model.checkpoint
        directory = checkpoint.directory
        return ModelMeta.create_empty(
            {
                "name": hub.resolve(directory).repo or f"mlx-stella/{Path(name).name}",
                "revision": revision_of(directory) or fingerprint(directory),
                "embed_dim": self.dim,
                "max_tokens": self.model.max_seq_length,
                "similarity_fn_name": ScoringFunction.COSINE,
                "use_instructions": checkpoint.prompts.takes_instructions,
                "experiment_kwargs": {"dim": self.dim, "dtype": self.model.dtype},
            }
        )
