"""Which words go before a text.

A *prompt* is the exact prefix. An *instruction* is a task described in a sentence, which is
wrapped into a prompt, ``Instruct: {instruction}\\nQuery: ``, for models trained that way; some
(Qwen3) without the space at the end, as their own prompts tell.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mlx_stella.errors import InputError

_INSTRUCTION_TEMPLATES = ("Instruct: {}\nQuery: ", "Instruct: {}\nQuery:")

_QUERY_NAMES = ("query", "s2p_query")
_DOCUMENT_NAMES = ("document", "passage", "corpus")
_ALIKE_TASKS = ("s2s", "sts")
"""Tasks that compare texts of one kind: each of them gets the task's prompt."""


@dataclass(frozen=True)
class Prompts:
    """The named prompts of a model.

    Attributes:
        named: name -> prefix.
        default_name: the prompt that ``encode`` applies when none is asked for, if any.
    """

    named: Mapping[str, str]
    default_name: str | None = None

    @property
    def instruction_template(self) -> str | None:
        """What an instruction is put into, as in the model's own prompts; None if in none."""
        for template in _INSTRUCTION_TEMPLATES:
            start, end = template.split("{}")
            if any(p.startswith(start) and p.endswith(end) for p in self.named.values()):
                return template
        return None

    @property
    def takes_instructions(self) -> bool:
        return self.instruction_template is not None

    def choose(self, prompt_name: str | None, prompt: str | None, instruction: str | None) -> str:
        """The prefix for at most one of a name, a literal prompt and an instruction.

        Raises:
            InputError: more than one is given, the name is unknown, or the model takes no
                instructions.
        """
        if sum(value is not None for value in (prompt_name, prompt, instruction)) > 1:
            raise InputError("give one of prompt_name, prompt and instruction, not several")
        if prompt is not None:
            return prompt
        if instruction is not None:
            template = self.instruction_template
            if template is None:
                raise InputError("this model takes no instructions", remedy="give a prompt instead")
            return template.replace("{}", str(instruction))
        name = prompt_name if prompt_name is not None else self.default_name
        if name is None:
            return ""
        if not isinstance(name, str) or name not in self.named:
            raise InputError(f"no prompt is named {name!r}; {self._known()}")
        return self.named[name]

    def for_query(self, task: str | None) -> str | None:
        """The name of the query prompt: by task ("s2s" -> "s2s_query"), or the model's usual one.

        Raises:
            InputError: no prompt belongs to the task.
        """
        wanted = _QUERY_NAMES if task is None else (f"{task}_query", task)
        for name in wanted:
            if name in self.named:
                return name
        if task is not None:
            raise InputError(f"no query prompt for task {task!r}; {self._known()}")
        return None

    def for_document(self) -> str | None:
        """The name of the document prompt, or None: most models take documents as they are."""
        return next((name for name in _DOCUMENT_NAMES if name in self.named), None)

    def for_pair(self, task: str) -> tuple[str, str]:
        """The prefixes of a query of a task, and of what it is compared with.

        Raises:
            InputError: no prompt belongs to the task.
        """
        query = self.for_query(task)
        other = query if task in _ALIKE_TASKS else self.for_document()
        return self.choose(query, None, None), self.choose(other, None, None)

    def _known(self) -> str:
        if self.named:
            return f"remedy: one of {', '.join(self.named)}"
        return "this model has none; remedy: leave it out, or give a literal prompt"
