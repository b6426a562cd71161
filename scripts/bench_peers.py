"""Time mlx-stella beside sentence-transformers and mlx-embeddings: same texts, limits and run.

    $ python scripts/bench_peers.py MODEL_DIR --texts corpus.jsonl --limit 300 --rounds 3 \\
          --st-python st/bin/python --mlx-embeddings-python me/bin/python
    mlx-stella differs from sentence-transformers by 1.0e-06 (worst relative L2)
    mlx-embeddings differs from sentence-transformers by 1.2e-06 (worst relative L2)

    AMD EPYC, 2 cores, Linux
    300 texts, 23634 tokens (at most 256 each), 3 rounds

    engine                 texts/s     min-max  tokens/s  ours/it  peak MB  load s
    sentence-transformers     59.9   57.5-60.9      4721     1.03      848     4.8
    mlx-stella                61.6   60.6-61.9      4856     1.00      314     0.3
    mlx-embeddings             6.4     6.2-6.5       503     9.69      931     3.9

    whole process, 1 text  seconds     min-max            ours/it
    mlx-stella                0.50   0.45-0.50               1.00
    sentence-transformers     6.15   5.95-6.27              12.66
    ...

Each engine is a process in a Python environment of its own, which loads the model once and warms
up; then they take turns, so that whatever else the machine does falls on all. Before that their
vectors of the first 32 texts must agree. All compute in float32, on the device they choose. An
engine that has no interpreter, fails or disagrees is left out, and the table says why.
mlx-embeddings is GPL: it is only ever run, in that process, and never imported beside mlx-stella.
On Linux it is given the BLAS that mlx-stella has.

Texts are the lines of a .txt or the `text` fields of a BEIR corpus .jsonl; tokens are counted by
our tokenizer, after truncation. `ours/it` is the median over rounds of our speed by that of the
same round; `load s` runs from starting the interpreter to a model in memory; `peak MB` is resident
memory (on a Mac, a GPU's buffers may not be in it). `--plot` draws tokens/s against the length of
the texts, in fifths from the shortest to the longest, and resident memory over the whole run.
"""

import argparse
import ctypes
import importlib.util
import json
import math
import os
import platform
import re
import resource
import runpy
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import islice
from operator import truediv
from pathlib import Path
from statistics import median
from typing import BinaryIO

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = "sentence-transformers"  # where it runs, its vectors are the right ones
OURS = "mlx-stella"
COMPARED = 32  # texts whose vectors must agree
LARGEST_DIFFERENCE = 1e-3  # relative L2; float32 keeps within 1e-5, a fault does not
WARM_UP = 128  # texts encoded before the first round
COLD_STARTS = 3
LENGTH_GROUPS = 5  # of the plot of speed against length
MEMORY_INTERVAL_S = 0.5
COLD_REFERENCE = (
    "import sys; from sentence_transformers import SentenceTransformer; "
    "SentenceTransformer(sys.argv[1]).encode('hello')"
)
# No engine waits for the network, and MLX's float32 is float32 on every GPU, as torch's is.
ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1", "MLX_ENABLE_TF32": "0"}

# ---- the engines: a directory and a limit -> a function from texts to vectors, and the device ----


def load_sentence_transformers(model: str, max_length: int) -> tuple[Callable, str]:
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(model).float()
    encoder.max_seq_length = max_length
    # Not None, which would let it apply a model's default prompt unasked.
    options = {"prompt": "", "normalize_embeddings": True, "show_progress_bar": False}
    return lambda texts: encoder.encode(texts, **options), encoder.device.type


def load_mlx_stella(model: str, max_length: int) -> tuple[Callable, str]:
    import mlx_stella

    encoder = mlx_stella.load(model, dtype="float32")
    return lambda texts: encoder.encode(texts, max_length=max_length), mlx_device()


def load_mlx_embeddings(model: str, max_length: int) -> tuple[Callable, str]:
    import mlx.core as mx
    import mlx_embeddings
    import numpy as np

    network, tokenizer = mlx_embeddings.load(model)
    network.set_dtype(mx.float32)

    def encode(texts: list[str]) -> np.ndarray:
        vectors = []
        for start in range(0, len(texts), 32):  # sentence-transformers' batch size
            batch = texts[start : start + 32]
            output = mlx_embeddings.generate(network, tokenizer, batch, max_length=max_length)
            vectors.append(np.array(output.text_embeds))
        return np.concatenate(vectors)

    return encode, mlx_device()


