"""No name that a stranger chose steers the terminal, whatever verb shows it."""

import io
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path

import mlx.core as mx
import pytest
import typer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import CHECKPOINTS, edit_json
from support.commands import VERBS, furnish, run
from support.false_hub import body
from support.processes import STELLA

from mlx_stella.cli import app
from mlx_stella.cli.terminal import printable, tame_logs
from mlx_stella.files import lock

EVIL = "\x1b]0;own\x07\x9b31m\u202e\u2066\r\n\u2028mlx-stella: all pass\x00\ud800"
"""A window's title, colours by C0 and C1, the reading direction turned, forged lines, a NUL."""

STORABLE = EVIL.removesuffix("\ud800")
"""What a JSON file may hold: half a character is refused before it could be shown."""

names = st.text(
    st.sampled_from([*EVIL, *"\x08\x7f\x85\u200f\u2029\ufeffaé東/."]) | st.characters(), max_size=12
)


def tame(text: str) -> bool:
    """Whether a terminal shows every character of the lines, and obeys none."""
    return all(line.isprintable() for line in text.split("\n"))


@given(names)
def test_printable_words_are_one_line_and_show_what_they_hold(name):
    shown = printable(name)
    assert shown.isprintable() and shown.encode() is not None
    assert name != shown or name.isprintable()


WITH_MODEL = [verb for verb, arguments in VERBS.items() if "{model}" in arguments]

NAMES_AS_ARGUMENTS = {
    "embed": ["--input", "{}", "--prompt-name", "{}"],
    "similarity": ["{}", "{}", "--model", "{}"],
    "index": ["{}", "--to", "made", "--field", "{}"],
    "search": ["{}", "{}"],
    "serve": ["--model", "{}", "--alias", "{}", "--keep-alive", "{}"],  # no time: nothing starts
    "service": ["status", "{}"],
    "status": ["{}"],
    "export": ["{}", "--output", "{}.npy"],
    "eval": ["{}", "--split", "{}"],
    "info": ["{}"],
    "models": [],
    "demo": ["--model", "{}"],
    "verify": ["{}"],
    "bench": ["{}", "--lengths", "8"],
    "convert": ["{}", "--output", "{}"],
    "compare": ["{}", "{}"],
}


def test_a_new_verb_is_tested_here():
    """The tables tell how each verb is run: names given to it, and what it reads of others."""
    commands = typer.main.get_command(app).commands
    assert set(NAMES_AS_ARGUMENTS) == set(commands)
    assert set(VERBS) == set(commands) - {"serve", "service"}  # which stay, and have their tests
    for verb, command in commands.items():
        if {"model", "source"} & {parameter.name for parameter in command.params}:
            assert verb in WITH_MODEL or verb not in VERBS


def can_be_an_argument(name: str) -> bool:
    """Whether a system can hand it over: a byte that is not UTF-8 comes as U+DC80 to U+DCFF."""
    try:
        return "\0" not in os.fsencode(name).decode("latin-1")
    except UnicodeEncodeError:
        return False


@pytest.mark.parametrize("verb", NAMES_AS_ARGUMENTS)
@settings(max_examples=2, deadline=None)
@example(EVIL.replace("\0", "").replace("\ud800", ""))
@given(names.filter(can_be_an_argument))
def test_arguments_of_every_verb(verb, name):
    arguments = [verb, *(word.replace("{}", f"x{name}") for word in NAMES_AS_ARGUMENTS[verb])]
    with tempfile.TemporaryDirectory() as folder:
        for last in ([], [f"--{name}x"]):
            status, output, error = run(*arguments, *last, cwd=folder)
            assert tame(output) and tame(error), (output, error)
            assert status != 1 or error.count("\n") == 1, error


