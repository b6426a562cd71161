"""Numbers that others published, for ``verify`` and ``demo``: texts, settings, expected values.

Texts are exact to the character. Sources are the model cards unless said otherwise. Left out:
the similarities that go round with gte-Qwen2-1.5B, whose settings nobody states.
"""

from dataclasses import dataclass

import numpy as np

from mlx_stella.encoding.encoder import Encoder
from mlx_stella.errors import InputError

_STELLA_QUERIES = (
    "What are some ways to reduce stress?",
    "What are the benefits of drinking green tea?",
)
_STELLA_PASSAGES = (
    (
        "There are many effective ways to reduce stress. Some common techniques "
        "include deep breathing, meditation, and physical activity. Engaging in "
        "hobbies, spending time in nature, and connecting with loved ones can also "
        "help alleviate stress. Additionally, setting boundaries, practicing "
        "self-care, and learning to say no can prevent stress from building up."
    ),
    (
        "Green tea has been consumed for centuries and is known for its potential "
        "health benefits. It contains antioxidants that may help protect the body "
        "against damage caused by free radicals. Regular consumption of green tea "
        "has been associated with improved heart health, enhanced cognitive "
        "function, and a reduced risk of certain types of cancer. The polyphenols in "
        "green tea may also have anti-inflammatory and weight loss properties."
    ),
)
_NV_QUERIES = (
    "are judo throws allowed in wrestling?",
    "how to become a radiology technician in michigan?",
)
_NV_PASSAGES = (
    (
        "Since you're reading this, you are probably someone from a judo background "
        "or someone who is just wondering how judo techniques can be applied under "
        "wrestling rules. So without further ado, let's get to the question. Are "
        "Judo throws allowed in wrestling? Yes, judo throws are allowed in freestyle "
        "and folkstyle wrestling. You only need to be careful to follow the slam "
        "rules when executing judo throws. In wrestling, a slam is lifting and "
        "returning an opponent to the mat with unnecessary force."
    ),
    (
        "Below are the basic steps to becoming a radiologic technologist in "
        "Michigan:Earn a high school diploma. As with most careers in health care, a "
        "high school education is the first step to finding entry-level employment. "
        "Taking classes in math and science, such as anatomy, biology, chemistry, "
        "physiology, and physics, can help prepare students for their college "
        "studies and future careers.Earn an associate degree. Entry-level radiologic "
        "positions typically require at least an Associate of Applied Science. "
        "Before enrolling in one of these degree programs, students should make sure "
        "it has been properly accredited by the Joint Review Committee on Education "
        "in Radiologic Technology (JRCERT).Get licensed or certified in the state of "
        "Michigan."
    ),
)
_GTE_QWEN_QUERIES = (
    "how much protein should a female eat",
    "summit define",
)
_GTE_QWEN_PASSAGES = (
    (
        "As a general guideline, the CDC's average requirement of protein for women "
        "ages 19 to 70 is 46 grams per day. But, as you can see from this chart, "
        "you'll need to increase that if you're expecting or training for a "
        "marathon. Check out the chart below to see how much protein you should be "
        "eating each day."
    ),
    (
        "Definition of summit for English Language Learners. : 1  the highest point "
        "of a mountain : the top of a mountain. : 2  the highest level. : 3  a "
        "meeting or series of meetings between the leaders of two or more "
        "governments."
    ),
)
_CAPITAL = ("what is the capital of China?",)
_CAPITAL_ANSWERS = ("how to implement quick sort in python?", "Beijing", "sorting algorithms")
_CHINA_AND_GRAVITY = ("What is the capital of China?", "Explain gravity")
_CHINA_AND_GRAVITY_ANSWERS = (
    "The capital of China is Beijing.",
    "Gravity is a force that attracts two bodies towards each other. It gives weight to physical "
    "objects and is responsible for the movement of planets around the sun.",
)
_M3_QUERIES = ("What is BGE M3?", "Defination of BM25")  # as the card spells it
_M3_PASSAGES = (
    "BGE M3 is an embedding model supporting dense retrieval, lexical matching and multi-vector "
    "interaction.",
    "BM25 is a bag-of-words retrieval function that ranks a set of documents based on the query "
    "terms appearing in each document",
)
_PUMPKIN = (
    "1.清炒南瓜丝 原料:嫩南瓜半个 调料:葱、盐、白糖、鸡精 做法: "
    "1、南瓜用刀薄薄的削去表面一层皮,用勺子刮去瓤 2、擦成细丝(没有擦菜板就用刀慢慢切成细丝) "
    "3、锅烧热放油,入葱花煸出香味 4、入南瓜丝快速翻炒一分钟左右,放盐、一点白糖和鸡精调味出锅 "
    "2.香葱炒南瓜 原料:南瓜1只 调料:香葱、蒜末、橄榄油、盐 做法: 1、将南瓜去皮,切成片 "
    "2、油锅8成热后,将蒜末放入爆香 3、爆香后,将南瓜片放入,翻炒 "
    "4、在翻炒的同时,可以不时地往锅里加水,但不要太多 5、放入盐,炒匀 "
    "6、南瓜差不多软和绵了之后,就可以关火 7、撒入香葱,即可出锅"
)
_WEATHER = ("The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.")
_DEEP_LEARNING = ("What is Deep Learning?", "Deep Learning is...")

