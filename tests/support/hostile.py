"""Mutations of a checkpoint, for the fuzz tests and scripts/fuzz_checkpoints.py.

Each takes a folder and a generator of random numbers, damages one file, and says what it did.
"""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

Mutation = Callable[[Path, Random], str]

SETTINGS = (
    "config.json",
    "modules.json",
    "tokenizer_config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
    "2_Dense_1024/config.json",
    "model.safetensors.index.json",
)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**24 - 1, 2**31, 2**63, 10**400, 0.5, 1e308, -1e-320),
    *(float("nan"), float("inf"), "", "a", "\x1b[2J\u202e", "../..", "/etc/passwd", "\0"),
    *("\ud800", "x" * 10**5, [], [[]], {}, {"": None}, [1, "a"], {"a": {"a": {"a": 1}}}),
)


def mutate(directory: Path, mutation: str, random: Random) -> str:
    """Apply a mutation by its name; what was done, to be told where it is found to matter."""
    return f"{directory.name}: {mutation}: {MUTATIONS[mutation](directory, random)}"


def _choose_json(directory: Path, random: Random) -> Path:
    return directory / random.choice([n for n in SETTINGS if (directory / n).is_file()])


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container of a JSON value with each of its keys."""
    found: list[tuple[Any, Any]] = []
    if isinstance(value, (dict, list)):
        keys = list(value) if isinstance(value, dict) else range(len(value))
        found += [(value, key) for key in keys]
        for key in keys:
            found += _places(value[key])
    return found


def change_value(directory: Path, random: Random, file: Path | None = None) -> str:
    """Put an odd value, or one of elsewhere in the file, in some place of a JSON file."""
    file = file or _choose_json(directory, random)
    data = json.loads(file.read_text())
    places = _places(data)
    container, key = random.choice(places)
    other, other_key = random.choice(places)
    old, new = container[key], random.choice([*ODD_VALUES, other[other_key]])
    container[key] = json.loads(json.dumps(new))
    file.write_text(json.dumps(data))
    return f"{file.name}: {key} {old!r:.40} -> {new!r:.40}"


def change_key(directory: Path, random: Random) -> str:
    """Remove, rename or add a key of a JSON file."""
    file = _choose_json(directory, random)
    data = json.loads(file.read_text())
    tables = [data, *(value[key] for value, key in _places(data))]
    table = random.choice([t for t in tables if isinstance(t, dict) and t] or [{}])
    new = random.choice(["", "a", "\x1b[2J", "quantization", "rope_scaling", "text_config"])
    old = random.choice(list(table) or [""])
    value = table.pop(old, None)
    if random.random() < 0.7:
        table[new] = random.choice([value, *ODD_VALUES])
    file.write_text(json.dumps(data))
    return f"{file.name}: {old!r} -> {new!r}"


def change_tokenizer(directory: Path, random: Random) -> str:
    """An odd value in tokenizer.json, outside the long lists of its model."""
    file = directory / "tokenizer.json"
    if not file.is_file():  # damaged before, maybe to a pipe
        return "nothing"
    data = json.loads(file.read_text())
    places = [
        (value, key)
        for part in (data, data["model"])
        for value, key in [(part, key) for key in part if key not in ("model", "vocab", "merges")]
    ]
    places += [p for part, key in places for p in _places(part[key])]
    container, key = random.choice(places)
    new = random.choice(ODD_VALUES)
    container[key] = new
    file.write_text(json.dumps(data))
    return f"tokenizer.json: {key} -> {new!r:.40}"


def change_header(directory: Path, random: Random) -> str:
    """An odd value in the header of a safetensors file, its length kept right."""
    file = random.choice(sorted(p for p in directory.rglob("*.safetensors") if p.is_file()))
    raw = file.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + size])
    name = random.choice([key for key in header if key != "__metadata__"])
    field = random.choice(["dtype", "shape", "data_offsets", "name"])
    new = random.choice(
        [*ODD_VALUES, [2**40, 2**40], [0], [-1], [2**63], [0, 2**62], "F8_E4M3", "I64", "BOOL"]
    )
    if field == "name":
        header[str(new) + name] = header.pop(name)
    else:
        header[name][field] = new
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size :])
    return f"{file.name}: {name}.{field} -> {new!r:.40}"


def change_bytes(directory: Path, random: Random) -> str:
    """Some bytes overwritten, cut off, doubled or put in, in any file."""
    file = random.choice(sorted(path for path in directory.rglob("*") if path.is_file()))
    raw = file.read_bytes()
    at = random.randrange(min(len(raw), 4096) or 1)
    piece = random.choice([b"\0" * 8, b"\xff" * 8, b"\x1b[2J", b'"', b"{", random.randbytes(16)])
    how = random.choice(["over", "cut", "twice", "in"])
    new = {
        "over": raw[:at] + piece + raw[at + len(piece) :],
        "cut": raw[:at],
        "twice": raw + raw,
        "in": raw[:at] + piece + raw[at:],
    }[how]
    file.write_bytes(new)
    return f"{file.name}: {how} at {at}: {piece!r}"


def change_files(directory: Path, random: Random) -> str:
    """A file removed, emptied, swapped with another, or made a link, a folder or a pipe."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    file, other = random.choice(files), random.choice(files)
    how = random.choice(["remove", "empty", "swap", "link", "loop", "folder", "pipe"])
    content = other.read_bytes()
    file.unlink()
    if how == "empty":
        file.touch()
    elif how == "swap":
        file.write_bytes(content)
    elif how == "link":
        file.symlink_to(random.choice(["/dev/zero", "/dev/null", "/etc", "nowhere"]))
    elif how == "loop":
        file.symlink_to(file.name)
    elif how == "folder":
        file.mkdir()
    elif how == "pipe":
        os.mkfifo(file)
    return f"{file.name}: {how} ({other.name})"


MUTATIONS: dict[str, Mutation] = {
    function.__name__: function
    for function in (
        change_value,
        change_key,
        change_tokenizer,
        change_header,
        change_bytes,
        change_files,
    )
}
