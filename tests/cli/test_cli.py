"""The command line by its output and exit status.

In a process of its own where that is the point: streams, signals, limits, what is imported.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from support import CHECKPOINTS, edit_json, load_tiny, processes
from support.commands import fail, run, succeed
from support.processes import COMMAND, STELLA

TEXTS = ["What is Deep Learning?", "naïve café — 東京 🚀", "a"]


def vectors_of(output: str) -> np.ndarray:
    return np.array([json.loads(line)["embedding"] for line in output.splitlines()], np.float32)


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return load_tiny("tiny-stella-1.5b").encode(TEXTS)


def same(vectors: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_arguments_to_json_lines(expected):
    output = processes.succeed("embed", *TEXTS, "--dtype", "float32")
    assert [json.loads(line)["text"] for line in output.splitlines()] == TEXTS
    same(vectors_of(output), expected)


@pytest.mark.parametrize("arguments", [(), ("--input", "-")])
def test_stdin_is_a_text_a_line(expected, arguments):
    same(vectors_of(succeed("embed", *arguments, stdin="\r\n".join(TEXTS))), expected)


def test_text_file_to_npy(tmp_path, expected):
    (tmp_path / "in.txt").write_text("\ufeff" + "\n".join(TEXTS) + "\n", encoding="utf-8")
    output = succeed("embed", "--input", "in.txt", "--output", "out.npy", cwd=tmp_path)
    assert output == ""
    vectors = np.load(tmp_path / "out.npy", allow_pickle=False)
    assert vectors.dtype == np.float32
    same(vectors, expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt", "out.npy"]


def test_json_lines_to_json_lines(tmp_path, expected):
    lines = [json.dumps({"id": n, "body": text}) for n, text in enumerate(TEXTS)]
    (tmp_path / "in.jsonl").write_text("\n\n".join(lines))
    arguments = ("--input", "in.jsonl", "--field", "body", "--output", "out.jsonl")
    succeed("embed", *arguments, cwd=tmp_path)
    written = (tmp_path / "out.jsonl").read_text()
    same(vectors_of(written), expected)
    first = json.loads(written.splitlines()[0])
    assert list(first) == ["id", "body", "embedding"] and first["id"] == 0
    same(vectors_of(succeed("embed", "--field", "body", stdin="\n".join(lines))), expected)


def test_an_empty_line_is_an_empty_text_and_no_line_is_none():
    assert len(succeed("embed", stdin="one\n\nthree\n").splitlines()) == 3
    done = processes.run("embed", stdin="")
    assert done.returncode == 0 and done.stdout == b"" and b"holds no text" in done.stderr


def test_a_file_name_among_the_texts(tmp_path):
    (tmp_path / "notes.txt").write_text("a")
    done = processes.run("embed", "notes.txt", cwd=tmp_path)
    assert done.returncode == 0 and b"--input notes.txt" in done.stderr


def test_the_input_is_never_overwritten(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "kept": 1}\n')
    arguments = ("--input", "a.jsonl", "--output", "./a.jsonl")
    assert "is the input, too" in fail("embed", *arguments, cwd=tmp_path)
    assert "kept" in (tmp_path / "a.jsonl").read_text()


def test_a_file_is_replaced_only_where_that_was_said(tmp_path):
    arguments = ("embed", "a", "--output", "out.npy")
    (tmp_path / "out.npy").write_text("mine")
    assert "out.npy: exists; remedy: another name, or --overwrite" in fail(*arguments, cwd=tmp_path)
    assert (tmp_path / "out.npy").read_text() == "mine"
    succeed(*arguments, "--overwrite", cwd=tmp_path)
    assert np.load(tmp_path / "out.npy").shape[0] == 1
    parts = ("--input", "a.txt", "--output", "parts/")
    assert "drop --overwrite" in fail("embed", *parts, "--overwrite", cwd=tmp_path)


KEPT = b"mlx-stella: interrupted; out.npy is as it was before\n"


@pytest.mark.parametrize(
    "number, status, told", [(signal.SIGINT, 130, KEPT), (signal.SIGTERM, 143, b"")]
)
def test_a_signal_in_the_middle_leaves_nothing(tmp_path, number, status, told):
    (tmp_path / "in.txt").write_text("deep learning is fun\n" * 20_000)
    arguments = ["embed", "--input", "in.txt", "--output", "out.npy", "--model", STELLA]
    process = subprocess.Popen([COMMAND, *arguments], cwd=tmp_path, stderr=subprocess.PIPE)
    while not list(tmp_path.glob(".out.npy.*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (status, told)
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]


def test_closed_streams_and_other_encodings():
    command = f"{COMMAND} embed -m {STELLA}"
    for script, pattern in [(f"{command} <&-", b"no text"), (f"{command} a >&-", b"stdout is")]:
        done = subprocess.run(["bash", "-c", script], capture_output=True, timeout=60)
        assert done.returncode == 1 and pattern in done.stderr, done.stderr
    processes.succeed("demo", "--model", STELLA, "--query", "查询", PYTHONIOENCODING="ascii")


def test_options_reach_the_model():
    model = load_tiny("tiny-stella-1.5b")
    for arguments, options in [
        (("--dim", "256"), {"dim": 256}),
        (("--prompt-name", "s2p_query"), {"prompt_name": "s2p_query"}),
        (("--prompt", "query: "), {"prompt": "query: "}),
        (("--instruction", "Find it."), {"instruction": "Find it."}),
        (("--no-normalize",), {"normalize": False}),
    ]:
        output = succeed("embed", *arguments, "--dtype", "float32", "--", *TEXTS)
        np.testing.assert_allclose(vectors_of(output), model.encode(TEXTS, **options), rtol=1e-4)


def test_a_text_that_looks_like_an_option(expected):
    output = succeed("embed", "--", "--dim")
    assert json.loads(output)["text"] == "--dim"


def test_long_texts():
    done = processes.run("embed", "a " * 9, "--max-length", "4")
    assert done.returncode == 0
    note = "mlx-stella: note: 1 of 1 texts were cut to 4 tokens\n"
    assert done.stderr.decode() == note
    error = fail("embed", "a " * 9, "--max-length", "4", "--on-long", "error")
    assert "tokens exceed 4;" in error


@pytest.mark.parametrize(
    "name, content, pattern",
    [
        ("in.txt", b"fine\n\xff\xfe\n", "in.txt: line 2: not UTF-8"),
        ("in.jsonl", b'{"text": "a"}\n{"text": \n', "in.jsonl: line 2: not JSON"),
        ("in.jsonl", b"[1]\n", "in.jsonl: line 1: no JSON object"),
        ("in.jsonl", b'{"body": "a"}\n', "line 1: no field 'text', but body"),
        ("in.jsonl", b'{"text": 5}\n', "field 'text' is no string"),
        ("in.jsonl", b'{"text": "\\ud800"}\n', "line 1: field 'text' holds a lone surrogate"),
        ("in.pdf", b"a,b\n", "in.pdf: not .txt, .jsonl, .csv, .parquet; remedy"),
        ("in.txt", None, "in.txt: No such file"),
        (".", None, "a folder"),
    ],
)
def test_input_that_cannot_be_read(tmp_path, name, content, pattern):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    error = fail("embed", "--input", name, "--output", "out.npy", cwd=tmp_path)
    assert pattern in error
    assert not (tmp_path / "out.npy").exists()


@pytest.mark.parametrize(
    "output, pattern",
    [
        ("out.csv", "output is .npy, .jsonl or a folder"),
        ("none/out.npy", "none is no folder"),
        ("n" * 300 + ".npy", "too long"),
    ],
)
def test_output_that_cannot_be_written(tmp_path, output, pattern):
    assert pattern in processes.fail("embed", "a", "--output", output, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    """A file size limit stands for the full disk: the write fails in the middle."""
    (tmp_path / "out.npy").write_bytes(b"earlier result")
    embed = f"{COMMAND} embed a b c --dim 8192 --output out.npy --overwrite"
    script = f"ulimit -f 8; trap '' XFSZ; exec {embed}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        env=os.environ | {"MLX_STELLA_MODEL": STELLA},
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(b"mlx-stella: out.npy: could not be written")
    assert [path.name for path in tmp_path.iterdir()] == ["out.npy"]
    assert (tmp_path / "out.npy").read_bytes() == b"earlier result"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_behind_stdout_has_a_remedy():
    script = f"{COMMAND} models > /dev/full"
    done = subprocess.run(["bash", "-c", script], capture_output=True, timeout=60)
    line = b"mlx-stella: No space left on device; remedy: free some space and run it again\n"
    assert (done.returncode, done.stderr) == (1, line)


def test_a_reader_that_goes_away():
    script = f"{COMMAND} embed {'text ' * 200} --dim 8192 | head -c 100"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script],
        capture_output=True,
        env=os.environ | {"MLX_STELLA_MODEL": STELLA},
        timeout=120,
    )
    assert len(done.stdout) == 100 and done.stderr == b"" and done.returncode == 1


def test_a_reader_that_goes_away_in_the_middle_of_a_stream(tmp_path):
    (tmp_path / "in.txt").write_text("deep learning is fun\n" * 30_000)
    script = f"{COMMAND} embed --input in.txt --dim 256 | head -n 1 | wc -l"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        env=os.environ | {"MLX_STELLA_MODEL": STELLA},
        timeout=120,
    )
    assert done.stdout == b"1\n" and b"Traceback" not in done.stderr and done.returncode == 1


def test_texts_from_two_places():
    assert "drop one" in fail("embed", "a", "--input", "-")


def test_wrong_usage():
    assert "remedy: --model stella-400m" in fail("embed", "a", model=None)
    assert "No such option" in fail("embed", "a", "--nope", status=2)
    assert "float64" in fail("embed", "a", "--dtype", "float64", status=2)


def test_a_model_that_is_nowhere(tmp_path):
    assert "no such directory or model" in processes.fail("embed", "a", model="nope")
    error = processes.fail("embed", "a", model="stella-1.5b", HF_HUB_CACHE=str(tmp_path))
    assert "cannot be reached" in error and "remedy" in error


def test_a_damaged_checkpoint_is_one_line(copy_of):
    directory = copy_of("tiny-stella-1.5b")
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    for verb in (("embed", "a"), ("info",)):
        assert str(file) in fail(*verb, model=str(directory))


def test_notes_about_the_checkpoint_go_to_stderr(copy_of):
    directory = copy_of("tiny-stella-1.5b")
    edit_json(directory / "2_Dense_256/config.json", out_features=300)
    done = processes.run("embed", "a", model=str(directory))
    assert done.returncode == 0 and b"note:" in done.stderr and b"2_Dense_256" in done.stderr


def test_similarity():
    assert succeed("similarity", "a b", "a b") == "1.0000\n"
    a, b = load_tiny("tiny-stella-1.5b").encode(["a b", "green tea"])
    assert abs(float(succeed("similarity", "a b", "green tea")) - a @ b) < 1e-4


def test_info_loads_no_weights(copy_of):
    output = succeed("info", STELLA)
    for part in ("qwen2, 3 layers", "mean", "1024 (default)", "s2p_query", "512 by default"):
        assert part in output
    output = succeed("info", str(CHECKPOINTS / "tiny-nv-embed"))
    assert "without the prompt" in output


def test_models_lists_every_alias():
    from mlx_stella.checkpoint.catalog import MODELS

    output = succeed("models", model=None)
    assert all(entry.alias in output and entry.licence in output for entry in MODELS)
    assert max(map(len, output.splitlines())) <= 80


def test_help_names_the_verbs_and_is_quick():
    output = processes.succeed("--help", model=None)
    for verb in ("embed", "similarity", "info", "models", "demo", "verify"):
        assert verb in output
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "mlx_stella", "--help"], capture_output=True
    )
    assert done.returncode == 0
    imported = done.stderr.decode()
    for heavy in ("mlx.core", "numpy", "tokenizers", "huggingface_hub", "mlx_lm", "transformers"):
        assert f" {heavy}\n" not in imported, heavy


def test_embedding_from_a_directory_imports_no_more_than_it_needs():
    arguments = ["embed", "a", "--model", STELLA]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "mlx_stella", *arguments], capture_output=True
    )
    assert done.returncode == 0
    imported = done.stderr.decode()
    for heavy in ("huggingface_hub", "mlx_lm", "transformers", "torch"):
        assert f" {heavy}\n" not in imported, heavy


def test_bench(tmp_path):
    (tmp_path / "in.txt").write_text("\n".join(["a", "deep learning " * 9, "green tea"] * 9))
    arguments = ("--lengths", "16,33", "--runs", "2", "--texts", str(tmp_path / "in.txt"))
    output = processes.succeed("bench", STELLA, *arguments)
    assert "16 tokens" in output and "in.txt" in output and "GFLOP/s" in output
    assert max(map(len, output.splitlines()[2:])) <= 80
    report = json.loads(processes.succeed("bench", STELLA, *arguments, "--json"))
    assert report["layer"] is None  # a CPU computes in forms of its own
    by_name = {m["name"]: m for m in report["measurements"]}
    assert by_name["33 tokens"]["tokens"] == 33 * by_name["33 tokens"]["texts"]
    assert by_name["33 tokens"]["padding"] == 0 < by_name["in.txt"]["padding"]
    assert all(0 < m["peak_share"] < 1 and len(m["seconds"]) == 2 for m in by_name.values())
    assert "remedy" in processes.fail("bench", STELLA, "--lengths", "x")


def test_lines_come_before_the_end():
    """The first window's lines are there while later ones are computed."""
    command = [COMMAND, "embed", "--dim", "256", "--model", STELLA]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdin.writelines(b"deep learning is fun %d\n" % number for number in range(30_000))
    process.stdin.close()
    assert json.loads(process.stdout.readline())["text"] == "deep learning is fun 0"
    assert process.poll() is None
    process.kill()
    process.wait()