TOLERANCES = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 4e-2}
"""What rounding may cost a similarity of unit vectors, by the type of the products."""


@dataclass(frozen=True)
class Similarities:
    """Published similarities of queries to passages.

    Attributes:
        alias: the model; ``title``: what was published and where.
        queries, passages: the texts; embedded with ``query_prompt`` and ``passage_prompt``.
        expected: one row a query, one column a passage.
        dim: the head; None is the default one.
        uncertainty: of the published figures: half their last digit, or more where said.
    """

    alias: str
    title: str
    queries: tuple[str, ...]
    passages: tuple[str, ...]
    expected: tuple[tuple[float, ...], ...]
    query_prompt: str | None = None
    passage_prompt: str | None = None
    dim: int | None = None
    uncertainty: float = 1e-6

    def compute(self, model: Encoder) -> np.ndarray:
        queries = model.encode(self.queries, prompt_name=self.query_prompt, dim=self.dim)
        passages = model.encode(self.passages, prompt_name=self.passage_prompt, dim=self.dim)
        return model.similarity(queries, passages)


@dataclass(frozen=True)
class Values:
    """Published entries of one text's vector, by their index; otherwise as Similarities."""

    alias: str
    title: str
    text: str
    indices: tuple[int, ...]
    expected: tuple[float, ...]
    normalize: bool
    prompt: str | None = None
    dim: int | None = None
    uncertainty: float = 6e-5

    def compute(self, model: Encoder) -> np.ndarray:
        """Raises InputError if the vectors are shorter: then it is another model."""
        vector = model.encode(
            self.text, prompt_name=self.prompt, dim=self.dim, normalize=self.normalize
        )
        if len(vector) <= max(self.indices):
            raise InputError(
                f"no vector of {self.alias}: it has {len(vector)} entries, and one of entry "
                f"{max(self.indices)} was published",
                remedy="rename the folder if it holds another model",
            )
        return vector[list(self.indices)]


Example = Similarities | Values

# TEI computes GELU by its tanh approximation; these models were trained with the exact one.
_TANH_GELU = 5e-4

# Computed in float16 throughout.
_IN_FLOAT16 = 1e-3


def _qwen3_embedding(size: str, *expected: tuple[float, float], uncertainty: float) -> Similarities:
    return Similarities(
        f"qwen3-embedding-{size}",
        "model card",
        _CHINA_AND_GRAVITY,
        _CHINA_AND_GRAVITY_ANSWERS,
        expected,
        query_prompt="query",
        uncertainty=uncertainty,
    )


