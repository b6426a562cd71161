"""LlamaIndex: the embedding for OpenAI, the one for what looks like it, and the one for Ollama."""

import json
import sys

from llama_index.embeddings.ollama import OllamaEmbedding
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.embeddings.openai_like import OpenAILikeEmbedding

asked = json.load(sys.stdin)
options = {"api_base": f"{asked['url']}/v1", "api_key": "none", "model_name": asked["model"]}
plain = OpenAIEmbedding(**options)
like = OpenAILikeEmbedding(**options)
query = OpenAILikeEmbedding(**options | {"model_name": asked["model"] + ":query"})
ollama = OllamaEmbedding(base_url=asked["url"], model_name=asked["model"])
json.dump(
    {
        "plain": plain.get_text_embedding_batch(asked["texts"]),
        "like": like.get_text_embedding_batch(asked["texts"]),
        "suffix": [query.get_query_embedding(text) for text in asked["texts"]],
        "ollama": ollama.get_text_embedding_batch(asked["texts"]),
    },
    sys.stdout,
)
