"""The command line run in this process, where starting one for each case would take too long."""

import contextlib
import io
import json
import os
import sys
import warnings
from pathlib import Path
from unittest import mock

from mlx_stella.cli import main
from support.processes import STELLA

VERBS = {
    "embed": ["tea", "-m", "{model}"],
    "similarity": ["tea", "coffee", "-m", "{model}"],
    "index": ["notes", "--to", "made", "-m", "{model}"],
    "search": ["idx", "tea", "-m", "{model}"],
    "status": ["idx"],
    "export": ["idx", "--output", "rows.npy"],
    "eval": ["beir", "-m", "{model}"],
    "info": ["{model}"],
    "models": [],
    "demo": ["-m", "{model}", "--query", "tea"],
    "verify": ["{model}"],
    "bench": ["{model}", "--lengths", "8", "--runs", "1"],
    "convert": ["{model}", "--dry-run"],
    "compare": ["{model}", "{model}", "--texts", "texts.txt"],
}
"""Every verb that ends, and what it works with in the folder that `furnish` makes."""

TEXTS = {"a.md": "# Tea\n\ngreen tea leaves", "b.md": "coffee beans", "sub/c.py": "x = 'keys'\n"}


def write(folder: Path, texts: dict[str, str]) -> None:
    """Files by their names."""
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def furnish(folder: Path, word: str = "") -> None:
    """What the verbs need beside a model; the word is in names and texts, to be shown."""
    files = {
        f"notes/a{word}.md": f"# Tea {word}\n\ngreen {word}",
        "texts.txt": "tea\nmilk\n",
        "beir/corpus.jsonl": json.dumps({"_id": "d", "title": word, "text": "tea"}) + "\n",
        "beir/queries.jsonl": json.dumps({"_id": "q", "text": f"tea {word}"}) + "\n",
        "beir/qrels/test.tsv": "query-id\tcorpus-id\tscore\nq\td\t1\n",
    }
    write(folder, files)


def run(
    *arguments: str, cwd: Path | str = ".", stdin: str = "", model: str | None = STELLA
) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command, run in this process."""
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2)]
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(streams[0]),
        contextlib.redirect_stderr(streams[1]),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()))),
        mock.patch.object(sys, "argv", ["mlx-stella", *arguments]),
        mock.patch.dict(os.environ, MLX_STELLA_MODEL=model or ""),
        warnings.catch_warnings(),
    ):
        status = 1
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
    return status, *[stream.buffer.getvalue().decode() for stream in streams]


def succeed(*arguments: str, **options) -> str:
    status, output, error = run(*arguments, **options)
    assert status == 0, error
    return output


def fail(*arguments: str, status: int = 1, **options) -> str:
    """What a command that fails says: one line, unless it is called wrongly (2)."""
    ended, output, error = run(*arguments, **options)
    assert ended == status and not output and "Traceback" not in error, error
    if status == 1:
        assert error.startswith("mlx-stella: ") and error.count("\n") == 1, error
    return error