EXAMPLES: tuple[Example, ...] = (
    Similarities(
        "stella-1.5b",
        "model card, head of 1024",
        _STELLA_QUERIES,
        _STELLA_PASSAGES,
        ((0.8178789, 0.2958377), (0.31938642, 0.7853526)),
        query_prompt="s2p_query",
        dim=1024,
    ),
    Values(
        "stella-1.5b",
        "candle's README, vector as it leaves the head",
        "What are safetensors?",
        (0, 1, 2, 1021, 1022, 1023),
        (0.3905, -0.0130, 0.2072, -0.1100, -0.0086, 0.6002),
        normalize=False,
        prompt="s2p_query",
        dim=1024,
    ),
    Similarities(
        "stella-400m",
        "model card, head of 1024",
        _STELLA_QUERIES,
        _STELLA_PASSAGES,
        ((0.8397531, 0.29900077), (0.32818374, 0.80954516)),
        query_prompt="s2p_query",
        dim=1024,
    ),
    Similarities(
        "stella-400m",
        "text-embeddings-inference test_dense, head of 1024",
        _DEEP_LEARNING[:1],
        _DEEP_LEARNING[1:],
        ((0.88246253,),),
        dim=1024,
        uncertainty=_TANH_GELU,
    ),
    Similarities(
        "stella-400m",
        "text-embeddings-inference test_dense, head of 768",
        _DEEP_LEARNING[:1],
        _DEEP_LEARNING[1:],
        ((0.88605024,),),
        dim=768,
        uncertainty=_TANH_GELU,
    ),
    Similarities(
        "nv-embed-v2",
        "model card",
        _NV_QUERIES,
        _NV_PASSAGES,
        ((0.8742693328857422, 0.0046283677220344543), (0.00965264618396759, 0.8603721618652344)),
        query_prompt="query",
    ),
    Values(
        "nv-embed-v2",
        "candle's README",
        "Here is a test sentence",
        (0, 1, 2, 4093, 4094, 4095),
        (0.0066, -0.0048, 0.0066, -0.0096, 0.0119, -0.0052),
        normalize=True,
    ),
    Similarities(
        "nv-embed-v1",
        "model card",
        _NV_QUERIES,
        _NV_PASSAGES,
        ((0.779402084350586, 0.004248958230018616), (0.03757718086242676, 0.7960113525390625)),
        query_prompt="query",
    ),
    Similarities(
        "gte-qwen2-7b",
        "measured by the maintainers of mteb, float32",
        _GTE_QWEN_QUERIES,
        _GTE_QWEN_PASSAGES,
        (
            (0.7039706420898438, 0.034318461418151855),
            (0.04516170978546143, 0.8191815948486328),
        ),
        query_prompt="query",
    ),
    Similarities(
        "gte-base-en-v1.5",
        "model card",
        _CAPITAL,
        _CAPITAL_ANSWERS,
        ((0.34504930869007296, 0.6403973265120138, 0.19520042686034362),),
    ),
    Similarities(
        "gte-large-en-v1.5",
        "model card",
        _CAPITAL,
        _CAPITAL_ANSWERS,
        ((0.4186354093370361, 0.7707076371259589, 0.3702981979677899),),
    ),
    _qwen3_embedding(
        "0.6b",
        (0.7645568251609802, 0.14142508804798126),
        (0.13549736142158508, 0.5999549627304077),
        uncertainty=1e-6,
    ),
    _qwen3_embedding("4b", (0.7534, 0.1147), (0.0320, 0.6258), uncertainty=6e-5),
    _qwen3_embedding("8b", (0.7493, 0.0751), (0.0880, 0.6318), uncertainty=6e-5),
    Similarities(
        "bge-m3",
        "model card",
        _M3_QUERIES,
        _M3_PASSAGES,
        ((0.6265, 0.3477), (0.3499, 0.678)),
        uncertainty=_IN_FLOAT16,
    ),
    Similarities(
        "e5-large-instruct",
        "model card",
        (_GTE_QWEN_QUERIES[0], "南瓜的家常做法"),
        (_GTE_QWEN_PASSAGES[0], _PUMPKIN),
        ((0.9192852783203125, 0.67580322265625), (0.703814468383789, 0.921330795288086)),
        query_prompt="query",
    ),
    Similarities(
        "gte-modernbert-base",
        "model card",
        _CAPITAL,
        _CAPITAL_ANSWERS,
        ((0.4289073944091797, 0.7130911254882812, 0.33664554595947266),),
    ),
    Similarities(
        "embeddinggemma-300m",
        "model card",
        ("Which planet is known as the Red Planet?",),
        (
            "Venus is often called Earth's twin because of its similar size and proximity.",
            "Mars, known for its reddish appearance, is often referred to as the Red Planet.",
            "Jupiter, the largest planet in our solar system, has a prominent red spot.",
            "Saturn, famous for its rings, is sometimes mistaken for the Red Planet.",
        ),
        ((0.3011, 0.6359, 0.4930, 0.4889),),
        query_prompt="query",
        passage_prompt="document",
        uncertainty=6e-5,
    ),
    Similarities(
        "all-minilm-l6-v2",
        "sentence-transformers' quickstart",
        _WEATHER,
        _WEATHER,
        ((1.0, 0.6660, 0.1046), (0.6660, 1.0, 0.1411), (0.1046, 0.1411, 1.0)),
        uncertainty=6e-5,
    ),
)


def examples(alias: str) -> list[Example]:
    """All published examples of a model; none if nothing was published."""
    return [example for example in EXAMPLES if example.alias == alias]


def retrieval_example(alias: str | None) -> Similarities:
    """Questions and passages to show retrieval with: the model's own, else those of Stella."""
    for example in EXAMPLES:
        if example.alias == alias and isinstance(example, Similarities) and example.query_prompt:
            return example
    return Similarities(alias or "", "", _STELLA_QUERIES, _STELLA_PASSAGES, ())