def evil_checkpoints():
    """Each puts the hostile text into another place of a checkpoint."""
    prompts = "config_sentence_transformers.json"
    return {
        "prompt": lambda d, evil: edit_json(d / prompts, prompts={evil: evil, "query": evil}),
        "default prompt": lambda d, evil: edit_json(d / prompts, default_prompt_name=evil),
        "similarity": lambda d, evil: edit_json(d / prompts, similarity_fn_name=evil),
        "key": lambda d, evil: edit_json(d / "config.json", **{f"k{evil}": 1}),
        "model type": lambda d, evil: edit_json(d / "config.json", model_type=evil),
        "activation": lambda d, evil: edit_json(d / "config.json", hidden_act=evil),
        "rope": lambda d, evil: edit_json(d / "config.json", rope_scaling={f"k{evil}": 1}),
        "module": lambda d, evil: (d / "modules.json").write_text(json.dumps([{"type": evil}])),
        "pooling": lambda d, evil: edit_json(d / "1_Pooling/config.json", pooling_mode=evil),
        "head": lambda d, evil: edit_json(d / "2_Dense_1024/config.json", activation_function=evil),
        "shard": _evil_shard,
        "tensor": _evil_tensor,
        "source": lambda d, evil: (d / "conversion.json").write_text(json.dumps({"source": evil})),
        "eos token": lambda d, evil: edit_json(
            d / "tokenizer_config.json", add_eos_token=True, eos_token=evil
        ),
    }


