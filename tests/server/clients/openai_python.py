"""The openai package, as its users call it; it asks for base64 where nothing is said."""

import json
import sys

import openai

asked = json.load(sys.stdin)
client = openai.OpenAI(base_url=f"{asked['url']}/v1", api_key="none", max_retries=0)


def embed(**options):
    answer = client.embeddings.create(input=asked["texts"], **{"model": asked["model"]} | options)
    return [entry.embedding for entry in answer.data]


told = {
    "plain": embed(),
    "floats": embed(encoding_format="float"),
    "small": embed(dimensions=asked["dim"]),
    "query": embed(extra_body={"input_type": "query"}),
    "suffix": embed(model=asked["model"] + ":query"),
    "models": [model.id for model in client.models.list()],
    "model": client.models.retrieve(asked["model"]).id,
    "refused": {},
}
for name, options in {
    "model": {"model": "text-embedding-3-small"},
    "dimensions": {"dimensions": 17},
    "input_type": {"extra_body": {"input_type": "nonsense"}},
}.items():
    try:
        embed(**options)
    except openai.APIStatusError as error:
        told["refused"][name] = [error.status_code, error.body["message"]]
try:
    client.embeddings.create(model=asked["model"], input=[[1, 2, 3]])
except openai.BadRequestError as error:
    told["refused"]["tokens"] = [error.status_code, error.body["message"]]
json.dump(told, sys.stdout)
