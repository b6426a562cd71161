"""Make the token ids that transformers gives with a vocab.txt, for tests without transformers.

    $ pip install transformers
    $ python scripts/make_vocabulary_ids.py tests/golden/vocabulary

Writes FOLDER/vocab.txt, of the characters of the texts below and a few words, and FOLDER/ids.json:
the texts, and for each of some tokenizer_config.json and special_tokens_map.json their ids.
"""

import argparse
import json
import random
import shutil
import tempfile
from pathlib import Path

from transformers import AutoTokenizer

WORDS = "deep learning embed ##ding ##s un ##aff ##able naive naïve cafe café 学习 [mask]".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXTS = [
    "Deep Learning embeds",
    "unaffable, naïve café NAIVE CAFÉ",
    "深度学习 deep学习embedding",
    "[MASK] is [mask], [CLS]x[SEP]",
    "如何学习深度学习？Python 3.11。",
    "",
    "   ",
    "\t\n\r",
    "a\x00b\x1b\x7f",
    "e\u0301a\u0308 éä",
    "İstanbul ıſKﬁ",
    "\xa0\u3000x\u2028y\x85z",
    "\u200bx\u200d\ufeff�",
    "👩\u200d👩\u200d👧\u200d👦🏳️\u200d🌈😀",
    "한국어 ひらがな カタカナ",
    "𠮷𪚥",
    "ЖжΣςא ﷺ①½²™",
    "…“”—-_.,!?()[]{}@#$%^&*'\"<>/\\|~`+=",
    "x" * 100,
    "x" * 101,
    "学" * 101,
]
FLAGS = {"lstrip": False, "rstrip": False, "single_word": False}
DECODER = {
    str(number): {"content": token, "normalized": token == "[MASK]", "special": True, **FLAGS}
    for number, token in enumerate(SPECIAL)
}
VARIANTS = {
    "no settings": ({}, None),
    "cased": ({"do_lower_case": False}, None),
    "cased, without accents": ({"do_lower_case": False, "strip_accents": True}, None),
    "with accents": ({"strip_accents": False, "tokenizer_class": "BertTokenizer"}, None),
    "Chinese whole": ({"tokenize_chinese_chars": False}, None),
    "a map": (
        {"cls_token": "[UNK]"},
        {
            "cls_token": "[CLS]",
            "mask_token": {"content": "[MASK]", "normalized": False, **FLAGS, "lstrip": True},
        },
    ),
    "listed tokens": ({"added_tokens_decoder": DECODER}, {"cls_token": "[UNK]"}),
    "others": ({"cls_token": "[SEP]", "sep_token": "[CLS]", "do_lower_case": True}, None),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    chance = random.Random(0)
    pool = [*(c for text in TEXTS[:18] for c in text), *WORDS, *SPECIAL, " ", " ", " "]
    texts = TEXTS + ["".join(chance.choices(pool, k=chance.randint(1, 20))) for _ in range(60)]
    known = [c for c in sorted({c.lower() for c in pool if len(c) == 1}) if c.split()]
    known = [c for c in known if c not in "😀𪚥ж②"]  # some stay unknown
    tokens = [*SPECIAL, *known, *(f"##{c}" for c in known), *WORDS, "A", "D", "É"]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(tokens)) + "\n", encoding="utf-8")
    variants = {}
    for name, (config, special) in VARIANTS.items():
        with tempfile.TemporaryDirectory() as place:
            shutil.copy(folder / "vocab.txt", place)
            Path(place, "config.json").write_text('{"model_type": "bert"}')
            Path(place, "tokenizer_config.json").write_text(json.dumps(config))
            if special:
                Path(place, "special_tokens_map.json").write_text(json.dumps(special))
            ids = AutoTokenizer.from_pretrained(place)(texts)["input_ids"]
        variants[name] = {"config": config, "map": special, "ids": ids}
    found = json.dumps({"texts": texts, "variants": variants}, separators=(",", ":"))
    (folder / "ids.json").write_text(found + "\n")


if __name__ == "__main__":
    main()
