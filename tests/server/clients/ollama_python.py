"""The ollama package."""

import json
import sys

import ollama

asked = json.load(sys.stdin)
client = ollama.Client(host=asked["url"])
told = {
    "plain": client.embed(asked["model"], asked["texts"])["embeddings"],
    "small": client.embed(asked["model"], asked["texts"], dimensions=asked["dim"])["embeddings"],
    "suffix": client.embed(asked["model"] + ":query", asked["texts"])["embeddings"],
    "latest": client.embed(asked["model"] + ":latest", asked["texts"])["embeddings"],
    "raw": [client.embeddings(asked["model"], text)["embedding"] for text in asked["texts"]],
    "models": [model.model for model in client.list().models],
    "running": [model.model for model in client.ps().models],
    "capabilities": client.show(asked["model"]).capabilities,
    "refused": {},
}
try:
    client.embed("nomic-embed-text", "x")
except ollama.ResponseError as error:
    told["refused"]["model"] = [error.status_code, error.error]
json.dump(told, sys.stdout)
