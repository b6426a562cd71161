"""Texts of an MTEB task get the prompt that the model's authors published for it."""

import pytest
from support import load_tiny

from mlx_stella.checkpoint.prompts import Prompts
from mlx_stella.evaluation.mteb_prompts import options_for

INSTRUCTION = "what mteb says"


def prefix(model: str, task: str, task_type: str, kind: str | None) -> str:
    """What stands before the text."""
    prompts = load_tiny(model).checkpoint.prompts
    options = options_for(prompts, task, task_type, kind, lambda: INSTRUCTION)
    return prompts.choose(options.get("prompt_name"), None, options.get("instruction"))


def instruct(text: str) -> str:
    return f"Instruct: {text}\nQuery: "


NV_EMBED = [  # instructions.json of nvidia/NV-Embed-v2, and table 7 of its paper
    ("ArguAna", "query", "Given a claim, retrieve documents that support or refute the claim"),
    ("TRECCOVID", "query", "Given a query on COVID-19, retrieve documents that answer the query"),
    ("FEVERHardNegatives.v2", "query", "Given a claim, retrieve documents that support or refute "
     "the claim"),
    ("Touche2020Retrieval.v3", "query", "Given a question, retrieve passages that answer the "
     "question"),
    ("QuoraRetrieval", "document", "Given a question, retrieve questions that are semantically "
     "equivalent to the given question"),
    ("CQADupstackUnixRetrieval", "query", "Given a question, retrieve detailed question "
     "descriptions from Stackexchange that are duplicates to the given question"),
]  # fmt: skip


@pytest.mark.parametrize("task, kind, expected", NV_EMBED)
def test_nv_embed_finds_documents(task, kind, expected):
    assert prefix("tiny-nv-embed", task, "Retrieval", kind) == instruct(expected)


def test_nv_embed():
    model = "tiny-nv-embed"
    assert prefix(model, "ArguAna", "Retrieval", "document") == ""
    assert prefix(model, "AskUbuntuDupQuestions", "Reranking", "document") == ""
    for task, task_type, kind, expected in (
        ("STS12", "STS", None, "Retrieve semantically similar text"),
        (
            "SummEvalSummarization.v2",
            "Summarization",
            None,
            "Given a news summary, retrieve other semantically similar summaries",
        ),
        ("Banking77Classification", "Classification", None, INSTRUCTION),
        ("AskUbuntuDupQuestions", "Reranking", "query", INSTRUCTION),
    ):
        assert prefix(model, task, task_type, kind) == instruct(expected)


@pytest.mark.parametrize("model", ["tiny-stella-1.5b", "tiny-stella-400m"])
def test_stella(model):
    passages = "Given a web search query, retrieve relevant passages that answer the query."
    sentences = "Retrieve semantically similar text."
    assert prefix(model, "ArguAna", "Retrieval", "query") == instruct(passages)
    assert prefix(model, "ArguAna", "Retrieval", "document") == ""
    assert prefix(model, "SciDocsRR", "Reranking", "query") == instruct(passages)
    for task_type in ("STS", "Classification", "Clustering", "PairClassification", "Summarization"):
        assert prefix(model, "Any", task_type, None) == instruct(sentences)


def test_models_without_instructions():
    def options(prompts: dict, kind: str | None):
        return options_for(Prompts(prompts), "Any", "Retrieval", kind, lambda: INSTRUCTION)

    piccolo = {"query": "q: ", "document": "d: "}
    assert [options(piccolo, kind) for kind in ("query", "document", None)] == [
        {"prompt_name": "query"},
        {"prompt_name": "document"},
        {},
    ]
    assert options({}, "query") == options({}, "document") == {"prompt_name": None}
