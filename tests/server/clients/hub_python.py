"""huggingface_hub's InferenceClient, which speaks as to text-embeddings-inference."""

import json
import sys

from huggingface_hub import InferenceClient

asked = json.load(sys.stdin)
client = InferenceClient(base_url=asked["url"])
json.dump(
    {
        "plain": client.feature_extraction(asked["texts"], normalize=True).tolist(),
        "query": client.feature_extraction(
            asked["texts"], normalize=True, prompt_name=asked["prompt_name"]
        ).tolist(),
        "similar": client.sentence_similarity(asked["texts"][0], asked["texts"][1:]),
    },
    sys.stdout,
)
