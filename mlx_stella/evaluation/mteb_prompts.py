"""Which prompt goes before the texts of an MTEB task, by what the model's authors published.

Stella's cards name two prompts: one for questions to passages, one for sentences of equal kind.
NV-Embed-v2's repository has instructions.json with one for each task of retrieval, for STS and for
summaries. For the others its paper's table 7 (arXiv 2405.17428) says what MTEB's own tasks say, but
for those few that say nothing.
"""

import re
from collections.abc import Callable

from mlx_stella.checkpoint.prompts import Prompts
from mlx_stella.encoding.settings import EncodeOptions

_TYPES = {"STS": "sts", "Summarization": "summ"}
_VARIANT = re.compile(r"(retrieval|hardnegatives)?(\.v\d+)?$")
_TABLE_7 = {
    "cqadupstack": "Given a question, retrieve detailed question descriptions from Stackexchange "
    "that are duplicates to the given question",
    "arxivhierarchicalclusteringp2p": "Identify the main and secondary category of Arxiv papers "
    "based on the titles and abstracts",
    "arxivhierarchicalclusterings2s": "Identify the main and secondary category of Arxiv papers "
    "based on the titles",
}
_SYMMETRIC = {"quoraretrieval"}  # instructions.json names the same for the corpus


def options_for(
    prompts: Prompts, task: str, task_type: str, kind: str | None, instruction: Callable[[], str]
) -> EncodeOptions:
    """How ``Encoder.encode`` is to be called for texts of a task.

    Args:
        prompts: of the model.
        task: its name in MTEB, such as "ArguAna"; task_type: such as "Retrieval" or "STS".
        kind: "query" or "document" in tasks that look for documents, else None.
        instruction: what MTEB itself says of the task, asked for only where it is used.
    """
    own = _own(prompts, task, task_type)
    if kind == "document" and own not in _SYMMETRIC:
        return {"prompt_name": prompts.for_document()}
    if own is not None:
        return {"prompt_name": own}
    if "s2s_query" in prompts.named:
        return {"prompt_name": "s2p_query" if kind == "query" else "s2s_query"}
    if prompts.takes_instructions:
        known = (text for name, text in _TABLE_7.items() if task.lower().startswith(name))
        return {"instruction": next(known, None) or instruction()}
    return {"prompt_name": prompts.for_query(None)} if kind == "query" else {}


def _own(prompts: Prompts, task: str, task_type: str) -> str | None:
    """The prompt that is named after the task, or after its type."""
    name = task.lower()
    names = (name, _VARIANT.sub("", name), _TYPES.get(task_type))
    return next((name for name in names if name in prompts.named), None)
