"""What a server of one model does beside the model in a process of one's own.

    $ python scripts/bench_serve.py all-minilm-l6-v2 --texts corpus.jsonl

Prints a line a measurement: 64 clients of single texts beside encode_stream, a question while an
upload runs, a thousand texts at once, a large answer beside the model's time, memory over many
requests. Ratios come from rounds that alternate, since a machine is never quiet. Texts are 20 to 60
successive words of the corpus, drawn with a fixed seed; no text is sent twice, as the server
remembers single ones. Clients write HTTP by hand, to take little of the processor.

A peer is any server of OpenAI's protocol, by the command that starts it; it gets the same load, in
turns, once its vectors were seen to agree:

    --peer "sentence-transformers=st/bin/python scripts/peer_server.py {model} {port}"
    --peer "infinity=in/bin/infinity_emb v2 --model-id {model} --served-model-name {name} \\
            --port {port} --url-prefix /v1 --engine torch --device cpu --dtype float32"
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

import mlx_stella  # before MLX: it looks for a fast BLAS
from mlx_stella.checkpoint import hub
from mlx_stella.cli.texts import read_records

CLIENTS = 64
ROUNDS = 3
LARGEST_DIFFERENCE = 1e-3  # of a number in a vector of a peer's; float32 keeps within 1e-5
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


async def flood(clients: Sequence[Client], texts: Sequence[str]) -> tuple[float, list[float]]:
    """Texts a second that all clients get, one after another each; seconds of each, ascending."""
    waiting, took = iter(texts), []

    async def ask(client: Client) -> None:
        for text in waiting:
            took.append(await seconds(client.embed(text, encoding_format="base64")))

    start = time.perf_counter()
    await asyncio.gather(*map(ask, clients))
    return len(texts) / (time.perf_counter() - start), sorted(took)


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
        served, _ = await flood(clients, list(itertools.islice(texts, count)))
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


async def beside(connect, name: str, connect_peer, texts, count: int) -> None:
    """Texts a second and p99 of a peer and of this server, in turns."""
    text = next(texts)
    ours, theirs = [vector_of(await (await c()).embed(text)) for c in (connect, connect_peer)]
    difference = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    assert difference < LARGEST_DIFFERENCE, f"{name}: vectors differ by {difference}"
    rounds = []
    for _ in range(ROUNDS):
        for connect_one in (connect, connect_peer):
            clients = [await connect_one() for _ in range(CLIENTS)]
            speed, took = await flood(clients, list(itertools.islice(texts, count)))
            rounds.append((speed, took[int(0.99 * len(took))]))
            for client in clients:
                client.close()
    for who, own in (("mlx-stella", rounds[::2]), (name, rounds[1::2])):
        speed, p99 = (median(side) for side in zip(*own, strict=True))
        print(f"{CLIENTS} clients of {who}: {speed:,.0f} texts/s, p99 {1000 * p99:,.0f} ms")


def vector_of(answer: bytes) -> list[float]:
    return json.loads(answer)["data"][0]["embedding"]


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


async def large_answer(connect, port: int) -> None:
    """What 2,048 texts take beside tokenizing and the model, as the server counts it."""
    client, names = await connect(), ("request", "tokenize", "queue", "forward")

    def spent() -> list[float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        told = dict(line.split(" ") for line in lines if line.startswith("mlx_stella_"))
        return [float(told[f"mlx_stella_{name}_seconds_sum"]) for name in names]

    beside, size = [], 0
    for number in range(5):
        before = spent()
        answer = await client.embed([f"{number} {row}" for row in range(2048)])
        request, *others = (b - a for a, b in zip(before, spent(), strict=True))
        beside.append(request - sum(others))
        size = len(vector_of(answer))
    print(f"2,048 texts x {size} floats: {median(beside):.2f} s beside the model")


async def until_ready(connect) -> None:
    for _ in range(1800):
        try:
            await (await connect()).embed("x")
            return
        except OSError:
            await asyncio.sleep(0.1)


async def peers(arguments: argparse.Namespace, connect, texts) -> None:
    directory = hub.resolve(arguments.model).directory
    for named in arguments.peer or ():
        name, _, command = named.partition("=")
        port, known = free_port(), {"model": directory, "name": directory.name}
        process = subprocess.Popen(shlex.split(command.format(port=port, **known)))

        async def connect_peer(port: int = port) -> Client:
            return await Client(port, directory.name).open()

        try:
            await until_ready(connect_peer)
            await beside(connect, name, connect_peer, texts, arguments.count)
        finally:
            process.terminate()
            process.wait()


async def run(arguments: argparse.Namespace, port: int, process: int) -> None:
    corpus = [record.text for record in read_records(None, arguments.texts, None)]
    texts = drawn(corpus)

    async def connect() -> Client:
        name = os.path.basename(arguments.model)  # of a directory, as the server lists it
        is_directory = os.path.isdir(arguments.model)
        return await Client(port, name if is_directory else arguments.model).open()

    await until_ready(connect)
    wanted: dict[str, Callable[[], Awaitable[None]]] = {
        "single": lambda: single_texts(
            connect, mlx_stella.load(arguments.model), texts, arguments.count
        ),
        "question": lambda: question_during_upload(connect, texts, arguments.upload),
        "thousand": lambda: thousand_at_once(connect, texts),
        "answer": lambda: large_answer(connect, port),
        "memory": lambda: memory(connect, texts, process, arguments.requests),
        "peer": lambda: peers(arguments, connect, texts),
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
    parser.add_argument("--peer", action="append", metavar="NAME=COMMAND", help="see above")
    parser.add_argument(
        "--only", action="append", help="single, question, thousand, answer, memory, peer"
    )
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
