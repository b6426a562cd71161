"""Text to token ids, as each reference does it. The only file that knows ``tokenizers``.

The settings for padding and truncation stored in tokenizer.json are overridden: stella_en_400M_v5
ships "pad everything to 512". The end-of-sequence token comes exactly once:

- it stands in tokenizer.json's template (Stella 1.5B), and nothing is added;
- tokenizer_config.json asks for it and the template lacks it (gte-Qwen2), and it is appended;
- the reference writes it into the text (NV-Embed), so truncation may cut it off, as there.
"""

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as TokenizerFile
from tokenizers import processors

from mlx_stella.checkpoint.tokenizer_file import read_tokenizer
from mlx_stella.checkpoint.vocabulary import read_vocabulary
from mlx_stella.errors import ConfigError, InputError


@dataclass(frozen=True)
class Tokens:
    """One text, tokenized: the ids that fit, and how many there were before truncation."""

    ids: Sequence[int]
    untruncated_length: int


@dataclass(frozen=True)
class Piece:
    """A token as people see it.

    Attributes:
        text: the part of the text it stands for; a special token's own name.
        start, end: where that part lies, in characters; None for a special token.
    """

    id: int
    text: str
    start: int | None = None
    end: int | None = None

    @property
    def is_special(self) -> bool:
        return self.start is None


class Tokenizer:
    """tokenizer.json with the reference's handling of special tokens.

    Args:
        path: tokenizer.json, or vocab.txt.
        config: the content of tokenizer_config.json, or an empty mapping.
        eos_as_text: append the EOS token to each text, as NV-Embed's reference does.
        lower_case: lower the text first (sentence_bert_config.json's do_lower_case).

    Raises:
        ConfigError: the file is missing or malformed, or lacks the EOS token it should append.
    """

    def __init__(
        self, path: Path, config: Mapping[str, Any], eos_as_text: bool, lower_case: bool = False
    ):
        self._path = path
        text = read_vocabulary(path, config) if path.suffix == ".txt" else read_tokenizer(path)
        with self._used("not a tokenizer"):
            self._tokenizer = TokenizerFile.from_str(text)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._lower_case = lower_case
        # Truncation is a state of the library's object; a stream tokenizes in a thread of its own.
        self._lock = threading.Lock()
        eos = _content(config.get("eos_token"))
        self._text_suffix = ""
        if eos_as_text or config.get("add_eos_token") is True:
            if eos is None or self._tokenizer.token_to_id(eos) is None:
                raise ConfigError(
                    f"lacks the EOS token {eos!r} of tokenizer_config.json", where=path
                )
            if eos_as_text:
                self._text_suffix = eos
            else:
                self._append_eos(eos)

    @contextlib.contextmanager
    def _used(self, fault: str = "cannot tokenize a text") -> Iterator[None]:
        """Tell what the library raises: bare Exceptions, and a panic that is not even one."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, Exception) or type(error).__name__ == "PanicException":
                raise ConfigError(
                    f"{fault} ({error})", where=self._path, remedy="download it again"
                ) from None
            raise

    def _append_eos(self, eos: str) -> None:
        eos_id = self._tokenizer.token_to_id(eos)
        with self._used():
            is_there = self._tokenizer.encode("a").ids[-1:] == [eos_id]
        if is_there:
            return
        template = processors.TemplateProcessing(
            single=f"$A {eos}", pair=None, special_tokens=[(eos, eos_id)]
        )
        existing = self._tokenizer.post_processor
        steps = [template] if existing is None else [existing, template]
        self._tokenizer.post_processor = processors.Sequence(steps)

    @property
    def special_tokens(self) -> int:
        """Special tokens that each text gets and that count towards the maximal length."""
        return self._tokenizer.num_special_tokens_to_add(False)

    @property
    def definition(self) -> str:
        """tokenizer.json as it is used here, for programs that count tokens: nothing is cut."""
        with self._lock:
            self._tokenizer.no_truncation()
            return self._tokenizer.to_str()

    def count(self, text: str) -> int:
        """The tokens of a text, without special ones; nothing is cut."""
        with self._lock:
            self._tokenizer.no_truncation()
            with self._used():
                return len(self._tokenizer.encode(text, add_special_tokens=False))

    def pieces(self, text: str, special: bool = True) -> list[Piece]:
        """The tokens of a text, with special ones or without; nothing is cut.

        Raises:
            InputError: it is no string or not valid Unicode.
        """
        check_text(text, where="the text")
        if self._lower_case:
            text = text.lower()
        whole = text + self._text_suffix if special else text
        with self._lock, self._used():
            self._tokenizer.no_truncation()
            found = self._tokenizer.encode(whole, add_special_tokens=special)
        rows = zip(found.ids, found.tokens, found.offsets, found.special_tokens_mask, strict=True)
        return [
            Piece(number, token)
            if is_special or start >= len(text) > 0
            else Piece(number, whole[start:end], start, end)
            for number, token, (start, end), is_special in rows
        ]

    def encode(
        self, texts: Sequence[str], prompt: str, max_length: int, first: int = 0
    ) -> list[Tokens]:
        """Tokenize ``prompt + text`` for each text, cutting on the right after max_length tokens.

        Special tokens of the template count towards max_length and survive truncation. Errors
        count the texts from ``first``.

        Raises:
            InputError: a text is not a string or not valid Unicode; the row is named.
        """
        check_text(prompt, where="the prompt")
        for row, text in enumerate(texts, start=first):
            check_text(text, row=row)
        inputs = [prompt + text + self._text_suffix for text in texts]
        if self._lower_case:
            inputs = [text.lower() for text in inputs]
        with self._lock, self._used():
            self._tokenizer.enable_truncation(max_length)
            encodings = self._tokenizer.encode_batch(inputs)
        special = self.special_tokens
        tokens = []
        for encoding in encodings:
            cut = sum(len(part) - special for part in encoding.overflowing)
            tokens.append(Tokens(encoding.ids, len(encoding) + cut))
        return tokens

    def prompt_length(self, prompt: str) -> int:
        """Leading tokens that a masked prompt takes out of the pooling.

        NV-Embed's reference counts ``tokenize(instruction)``, without BOS: for an instruction
        that ends in a space that is BOS and all of the instruction, since the space alone is a
        token that merges into the text. sentence-transformers counts the prompt's ids with the
        special tokens before it.
        """
        if not prompt:
            return 0
        with self._lock, self._used():
            self._tokenizer.no_truncation()
            encoding = self._tokenizer.encode(prompt, add_special_tokens=not self._text_suffix)
        if self._text_suffix:
            return len(encoding)
        return len(encoding) - (encoding.special_tokens_mask[-1:] == [1])


def _content(token: str | Mapping[str, Any] | None) -> str | None:
    """The text of a special token, which tokenizer_config.json spells in two ways."""
    content = token.get("content") if isinstance(token, Mapping) else token
    return content if isinstance(content, str) else None


def check_text(text: object, *, where: str | None = None, row: int | None = None) -> None:
    """Refuse what is not a string of valid Unicode; where or which row, the caller knows.

    Raises:
        InputError: saying which text it is, and what is wrong with it.
    """
    if not isinstance(text, str):
        fault, remedy = f"a {type(text).__name__}, not a string", "pass str"
        raise InputError(fault, where=where, row=row, remedy=remedy)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"not valid Unicode, a lone surrogate at position {error.start}",
            where=where,
            row=row,
            remedy="decode the source with the right encoding",
        ) from None