@pytest.mark.real
def test_verify_and_demo_on_the_packaged_model(minilm_directory, tmp_path):
    output = processes.succeed(
        "verify", "all-minilm-l6-v2", "--dtype", "float32", HF_HUB_CACHE=str(tmp_path)
    )
    assert output.count("pass") == 9 and "FAIL" not in output
    output = processes.succeed("demo", HF_HUB_CACHE=str(tmp_path))
    assert output.startswith("Model:  all-minilm-l6-v2") and "stella-400m is not cached" in output
    assert output.count("Answer: ") == 2 and "Green tea has been consumed" in output
    output = processes.succeed("demo", "--model", "all-minilm-l6-v2", "--query", "green tea")
    assert len(json.loads(output.split("Embedding: ")[1])) == 384
    assert "Vector: of unit length" in output


def test_verify_fails_on_another_model_of_that_name(tmp_path):
    """A directory that is named like stella_en_400M_v5 but holds random weights."""
    directory = tmp_path / "stella_en_400M_v5"
    shutil.copytree(CHECKPOINTS / "tiny-stella-400m", directory)
    done = processes.run("verify", str(directory))
    assert done.returncode == 1
    output = done.stdout.decode()
    assert "0.839753" in output and "FAIL" in output and b"Traceback" not in done.stderr


def test_verify_on_a_smaller_model_of_that_name(tmp_path):
    directory = shutil.copytree(CHECKPOINTS / "tiny-nv-embed", tmp_path / "NV-Embed-v2")
    status, _, error = run("verify", str(directory))
    lines = [line for line in error.splitlines() if "note: " not in line]
    assert status == 1 and len(lines) == 1
    assert lines[0].startswith("mlx-stella: no vector of nv-embed-v2: it has 48 entries, and one")


def test_verify_without_published_numbers():
    assert "no published numbers" in fail("verify", STELLA)


def test_demo_shows_the_cards_example(tmp_path):
    directory = tmp_path / "NV-Embed-v2"
    shutil.copytree(CHECKPOINTS / "tiny-nv-embed", directory)
    output = succeed("demo", "--model", str(directory))
    assert "judo" in output and "0.8743" in output and "largest difference" in output


def test_memory_limit():
    assert "the weights take" in processes.fail("embed", "a", "--memory-limit", "1KB")
    assert "is no size" in processes.fail("embed", "a", "--memory-limit", "lots", status=2)
    assert len(processes.succeed("embed", "a", "--memory-limit", "2.5 GB").splitlines()) == 1
