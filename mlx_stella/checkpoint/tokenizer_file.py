"""tokenizer.json before the library gets it: what in it would hang a process, or fill its memory.

The library takes the file at its word: a normalizer may write a thousand characters for one, and
ids reach beyond 31 bits. What cannot be foreseen, such as a pattern that backtracks without end,
the library gives up by itself.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

from mlx_stella.config import require_regular
from mlx_stella.errors import ConfigError

_MAX_BYTES = 64 * 2**20  # the largest published ones have about 35 MB
_MAX_GROWTH = 256  # NFKC makes 18 characters of one, which SentencePiece's tables repeat
_MAX_AFFIX = 64  # characters, as in "##"
_MAX_WORD = 1000  # characters; BERT's 100. The time for a word grows with its square


def read_tokenizer(path: Path) -> str:
    """The text of a tokenizer.json.

    Raises:
        ConfigError: it is missing, no regular file, too large, not JSON, or asks for what would
            hang or fill memory.
    """
    require_regular(path, _MAX_BYTES)
    try:
        text = path.read_text(encoding="utf-8")
        fault = next(_faults(json.loads(text)), None)
    except (OSError, ValueError, RecursionError, LookupError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"not a tokenizer ({error})", where=path, remedy="download it again"
        ) from None
    if fault is not None:
        raise ConfigError(fault, where=path, remedy="use a checkpoint as published")
    return text


def _faults(data: Mapping[str, Any]) -> Iterator[str]:
    model = data["model"]
    vocabulary = model["vocab"]
    ids = [token["id"] for token in data.get("added_tokens") or []]
    ids += vocabulary.values() if isinstance(vocabulary, dict) else ()
    if max(ids, default=0) >= 2**31:
        yield f"the token id {max(ids)} is beyond 31 bits"
    growth = _growth(data.get("normalizer"))
    if growth > _MAX_GROWTH:
        yield f"its normalizer may make {growth:,} characters of one"
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if len(model.get(name) or "") > _MAX_AFFIX:
            yield f"{name} has {len(model[name]):,} characters"
    if (model.get("max_input_chars_per_word") or 0) > _MAX_WORD:
        yield f"max_input_chars_per_word is {model['max_input_chars_per_word']}"


def _growth(normalizer: Mapping[str, Any] | None) -> int:
    """Characters that a normalizer makes of one, at most; those of Unicode count as none."""
    match normalizer:
        case {"type": "Sequence", "normalizers": steps}:
            return prod(map(_growth, steps))
        case {"type": "Replace", "pattern": pattern, "content": content}:
            return max(1, len(content)) + ("Regex" in pattern)  # it may match between characters
        case {"type": "Prepend", "prepend": start}:
            return 1 + len(start)
        case {"type": "Precompiled", "precompiled_charsmap": table}:
            raw = base64.b64decode(table)  # size of a trie, the trie, then texts that end in NUL
            texts = raw[4 + int.from_bytes(raw[:4], "little") :].split(b"\0")
            return max(1, *map(len, texts))
    return 1
