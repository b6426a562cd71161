"""What many write for themselves: sentence-transformers behind FastAPI, for bench_serve.py.

    $ python scripts/peer_server.py MODEL_DIR PORT

Answers POST /v1/embeddings as OpenAI does. It needs an environment with fastapi, uvicorn and
sentence-transformers. Requests are computed one after another, by all cores.
"""

import base64
import os
import sys
import threading
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from sentence_transformers import SentenceTransformer


def main() -> None:
    directory, port = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(os.cpu_count() or 1)
    model, one_at_a_time = SentenceTransformer(directory, device="cpu").float(), threading.Lock()
    app = FastAPI()

    @app.post("/v1/embeddings")
    def embeddings(body: dict[str, Any]) -> dict[str, Any]:
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        with one_at_a_time:
            vectors = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        if body.get("encoding_format") == "base64":
            told = [base64.b64encode(vector.tobytes()).decode() for vector in vectors]
        else:
            told = vectors.tolist()
        return {"data": [{"index": row, "embedding": vector} for row, vector in enumerate(told)]}

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
