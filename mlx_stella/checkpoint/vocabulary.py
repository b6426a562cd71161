"""vocab.txt, where there is no tokenizer.json: BERT's WordPiece as transformers builds it.

The file has a token a line, whose number is its id. What else there is to say stands in
tokenizer_config.json, and in special_tokens_map.json where that does not list added tokens itself.

Source: transformers' models/bert/tokenization_bert.py and tokenization_utils_base.py.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_stella.config import MAX_JSON_BYTES, read_object, require_regular
from mlx_stella.errors import ConfigError

_SPECIAL = {name: f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")}
_SETTINGS: dict[str, tuple[Any, ...]] = {  # what is implemented, the default first
    "tokenizer_class": (None, "BertTokenizer", "BertTokenizerFast"),
    "do_lower_case": (True, False),
    "tokenize_chinese_chars": (True, False),
    "strip_accents": (None, True, False),
    "do_basic_tokenize": (True,),
    "additional_special_tokens": (None, []),
    "extra_special_tokens": (None, [], {}),
}
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
_MAX_WORD = 100  # characters; of longer words nothing is known


def read_vocabulary(path: Path, config: Mapping[str, Any]) -> str:
    """The tokenizer.json that a vocab.txt stands for.

    Args:
        path: vocab.txt; config: the content of tokenizer_config.json, or an empty mapping.

    Raises:
        ConfigError: the file is missing, too large or not UTF-8, or lacks a special token; or the
            config asks for what is not implemented.
    """
    vocabulary = _read_tokens(path)
    settings, where = _read_settings(path.parent, config)
    listed = _listed(settings, where)
    special = _special_tokens(settings, listed, where)
    added = listed | {token["content"]: token for token in special.values()}
    for content in added:
        if content not in vocabulary:
            raise ConfigError(
                f"lacks the token {content!r:.80}", where=path, remedy="download it again"
            )
    sep, cls = (special[name]["content"] for name in ("sep", "cls"))
    definition = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{**token, "id": vocabulary[text]} for text, token in added.items()],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": settings["tokenize_chinese_chars"],
            "strip_accents": settings["strip_accents"],
            "lowercase": settings["do_lower_case"],
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "BertProcessing",
            "sep": [sep, vocabulary[sep]],
            "cls": [cls, vocabulary[cls]],
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": special["unk"]["content"],
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": _MAX_WORD,
            "vocab": vocabulary,
        },
    }
    return json.dumps(definition)


def _read_settings(folder: Path, config: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    """The settings with their defaults, and the file that has the last word on them."""
    where, tokens_map = folder / "tokenizer_config.json", folder / "special_tokens_map.json"
    if "added_tokens_decoder" not in config and tokens_map.exists():
        config, where = {**config, **read_object(tokens_map)}, tokens_map
    settings = {name: values[0] for name, values in _SETTINGS.items()} | dict(config)
    for name, known in _SETTINGS.items():
        value = settings[name]
        if not any(type(value) is type(usual) and value == usual for usual in known):
            raise _not_implemented(f"{name} = {value!r:.80}", where)
    added = folder / "added_tokens.json"
    if added.exists() and read_object(added):
        raise _not_implemented("a token", added)
    return settings, where


def _not_implemented(what: str, where: Path) -> ConfigError:
    return ConfigError(
        f"{what} is not implemented beside vocab.txt",
        where=where,
        remedy="save the tokenizer by transformers, as tokenizer.json",
    )


def _read_tokens(path: Path) -> dict[str, int]:
    """Token -> id; of a token that is there twice, the later."""
    require_regular(path, MAX_JSON_BYTES)
    try:
        lines = path.read_bytes().decode().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"not a vocabulary ({error})", where=path, remedy="download it again"
        ) from None
    if not lines[-1]:
        lines.pop()
    return {line.rstrip(): number for number, line in enumerate(lines)}


def _special_tokens(
    config: Mapping[str, Any], listed: Mapping[str, dict[str, Any]], where: Path
) -> dict[str, dict[str, Any]]:
    """Unknown, separator and so on: each an entry of tokenizer.json's added_tokens, less its id."""
    found = {}
    for name, usual in _SPECIAL.items():
        token = _added(config.get(f"{name}_token", usual), where)
        found[name] = {**listed.get(token["content"], token), "special": True}
    return found


def _listed(config: Mapping[str, Any], where: Path) -> dict[str, dict[str, Any]]:
    """Text -> entry of each added token that tokenizer_config.json lists; ids are vocab.txt's."""
    listed = config.get("added_tokens_decoder", {})
    if not isinstance(listed, dict):
        raise ConfigError("added_tokens_decoder is no table", where=where)
    tokens = [_added(token, where) for token in listed.values()]
    return {token["content"]: token for token in tokens}


def _added(token: Any, where: Path) -> dict[str, Any]:
    """An added token, which is spelled as its text or as a table of text and flags."""
    table = token if isinstance(token, dict) else {"content": token}
    content = table.get("content")
    flags = {flag: table.get(flag, False) for flag in _FLAGS}
    if not isinstance(content, str) or not all(type(flag) is bool for flag in flags.values()):
        raise ConfigError(
            f"an added token is {token!r:.80}", where=where, remedy="download it again"
        )
    return {"content": content, **flags, "special": table.get("special") is True}