def _evil_shard(directory: Path, evil: str) -> None:
    (directory / "model.safetensors").unlink()
    index = {"weight_map": {"a": f"{evil}.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def _evil_tensor(directory: Path, evil: str) -> None:
    file = str(directory / "model.safetensors")
    extra = {f"k{evil}".replace("\0", ""): mx.zeros(2)}
    mx.save_safetensors(file, {**mx.load(file), **extra})


@pytest.mark.parametrize("place", [place for place in evil_checkpoints() if place != "source"])
def test_what_a_checkpoint_says(copy_of, tmp_path, place):
    directory = copy_of("tiny-stella-1.5b")
    evil_checkpoints()[place](directory, STORABLE)
    shown = ""
    for arguments in (["info", str(directory)], ["embed", "a", "--model", str(directory)]):
        status, output, error = run(*arguments, cwd=tmp_path)
        assert tame(error) and (status != 1 or error.count("\n") == 1), error
        assert arguments[0] == "embed" or tame(output), output
        shown += output + error
    assert "0;own" in shown and "\n" + "mlx-stella: all pass" not in shown


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A folder in which every verb has what it works with."""
    pytest.importorskip("lancedb")
    folder = tmp_path_factory.mktemp("world")
    furnish(folder)
    status, _, error = run("index", "notes", "--to", "idx", cwd=folder)
    assert status == 0, error
    return folder


@pytest.mark.parametrize("verb", WITH_MODEL)
def test_what_a_checkpoint_says_to_every_verb(world, tmp_path, verb):
    for place in ("key", "prompt", "default prompt", "shard", "tensor", "source"):
        directory = shutil.copytree(CHECKPOINTS / Path(STELLA).name, tmp_path / place)
        evil_checkpoints()[place](directory, STORABLE)
        arguments = [word.replace("{model}", str(directory)) for word in VERBS[verb]]
        _, output, error = run(verb, *arguments, cwd=world)
        assert tame(output) and tame(error), (place, output, error)
        assert "\nmlx-stella: all pass" not in output + error
        shutil.rmtree(world / "made", ignore_errors=True)


@pytest.mark.parametrize("verb", WITH_MODEL)
def test_what_the_hub_says_to_every_verb(world, online, verb):
    answer = {"id": "owner/name", "sha": f"../{STORABLE}"}
    online.ways["GET /api/models/owner/name"] = body(json.dumps(answer).encode())
    arguments = [word.replace("{model}", "owner/name") for word in VERBS[verb]]
    status, output, error = run(verb, *arguments, cwd=world)
    assert (status, output) == (1, "") and tame(error), (output, error)
    last = error.splitlines()[-1]
    assert last.startswith("mlx-stella: owner/name: ") and "0;own" in last, error


def test_a_tensor_name_without_end_is_cut(copy_of, tmp_path):
    directory = copy_of("tiny-stella-1.5b")
    _evil_tensor(directory, "x" * 2**20)
    status, _, error = run("info", str(directory), cwd=tmp_path)
    assert status == 1 and len(error) < 5000


@pytest.mark.parametrize(
    "arguments",
    [("index", "notes", "--to", "idx"), ("embed", "--input", "texts.txt", "--output", "idx/")],
    ids=["index", "embed"],
)
def test_the_holder_of_a_lock(tmp_path, arguments):
    pytest.importorskip("lancedb")
    furnish(tmp_path)
    with lock.writing(str(tmp_path / "idx")):
        holder = json.dumps({"process": 1, "machine": EVIL})
        (tmp_path / "idx/.lock").write_text(holder)
        status, _, error = run(*arguments, cwd=tmp_path)
    assert status == 1 and "process 1 on" in error and tame(error)


def test_columns_of_a_table(tmp_path):
    row = json.dumps({f"k{EVIL}": 1})
    (tmp_path / "a.jsonl").write_text(row + "\n")
    status, _, error = run("embed", "--input", "a.jsonl", cwd=tmp_path)
    assert status == 1 and "no field 'text'" in error and tame(error) and error.count("\n") == 1


def test_the_words_of_every_verb_that_succeeds(tmp_path, small_clone):
    pytest.importorskip("lancedb")
    evil = "".join(c for c in EVIL if c not in "\0\ud800/")
    furnish(tmp_path, evil)
    model = str(shutil.copytree(CHECKPOINTS / Path(STELLA).name, tmp_path / f"m{evil}"))
    edit_json(Path(model) / "config.json", **{f"k{evil}": 1})
    edit_json(Path(model) / "config_sentence_transformers.json", prompts={evil: evil})
    known = tmp_path / f"m{evil}/NV-Embed-v2"  # a name that verify knows
    shutil.copytree(CHECKPOINTS / "tiny-nv-embed", known)
    notes = tmp_path / f"n{evil}"
    notes.mkdir()
    (notes / f"a{evil}.md").write_text(f"# h{evil}\n\ntea {evil}\x7f\n", "utf-8", "replace")
    (notes / f"b{evil}.txt").write_bytes(b"\xff")
    (notes / f"c{evil}.bin").write_bytes(b"\0")
    rows = "".join(json.dumps({"id": f"{n}{evil}", "text": f"tea {evil}"}) + "\n" for n in "ab")
    (tmp_path / "rows.jsonl").write_text(rows + json.dumps({"id": evil, "text": None}) + "\n")
    index, ask = "idx", f"tea {evil}"
    told = set()

    def words(*arguments: str) -> str:
        told.add(arguments[0])
        status, output, error = run(*arguments, cwd=tmp_path, model=model, stdin=f"tea {EVIL[:-1]}")
        assert tame(output) and tame(error), (output, error)
        assert status == 0 or error.splitlines()[-1].startswith("mlx-stella: "), error
        return output + error

    assert words("index", notes.name, "rows.jsonl", "--to", index).count("failed: ") == 1
    assert "c\\x1b" in words("index", notes.name, "--to", index)
    assert "Model:" in words("status", index)
    assert json.loads(words("status", index, "--json"))["stamp"]["model"] == model
    assert "tea" in words("search", index, ask) and "Query: " in words("search", index, "-")
    hits, _ = json.JSONDecoder().raw_decode(words("search", index, ask, "--json"))
    assert f"tea {evil}" in {hit["text"] for hit in hits}
    assert "\x7f" in "".join(hit["text"] for hit in hits)
    assert "chunks in" in words("export", index, "--output", f"o{evil}.npy")
    assert "1 failed" in words("embed", "--input", "rows.jsonl", "--output", f"parts{evil}/")
    assert "directory" in words("info") and "Query: " in words("demo", "-m", model, "--query", ask)
    assert "Query: " in words("demo", "-m", model, "--corpus", "--query", ask)
    assert "from " in words("convert", model, "--dry-run")
    assert "written to" in words("convert", model, "--output", f"c{evil}")
    assert "k\\x1b" in words("similarity", ask, ask) and "ALIAS" in words("models")
    assert "questions" in words("eval", "beir") and "texts: " in words("compare", model, model)
    assert "tokens" in words("bench", "--lengths", "8", "--runs", "1")
    assert "nv-embed-v2 in" in words("verify", str(known))
    assert told == set(VERBS)


def test_what_other_libraries_log():
    logger, written = logging.Logger("a library"), io.StringIO()
    handler, before = logging.StreamHandler(written), logging.getLogRecordFactory()
    logger.addHandler(handler)
    try:
        tame_logs()
        logger.warning("said %s", EVIL)
    finally:
        logging.setLogRecordFactory(before)
    assert "0;own" in written.getvalue() and tame(written.getvalue())
