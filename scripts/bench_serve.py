"""What a server of one model does beside the model in a process of one's own.

    $ python scripts/bench_serve.py all-minilm-l6-v2 --texts corpus.jsonl

Prints a line a measurement: 64 clients of single texts beside encode_stream, a question while an
upload runs, a thousand texts at once, a large answer beside the model's time, memory over many
requests. Ratios come from rounds that alternate, since a machine is never quiet. Texts are 20 to 60
successive words of the corpus, drawn with a fixed seed; no text is sent twice, as the server
remembers single ones. Clients write HTTP by hand, to take little of the processor.
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

import mlx_stella  # before MLX: it looks for a fast BLAS
from mlx_stella.cli.texts import read_records

CLIENTS = 64
ROUNDS = 3
QUESTIONS = 50


def drawn(corpus: Sequence[str]) -> Iterator[str]:
    """Texts without end, none twice."""
    chance = random.Random(0)
    words = [word for text in corpus for word in text.split()]
    for number in itertools.count():
        start = chance.randrange(len(words) - 60)
        yield f"{number} " + " ".join(words[start : start + chance.randint(20, 60)])


class Client:
    """One connection, kept."""

    def __init__(self, port: int, model: str):
        self._port, self._model = port, model

    async def open(self) -> "Client":
        streams = await asyncio.open_connection("127.0.0.1", self._port, limit=2**27)
        self._reader, self._writer = streams
        return self

    async def embed(self, texts: str | list[str], **fields: object) -> bytes:
        body = json.dumps({"model": self._model, "input": texts, **fields}).encode()
        head = (
            "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200"), answer
        length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return await self._reader.readexactly(length)

    def close(self) -> None:
        self._writer.close()


async def flood(clients: Sequence[Client], texts: Sequence[str]) -> float:
    """Texts a second that all clients get, one after another each."""
    waiting = iter(texts)

    async def ask(client: Client) -> None:
        for text in waiting:
            await client.embed(text, encoding_format="base64")

    start = time.perf_counter()
    await asyncio.gather(*map(ask, clients))
    return len(texts) / (time.perf_counter() - start)


async def seconds(work: Awaitable[object]) -> float:
    start = time.perf_counter()
    await work
    return time.perf_counter() - start


def in_process(model: mlx_stella.Encoder, texts: Sequence[str]) -> float:
    start = time.perf_counter()
    for _ in model.encode_stream(texts):
        pass
    return len(texts) / (time.perf_counter() - start)


def resident_mb(process: int) -> float:
    kilobytes = subprocess.check_output(["ps", "-o", "rss=", "-p", str(process)])
    return int(kilobytes) / 1024


async def single_texts(connect, model, texts, count: int) -> None:
    pairs = []
    for _ in range(ROUNDS):
        alone = in_process(model, list(itertools.islice(texts, count)))
        clients = [await connect() for _ in range(CLIENTS)]
        served = await flood(clients, list(itertools.islice(texts, count)))
        pairs.append((alone, served))
        for client in clients:
            client.close()
    alone, served = (median(side) for side in zip(*pairs, strict=True))
    ratio = median(served / alone for alone, served in pairs)
    print(
        f"{CLIENTS} clients: {served:,.0f} texts/s, encode_stream {alone:,.0f}, ratio {ratio:.2f}"
    )


async def question_during_upload(connect, texts, count: int) -> None:
    asking = await connect()
    quiet = sorted([await seconds(asking.embed(next(texts))) for _ in range(QUESTIONS)])
    batch = median(
        [await seconds(asking.embed(list(itertools.islice(texts, 20)))) for _ in range(9)]
    )

    uploading = await connect()

    async def upload() -> None:
        for _ in range(0, count, 1000):
            await uploading.embed(list(itertools.islice(texts, 1000)), priority="bulk")

    running, busy = asyncio.create_task(upload()), []
    while not running.done():
        busy.append(await seconds(asking.embed(next(texts))))
        await asyncio.sleep(0.02)
    await running
    busy.sort()
    print(
        f"a question: alone {1000 * quiet[len(quiet) // 2]:.0f} ms (p99 "
        f"{1000 * quiet[int(0.99 * len(quiet))]:.0f}), during an upload of {count:,} "
        f"{1000 * busy[len(busy) // 2]:.0f} ms (p99 {1000 * busy[int(0.99 * len(busy))]:.0f}, "
        f"{len(busy)} questions); twenty texts alone {1000 * batch:.0f} ms"
    )


async def thousand_at_once(connect, texts) -> None:
    clients = [await connect() for _ in range(1000)]
    start = time.perf_counter()
    answers = await asyncio.gather(*(client.embed(next(texts)) for client in clients))
    took = time.perf_counter() - start
    for client in clients:
        client.close()
    print(f"1,000 at once: {len(answers):,} answered in {took:.1f} s")


async def memory(connect, texts, process: int, count: int) -> None:
    clients = [await connect() for _ in range(CLIENTS)]
    await flood(clients, list(itertools.islice(texts, 1000)))
    first = resident_mb(process)
    await flood(clients, list(itertools.islice(texts, count)))
    last = resident_mb(process)
    print(f"memory: {first:.0f} MB after 1,000 requests, {last:.0f} after {count:,} more")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


async def run(arguments: argparse.Namespace, port: int, process: int) -> None:
    corpus = [record.text for record in read_records(None, arguments.texts, None)]
    texts = drawn(corpus)

    async def connect() -> Client:
        name = os.path.basename(arguments.model)  # of a directory, as the server lists it
        is_directory = os.path.isdir(arguments.model)
        return await Client(port, name if is_directory else arguments.model).open()

    for _ in range(600):
        try:
            await (await connect()).embed("x")
            break
        except OSError:
            await asyncio.sleep(0.1)
    wanted: dict[str, Callable[[], Awaitable[None]]] = {
        "single": lambda: single_texts(
            connect, mlx_stella.load(arguments.model), texts, arguments.count
        ),
        "question": lambda: question_during_upload(connect, texts, arguments.upload),
        "thousand": lambda: thousand_at_once(connect, texts),
        "memory": lambda: memory(connect, texts, process, arguments.requests),
    }
    for name, measure in wanted.items():
        if not arguments.only or name in arguments.only:
            await measure()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--texts", required=True, help=".txt, or .jsonl with the field text")
    parser.add_argument("--count", type=int, default=2000, help="texts of a round")
    parser.add_argument("--upload", type=int, default=10_000, help="texts of the upload")
    parser.add_argument(
        "--requests", type=int, default=50_000, help="requests to watch memory over"
    )
    parser.add_argument("--only", action="append", help="single, question, thousand, memory")
    arguments = parser.parse_args()

    port = free_port()
    command = [sys.executable, "-m", "mlx_stella", "serve", "--model", arguments.model]
    uds = Path(f"/tmp/mlx-stella-bench-{os.getpid()}.sock")
    process = subprocess.Popen([*command, f"--port={port}", f"--uds={uds}"])
    try:
        asyncio.run(run(arguments, port, process.pid))
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
