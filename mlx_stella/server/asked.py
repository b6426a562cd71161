"""What a request of any protocol comes to: texts, a model, and the words that go before a text.

Most clients cannot say whether a text is a question or a passage. They can choose a model's name,
so ``stella-400m:query`` is stella-400m with its query prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from urllib.parse import quote

from mlx_stella.encoding.encoder import Encoder
from mlx_stella.encoding.settings import (
    EncodeOptions,
    OnLong,
    Settings,
    one_or_several,
    prefix_size,
)
from mlx_stella.errors import InputError
from mlx_stella.server.faults import RequestError

MOST_TEXTS = 2048
MOST_TOKENS = 300_000
"""Of a request, as OpenAI has it."""

MOST_CHARACTERS = 16 * MOST_TOKENS
"""A request of more is refused before it is tokenized, which takes memory for all of them."""

_INTERACTIVE_TEXTS, _INTERACTIVE_CHARACTERS = 16, 8192

_QUERY = ("query", "search_query")
_DOCUMENT = ("document", "passage", "search_document")
_KINDS = (*_QUERY, *_DOCUMENT)
"""Of texts; what else a request names is a task or a prompt."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request, in the words of this package.

    Attributes:
        texts: N strings.
        model: the name that the client gave, with a suffix such as ":query", or not.
        prompt, instruction, prompt_name, input_type: which words go before each text; the first
            that is given is taken, then the model's suffix, then the served default.
            ``input_type`` is query, document, passage, search_query, search_document or the name
            of a prompt.
        dims: sizes of the vectors; none for the model's own.
        truncate_dim: how many numbers of each vector are kept, the first ones; None for all.
        on_long: what happens to texts that are too long; None for the served default.
        max_length: tokens a text may have, at most the model's; None for those.
        is_interactive: whether somebody waits for it; None to tell by its size.
        client: who asks; clients take turns.
        keep_alive: seconds that the model stays loaded; negative for ever, None for the default.
    """

    texts: Sequence[str]
    model: str
    prompt: str | None = None
    instruction: str | None = None
    prompt_name: str | None = None
    input_type: str | None = None
    dims: Sequence[int] = ()
    truncate_dim: int | None = None
    normalize: bool = True
    on_long: OnLong | None = None
    max_length: int | None = None
    is_interactive: bool | None = None
    client: str = ""
    keep_alive: float | None = None

    def __post_init__(self) -> None:
        if len(self.texts) > MOST_TEXTS:
            raise RequestError(
                f"{len(self.texts)} texts, at most {MOST_TEXTS} are taken",
                param="input",
                remedy="several requests",
            )
        if self.characters > MOST_CHARACTERS:
            raise RequestError(
                f"{self.characters} characters, at most {MOST_CHARACTERS} are taken",
                param="input",
                remedy="several requests",
            )

    @cached_property
    def characters(self) -> int:
        """Of all texts; a text that is no string is told later, with its number."""
        return sum(len(text) for text in self.texts if isinstance(text, str))

    @property
    def goes_first(self) -> bool:
        """Whether it goes before bulk: it says so, or is few short texts."""
        if self.is_interactive is not None:
            return self.is_interactive
        few = len(self.texts) <= _INTERACTIVE_TEXTS
        return few and self.characters <= _INTERACTIVE_CHARACTERS


def split_name(name: str) -> tuple[str, str | None]:
    """A model's name and its suffix, None where there is none; Ollama's tag latest is none."""
    base, colon, suffix = name.partition(":")
    return base, suffix if colon and suffix not in ("", "latest") else None


def settle(
    asked: Asked,
    suffix: str | None,
    encoder: Encoder,
    default_prompt: str | None = None,
    default_on_long: OnLong = "truncate",
) -> tuple[Settings, str]:
    """The settings of a request, and the name of its prompt, as a header may tell it.

    Args:
        suffix: of the model's name.
        default_prompt, default_on_long: what is served where a request says nothing.

    Raises:
        RequestError: a size, a prompt or a length is not the model's; the field is named.
    """
    dims = list(dict.fromkeys(asked.dims)) or [encoder.default_dim]
    try:
        sizes = one_or_several(None, dims, encoder.checkpoint)
    except InputError as error:
        raise RequestError(error.fault, param="dimensions", remedy=error.remedy) from None
    try:
        kept = prefix_size(asked.truncate_dim, sizes, by_size=len(sizes) > 1)
    except InputError as error:
        raise RequestError(error.fault, param="truncate_dim", remedy=error.remedy) from None
    choice = _prompt_of(asked, suffix, encoder, default_prompt)
    try:
        settings = encoder.settings(
            prompt_name=choice.get("prompt_name"),
            prompt=choice.get("prompt"),
            instruction=choice.get("instruction"),
            dims=dims,
            normalize=asked.normalize,
            max_length=asked.max_length and min(asked.max_length, encoder.max_seq_length),
            on_long=asked.on_long or default_on_long,
        )
    except InputError as error:
        param = next((name for name, value in choice.items() if value is not None), None)
        raise RequestError(error.fault, param=param, remedy=error.remedy) from None
    # Whether the model was trained to be cut is for the log of whoever asks, not for the server's.
    settings = replace(settings, by_size=kept is None, truncate_dim=kept)
    return settings, _label(choice, settings, encoder)


def _prompt_of(
    asked: Asked, suffix: str | None, encoder: Encoder, default: str | None
) -> EncodeOptions:
    if asked.prompt is not None and asked.instruction is not None:
        raise RequestError("give a prompt or an instruction, not both", param="prompt")
    if asked.prompt is not None:
        return {"prompt": asked.prompt}
    if asked.instruction is not None:
        return {"instruction": asked.instruction}
    if asked.prompt_name is not None:
        return {"prompt_name": asked.prompt_name}
    if asked.input_type is not None:
        return {"prompt_name": _named(asked.input_type, "input_type", encoder)}
    if suffix is not None:
        return {"prompt_name": _named(suffix, "model", encoder)}
    return {"prompt_name": default and _named(default, "model", encoder)}


def _named(kind: str, param: str, encoder: Encoder) -> str | None:
    """The name of the prompt for a kind of text; None where the model has none for it."""
    prompts = encoder.checkpoint.prompts
    if kind == "query":  # as encode_query and encode_document choose, whatever a prompt is called
        return prompts.for_query(None)
    if kind == "document":
        return prompts.for_document()
    if kind in _KINDS and kind in prompts.named:
        return kind
    if kind in _QUERY:
        return prompts.for_query(None)
    if kind in _DOCUMENT:
        return prompts.for_document()
    try:
        return prompts.for_query(kind)
    except InputError:
        known = ", ".join(dict.fromkeys(("query", "document", *prompts.named)))
        raise RequestError(
            f"no prompt is for {kind!r}", param=param, remedy=f"one of {known}"
        ) from None


def _label(choice: EncodeOptions, settings: Settings, encoder: Encoder) -> str:
    if not settings.prefix:
        return "none"
    if choice.get("instruction") is not None:
        return "instruction"
    names = (name for name, words in encoder.prompts.items() if words == settings.prefix)
    return quote(choice.get("prompt_name") or next(names, "custom"))
