"""langchain-openai and langchain-ollama."""

import asyncio
import json
import sys

from langchain_ollama import OllamaEmbeddings
from langchain_openai import OpenAIEmbeddings

asked = json.load(sys.stdin)
options = {"base_url": f"{asked['url']}/v1", "api_key": "none", "model": asked["model"]}
plain = OpenAIEmbeddings(**options, check_embedding_ctx_length=False)
query = OpenAIEmbeddings(
    **options | {"model": asked["model"] + ":query"}, check_embedding_ctx_length=False
)
ollama = OllamaEmbeddings(base_url=asked["url"], model=asked["model"])
json.dump(
    {
        "plain": plain.embed_documents(asked["texts"]),
        "later": asyncio.run(plain.aembed_documents(asked["texts"])),
        "suffix": [query.embed_query(text) for text in asked["texts"]],
        "ollama": ollama.embed_documents(asked["texts"]),
    },
    sys.stdout,
)
