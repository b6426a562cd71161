"""litellm, to a server that speaks as OpenAI."""

import json
import sys

import litellm

asked = json.load(sys.stdin)


def embed(model: str, **options):
    answer = litellm.embedding(
        f"openai/{model}",
        asked["texts"],
        api_base=f"{asked['url']}/v1",
        api_key="none",
        encoding_format="float",
        **options,
    )
    return [entry["embedding"] for entry in answer.data]


json.dump(
    {
        "plain": embed(asked["model"]),
        "suffix": embed(asked["model"] + ":query"),
        "query": embed(asked["model"], input_type="query"),
    },
    sys.stdout,
)
