"""XLM-RoBERTa: bge-m3, multilingual-e5-base and -large, snowflake-arctic-embed-l-v2.0, puff.

Reference: transformers' XLMRobertaModel (modeling_xlm_roberta.py); Conneau et al. 2019,
https://arxiv.org/abs/1911.02116. A BERT but for its positions: they begin behind the id of the
padding token, so that a table of 514 rows serves 512 tokens. LayerNorm eps 1e-5, one token type.

A plain model's tensors have no prefix; a sequence classifier's have ``roberta.``, and its
classifier is dropped like the pooler.
"""

from dataclasses import dataclass

import mlx.core as mx

from mlx_stella.models import bert
from mlx_stella.models.args import Count
from mlx_stella.models.layers import positions_behind

RENAMES = {
    "roberta.": "",
    "pooler.": None,
    "classifier.": None,
    "lm_head.": None,
    "embeddings.position_ids": None,  # an integer buffer of older exports
}
FUSED = bert.FUSED


@dataclass(frozen=True)
class ModelArgs(bert.ModelArgs):
    pad_token_id: Count = 1

    @property
    def max_positions(self) -> int:
        return self.max_position_embeddings - self.pad_token_id - 1


class Embeddings(bert.Embeddings):
    def __init__(self, args: ModelArgs):
        super().__init__(args)
        self._pad_token_id = args.pad_token_id

    def __call__(self, input_ids: mx.array) -> mx.array:
        positions = self.position_embeddings(positions_behind(self._pad_token_id, input_ids))
        constant = self.token_type_embeddings(mx.array(0))
        return self.LayerNorm(self.word_embeddings(input_ids) + positions + constant)


class Model(bert.Model):
    """XLMRobertaModel without its pooler."""

    def __init__(self, args: ModelArgs):
        super().__init__(args)
        self.embeddings = Embeddings(args)
