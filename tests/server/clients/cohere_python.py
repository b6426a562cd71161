"""The cohere package, whose second version of embed asks whether a text is a query."""

import json
import sys

import cohere
from cohere.core.api_error import ApiError

asked = json.load(sys.stdin)
client = cohere.ClientV2(api_key="none", base_url=asked["url"])


def embed(input_type: str, **options):
    answer = client.embed(
        texts=asked["texts"],
        input_type=input_type,
        embedding_types=["float"],
        **{"model": asked["model"]} | options,
    )
    return answer.embeddings.float_


told = {
    "plain": embed("search_document"),
    "query": embed("search_query"),
    "small": embed("search_document", output_dimension=asked["dim"]),
    "refused": {},
}
try:
    embed("search_query", model="embed-v4.0")
except ApiError as error:
    told["refused"]["model"] = [error.status_code, error.body["message"]]
json.dump(told, sys.stdout)
