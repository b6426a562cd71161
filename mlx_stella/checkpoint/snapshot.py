"""The files of a snapshot in the Hub's cache: what they lack, and what in them is false."""

from collections.abc import Iterator
from pathlib import Path

_MAX_HEADER_BYTES = 100 * 2**20  # of a safetensors file, as its specification says
_STARTS = {".json": (b"{", b"["), ".safetensors": (b"{",), ".bin": (b"P", b"\x80")}
"""The first character of a file by its kind, behind the header's size in safetensors."""


def substitutes(directory: Path) -> Iterator[str]:
    """Patterns of what is fetched only where its better form is missing: pickles, vocab.txt."""
    for config in sorted({*directory.glob("config.json"), *directory.glob("*_*/config.json")}):
        folder = config.parent
        place = "" if folder == directory else f"{folder.name}/"
        is_backbone = not place or folder.name.endswith("_Transformer")
        if is_backbone and not (folder / "tokenizer.json").exists():
            yield f"{place}vocab.txt"
        if (is_backbone or "_Dense" in place) and not any(folder.glob("*.safetensors")):
            yield f"{place}pytorch_model*.bin"


def drop_false(directory: Path) -> str | None:
    """Take a file out of the cache that is not what its name says, such as a login page.

    Returns its name, or None where there is no such file.
    """
    for path in sorted(directory.rglob("*")):
        if path.suffix not in _STARTS:
            continue
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little") if path.suffix == ".safetensors" else 0
            start = file.read(1024).lstrip()[:1]
        if start not in _STARTS[path.suffix] or size > _MAX_HEADER_BYTES:
            blob = path.resolve()
            path.unlink()
            if blob.is_relative_to(directory.parents[1].resolve()):
                blob.unlink(missing_ok=True)
            return path.name
    return None