def our_blas() -> str | None:
    """The library whose products MLX calls in the process of mlx-stella; None on a Mac."""
    from mlx_stella.machine import blas

    return blas._library._name if blas._library else None


def take_blas(path: str) -> None:
    """Give MLX the BLAS that mlx-stella has, before it is imported.

    With MLX's own it is 10 times slower, and the comparison would be one of BLAS libraries. One
    file of mlx-stella is run for it, alone, which knows neither the package nor MLX.
    """
    library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    if not hasattr(library, "cblas_sgemm"):  # scipy-openblas32 has names of its own
        aliases = runpy.run_path(str(ROOT / "mlx_stella/machine/aliases.py"))
        names = ("cblas_sgemm", "cblas_dgemm", "cblas_cgemm")
        address_of = aliases["address_of"]
        aliases["offer"]({name: address_of(library, f"scipy_{name}") for name in names})


def mlx_device() -> str:
    import mlx.core as mx

    return mx.default_device().type.name


# In the order of their turns; beside the loader, the packages whose versions matter.
ENGINES = {
    REFERENCE: (load_sentence_transformers, (REFERENCE, "torch", "transformers")),
    OURS: (load_mlx_stella, (OURS, "mlx", "tokenizers")),
    "mlx-embeddings": (load_mlx_embeddings, ("mlx-embeddings", "mlx", "transformers")),
}

# ---- a worker, seen from inside and from outside -------------------------------------------------


