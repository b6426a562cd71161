"""``convert`` and ``compare`` by output and exit status, also interrupted at any moment."""

import json
import signal
import subprocess
import sys
import time

import pytest
from support import ROOT, commands
from support.enlarged import enlarged
from support.processes import COMMAND, run, succeed

from mlx_stella import HubUnreachableError, ModelNotFoundError, load
from mlx_stella.checkpoint import hub

pytestmark = pytest.mark.filterwarnings("ignore:quantized weights are expanded")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return str(enlarged("tiny-stella-400m", tmp_path_factory.mktemp("source")))


def test_convert_info_embed_compare(source, tmp_path):
    output = succeed("convert", source, "--bits", "4", "-o", "four", cwd=tmp_path)
    assert "4 bits in groups of 64" in output and "| 1024 |" in output and "top 10 kept" in output
    facts = json.loads((tmp_path / "four/conversion.json").read_text())
    assert facts["comparison"]["texts"] == 98 and facts["peak_memory_bytes"] > 1e7
    assert [row["dim"] for row in facts["comparison"]["dims"]] == [256, 768, 1024, 8192]
    card = (tmp_path / "four/README.md").read_text()
    assert all(line in card for line in output.splitlines() if line.startswith("|"))
    described = succeed("info", "four", cwd=tmp_path)
    assert "quantized:" in described and "4 bits in groups of 64" in described
    assert json.loads(succeed("embed", "hello", "-m", "four", cwd=tmp_path))["text"] == "hello"
    (tmp_path / "texts.txt").write_text("one\ntwo\nthree and four\n")
    compared = succeed("compare", source, "four", "--texts", "texts.txt", cwd=tmp_path)
    assert "3 texts: texts.txt" in compared and "| 8192 |" in compared
    same = succeed("compare", source, source, "--texts", "texts.txt", cwd=tmp_path)
    assert "1.00000 | 1.00000 | 1.00000 |      0.0000 |      100.0%" in same


def test_sizes_before_any_work(source, tmp_path):
    output = succeed("convert", source, "--bits", "3", "--dry-run", cwd=tmp_path)
    assert "3 bits in groups of 64" in output and "bits per weight" in output
    assert list(tmp_path.iterdir()) == []
    script = [sys.executable, ROOT / "scripts/convert.py", source, "--dry-run"]
    assert b"float16" in subprocess.run(script, capture_output=True, check=True).stdout


def test_calibrate(source, tmp_path):
    options = ("--recipe", "auto", "--target-bits", "4.6", "--group-size", "32", "--seed", "3")
    output = succeed("convert", source, *options, "-o", "out", cwd=tmp_path)
    assert "bits to be chosen, in groups of 32" in output
    assert "calibrating on 98 texts (the built-in set) takes up to" in output
    facts = json.loads((tmp_path / "out/conversion.json").read_text())
    assert facts["calibration"] == {
        "texts": 98, "text_source": "the built-in set", "seed": 3, "target_bits": 4.6
    }  # fmt: skip
    assert facts["bits_per_weight"] <= 4.6


@pytest.mark.parametrize(
    "arguments, pattern",
    [
        (("--bits", "4"), "--output DIRECTORY"),
        (("-o", "x", "--group-size", "32"), "--group-size belongs to --bits"),
        (("-o", "x", "--recipe", "embeddings_3"), "--recipe belongs to --bits"),
        (("-o", "x", "--bits", "7"), "2, 3, 4, 5, 6 or 8 bits"),
        (("-o", "x", "--mode", "mxfp4", "--bits", "8"), "for mxfp4 4 bits in groups of 32"),
        (("-o", "no/x", "--bits", "4"), "is no folder"),
        (("-o", "x", "--eval-texts", "none.txt"), "none.txt"),
        (("-o", "x", "--calibrate"), "--calibrate belongs to --bits"),
        (("-o", "x", "--bits", "4", "--calibration-texts", "a.txt"), "belongs to --calibrate"),
        (("-o", "x", "--bits", "4", "--seed", "1"), "--seed belongs to --calibrate"),
        (("-o", "x", "--recipe", "auto"), "--target-bits belong together"),
        (("-o", "x", "--bits", "4", "--target-bits", "4"), "--target-bits belong together"),
        (("-o", "x", "--recipe", "auto", "--target-bits", "4", "--bits", "4"), "drop --bits"),
        (("-o", "x", "--recipe", "auto", "--target-bits", "nan"), "nan bits per weight are"),
        (("-o", "x", "--mode", "mxfp4", "--calibrate"), "--mode affine"),
        (("-o", "x", "--bits", "4", "--calibrate", "--calibration-texts", "none.txt"), "none.txt"),
        (
            tuple("-o x --bits 4 --calibrate --calibration-texts a --eval-texts a".split()),
            "compare on others",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line(source, tmp_path, arguments, pattern):
    status, _, error = commands.run("convert", source, *arguments, cwd=tmp_path)
    assert status == 1 and pattern in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_source_is_one_line(tmp_path):
    assert "no such directory or model" in commands.fail("convert", "nope", "-o", "x", cwd=tmp_path)


@pytest.mark.parametrize(
    "wait_for", [".out.unfinished/UNFINISHED", ".out.unfinished/config.json", "late"]
)
def test_killed_at_any_moment(source, tmp_path, wait_for):
    """kill -9 leaves nothing that loads, and the next run succeeds."""
    arguments = [COMMAND, "convert", source, "--bits", "4", "--output", "out"]
    process = subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.DEVNULL)
    late = tmp_path / ".out.unfinished/model.safetensors"  # written; being compared
    awaited = late if wait_for == "late" else tmp_path / wait_for
    while not awaited.exists() and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    left = list(tmp_path.iterdir())
    assert [path.name for path in left] == [".out.unfinished"]
    with pytest.raises(ModelNotFoundError, match=r"left unfinished.*run the conversion again"):
        load(left[0])
    succeed("convert", source, "--bits", "4", "-o", "out", cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert load(tmp_path / "out").encode("a").shape == (1024,)


def test_interrupted_it_cleans_up(source, tmp_path):
    arguments = [COMMAND, "convert", source, "--output", "out"]
    process = subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.DEVNULL)
    while not (tmp_path / ".out.unfinished/config.json").exists() and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGSTOP)  # or it might be done before the second one looks
    second = run("convert", source, "--output", "out", cwd=tmp_path)
    assert b"is being written by another process" in second.stderr
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    assert process.wait() == 143
    assert list(tmp_path.iterdir()) == []


class Api:
    """What of the Hub's client an upload uses."""

    calls: tuple = ()

    def create_repo(self, repo: str, exist_ok: bool) -> str:
        if repo == "owner/refused":
            raise OSError("401 Unauthorized\nlong explanation")
        return f"https://huggingface.co/{repo}"

    def upload_folder(self, folder_path, repo_id: str) -> None:
        Api.calls = (folder_path, repo_id)


def test_upload(tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert hub.upload(tmp_path, "owner/name") == "https://huggingface.co/owner/name"
    assert Api.calls == (tmp_path, "owner/name")
    with pytest.raises(HubUnreachableError, match=r"401 Unauthorized\); .* is whole; remedy: hf"):
        hub.upload(tmp_path, "owner/refused")