def work(name: str) -> None:
    """Load what stdin's first line says; for each further line, time one encode. JSON Lines."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to stdout, which must not end up among the replies
    setup = json.loads(sys.stdin.readline())
    if setup["blas"] is not None:
        take_blas(setup["blas"])
    load, packages = ENGINES[name]
    encode, device = load(setup["model"], setup["max_length"])
    reply = {"device": device, "versions": {package: version(package) for package in packages}}
    if name == OURS:
        reply["blas"] = our_blas()
    print(json.dumps(reply), file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        texts = [setup["texts"][row] for row in request["rows"]]
        start = time.perf_counter()
        vectors = encode(texts)
        seconds = time.perf_counter() - start
        # Linux counts KiB, and also the moment before exec: the parent is kept smaller than this.
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        compared = vectors[: request["vectors"]].tolist()
        reply = {"seconds": seconds, "peak_bytes": peak, "vectors": compared}
        print(json.dumps(reply), file=replies, flush=True)


class Worker:
    """An engine's process. ``row`` is what the results say of it."""

    def __init__(self, python: str, name: str, setup: dict):
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long-lived as the process
        start = time.perf_counter()
        self._process = subprocess.Popen(
            [python, __file__, "worker", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=ENVIRONMENT,
        )
        self._memory: list[tuple[float, int]] = []  # (time, resident bytes)
        threading.Thread(target=self._watch_memory, daemon=True).start()
        self.row = self.ask(setup)
        self.row |= {"load_s": time.perf_counter() - start, "seconds": []}
        self.row |= {"tokens_per_s_by_length": [], "memory": self._memory}
        rows = list(range(min(WARM_UP, len(setup["texts"]))))
        self.vectors = self.ask({"rows": rows, "vectors": COMPARED})["vectors"]

    def ask(self, request: dict) -> dict:
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            reply = self._process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        if not reply:
            status = self._process.wait()
            self._log.seek(0)
            words = self._log.read().strip().split("\n")
            raise ChildProcessError(words[-1] or f"exit status {status}")
        return json.loads(reply)

    def _watch_memory(self) -> None:
        command = ["ps", "-o", "rss=", "-p", str(self._process.pid)]
        while self._process.poll() is None:
            kilobytes = subprocess.run(command, capture_output=True, text=True).stdout.strip()
            if kilobytes:
                self._memory.append((time.time(), int(kilobytes) * 1024))
            time.sleep(MEMORY_INTERVAL_S)

    def stop(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def difference(vector: list[float], reference: list[float]) -> float:
    """Relative L2; infinite where sizes differ or something is not a number."""
    if len(vector) != len(reference) or not all(map(math.isfinite, vector)):
        return math.inf
    return math.dist(vector, reference) / math.hypot(*reference)


def start_workers(pythons: dict, setup: dict) -> tuple[dict[str, Worker], dict[str, str]]:
    """Workers that agree with the first of them, and why the other engines are left out."""
    workers, left_out = {}, {}
    setup["blas"] = None
    for name, python in pythons.items():
        try:
            if python is None:
                raise ValueError("no interpreter given")
            worker = Worker(python, name, setup)
            if workers:
                first, reference = next(iter(workers.items()))
                worst = max(map(difference, worker.vectors, reference.vectors))
                print(f"{name} differs from {first} by {worst:.1e} (worst relative L2)")
                if worst > LARGEST_DIFFERENCE:
                    worker.stop()
                    raise ValueError(f"not timed: its vectors differ by {worst:.1e}")
                worker.row["difference"] = worst
            workers[name] = worker
            setup["blas"] = worker.row.pop("blas", setup["blas"])
        except (OSError, ValueError) as error:
            if name == OURS:
                raise SystemExit(f"{OURS}: {error}") from None
            left_out[name] = str(error)
    return workers, left_out


# ---- the run -------------------------------------------------------------------------------------


def read_texts(path: Path, limit: int) -> list[str]:
    with path.open(encoding="utf-8", newline="\n") as file:
        lines = list(islice(file, limit))
    if path.suffix == ".jsonl":
        return [json.loads(line)["text"] for line in lines]
    return [line.removesuffix("\n") for line in lines]


def count_tokens(model: Path, texts: list[str], max_length: int) -> list[int]:
    from mlx_stella.checkpoint.checkpoint import open_checkpoint

    tokenizer = open_checkpoint(model).load_tokenizer()
    return [len(tokens.ids) for tokens in tokenizer.encode(texts, "", max_length)]


def time_by_length(workers: dict[str, Worker], lengths: list[int]) -> None:
    """Add to each row (mean tokens a text, tokens/s) for the texts from shortest to longest."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for group in range(LENGTH_GROUPS):
        bounds = (len(order) * k // LENGTH_GROUPS for k in (group, group + 1))
        if rows := order[slice(*bounds)]:
            tokens = sum(lengths[row] for row in rows)
            for worker in workers.values():
                seconds = worker.ask({"rows": rows, "vectors": 0})["seconds"]
                worker.row["tokens_per_s_by_length"].append((tokens / len(rows), tokens / seconds))


def time_cold_starts(commands: dict[str, list[str]]) -> dict[str, dict[str, list[float]]]:
    """Seconds that whole processes take, the commands in turns."""
    rows = {name: {"seconds": []} for name in commands}
    for name, command in list(commands.items()) * COLD_STARTS:
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)
        rows[name]["seconds"].append(time.perf_counter() - start)
    return rows


def machine() -> dict[str, object]:
    if sys.platform == "darwin":
        sysctl = ["sysctl", "-n", "machdep.cpu.brand_string"]
        cpu = subprocess.check_output(sysctl, text=True).strip()
    else:
        named = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        cpu = named[1] if named else platform.machine()  # ARM has no such line
    return {"cpu": cpu, "cores": os.cpu_count(), "os": platform.platform()}


def print_table(results: dict) -> None:
    print("\n{cpu}, {cores} cores, {os}".format(**results["machine"]))
    limits = "{texts} texts, {tokens} tokens (at most {max_length} each), {rounds} rounds\n"
    print(limits.format(**results))
    print("engine                 texts/s     min-max  tokens/s  ours/it  peak MB  load s")
    for name, row in results["engines"].items():
        slowest, fastest = (results["texts"] / pick(row["seconds"]) for pick in (max, min))
        print(
            f"{name:<21}{row['texts_per_s']:>9.1f}{f'{slowest:.1f}-{fastest:.1f}':>12}"
            f"{row['tokens_per_s']:>10.0f}{row['ours_by_it']:>9.2f}"
            f"{row['peak_bytes'] / 1e6:>9.0f}{row['load_s']:>8.1f}"
        )
    for name, reason in results["left_out"].items():
        print(f"{name:<23}{reason}")
    print("\nwhole process, 1 text  seconds     min-max            ours/it")
    for name, row in results["cold_starts"].items():
        span = f"{min(row['seconds']):.2f}-{max(row['seconds']):.2f}"
        print(f"{name:<21}{median(row['seconds']):>9.2f}{span:>12}{row['ours_by_it']:>19.2f}")
    print()
    for row in results["engines"].values():
        versions = ", ".join(f"{package} {number}" for package, number in row["versions"].items())
        print(f"{row['device']}: {versions}")


def plot(results: dict, file: BinaryIO, format: str) -> None:
    import matplotlib

    matplotlib.use("Agg")  # needs no display
    from matplotlib import pyplot

    figure, (speed, memory) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    start = min(row["memory"][0][0] for row in results["engines"].values())
    for name, row in results["engines"].items():
        speed.plot(*zip(*row["tokens_per_s_by_length"], strict=True), marker="o", label=name)
        seconds, resident = zip(*row["memory"], strict=True)
        memory.plot([s - start for s in seconds], [b / 1e6 for b in resident], label=name)
    speed.set(xlabel="tokens per text (mean of a fifth of the texts)", ylabel="tokens/s", ylim=0)
    memory.set(xlabel="seconds (engines take turns)", ylabel="resident MB", ylim=0)
    speed.legend()
    figure.suptitle("{cpu}, {cores} cores".format(**results["machine"]))
    figure.savefig(file, dpi=150, format=format or None)


def main() -> None:
    from mlx_stella.errors import InputError  # the interpreters of the peers have no mlx_stella
    from mlx_stella.files import output

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, metavar="MODEL_DIR")
    parser.add_argument("--texts", type=Path, required=True, help=".txt or BEIR corpus .jsonl")
    parser.add_argument("--limit", type=int, default=2000, help="only the first LIMIT texts")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-length", type=int, default=256, help="tokens per text")
    parser.add_argument("--st-python", metavar="PY", help="python with sentence-transformers")
    parser.add_argument("--mlx-embeddings-python", metavar="PY", help="python with mlx-embeddings")
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--plot", type=Path, metavar="OUT.png", help="needs matplotlib")
    parser.add_argument("--overwrite", action="store_true", help="replace what OUT names")
    args = parser.parse_args()
    try:
        output.check(*filter(None, (args.json, args.plot)), overwrite=args.overwrite)
    except InputError as error:
        parser.error(str(error))
    if not args.model.is_dir():
        parser.error(f"{args.model}: no such directory")
    if args.plot and importlib.util.find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib; remedy: pip install matplotlib")

    model, texts = str(args.model), read_texts(args.texts, args.limit)
    if not texts:
        parser.error(f"{args.texts}: no texts")
    pythons = (args.st_python, sys.executable, args.mlx_embeddings_python)
    setup = {"model": model, "max_length": args.max_length, "texts": texts}
    workers, left_out = start_workers(dict(zip(ENGINES, pythons, strict=True)), setup)
    lengths = count_tokens(args.model, texts, args.max_length)  # the workers stand by, see `work`
    tokens = sum(lengths)

    embed = [sys.executable, "-m", "mlx_stella", "embed", "hello", "--dtype", "float32"]
    commands = {OURS: [*embed, "--model", model]}
    if REFERENCE in workers:
        commands[REFERENCE] = [args.st_python, "-c", COLD_REFERENCE, model]
    cold_starts = time_cold_starts(commands)

    for number in range(1, args.rounds + 1):
        for name, worker in workers.items():
            reply = worker.ask({"rows": list(range(len(texts))), "vectors": 0})
            worker.row["seconds"].append(reply["seconds"])
            worker.row["peak_bytes"] = reply["peak_bytes"]
            print(f"round {number}: {name} {reply['seconds']:.2f} s", file=sys.stderr)
    time_by_length(workers, lengths)
    for worker in workers.values():
        worker.stop()

    engines = {name: worker.row for name, worker in workers.items()}
    for row in engines.values():
        row["texts_per_s"] = len(texts) / median(row["seconds"])
        row["tokens_per_s"] = tokens / median(row["seconds"])
    for rows in (engines, cold_starts):
        for row in rows.values():  # how many times as fast ours is, paired by round
            row["ours_by_it"] = median(map(truediv, row["seconds"], rows[OURS]["seconds"]))
    results = {
        "command": shlex.join(sys.orig_argv),
        "machine": machine(),
        "texts": len(texts),
        "tokens": tokens,
        "max_length": args.max_length,
        "rounds": args.rounds,
        "engines": engines,
        "left_out": left_out,
        "cold_starts": cold_starts,
    }
    print_table(results)
    if args.json:
        with output.writing(args.json, overwrite=args.overwrite) as (file,):
            file.write(json.dumps(results, indent=2).encode() + b"\n")
    if args.plot:
        with output.writing(args.plot, overwrite=args.overwrite) as (file,):
            plot(results, file, args.plot.suffix[1:])


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        work(sys.argv[2])
    else:
        main()
