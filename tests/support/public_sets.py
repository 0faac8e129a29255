"""Copies of the public data sets as they lie on the hub: their files, columns and types, with our own words.

No line of the originals is in here. `write` makes the folders; the tests read them as they would a mirror.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, Features, List, Sequence, Value, disable_progress_bars

TEXT, NUMBER, FLAG = Value("string"), Value("int64"), Value("bool")
TURNS = List({"content": TEXT, "role": TEXT})


def _turns(*texts: str) -> list[dict[str, str]]:
    return [{"content": text, "role": ("user", "assistant")[n % 2]} for n, text in enumerate(texts)]


def _arena(number: int, language: str, a: list[Any], b: list[Any]) -> dict[str, Any]:
    return {
        "question_id": f"q{number}", "model_a": "model-x", "model_b": "model-y", "winner": "model_a",
        "judge": "arena_user_1", "conversation_a": a, "conversation_b": b, "turn": len(a) // 2, "anony": True,
        "language": language, "tstamp": 1.5,
        "openai_moderation": {
            "categories": {"hate": False}, "category_scores": {"hate": 0.1}, "flagged": False,
        },
        "toxic_chat_tag": {"roberta-large": {"flagged": False, "probability": 0.1}},
    }  # fmt: skip


ARENA = (
    Features({
        "question_id": TEXT, "model_a": TEXT, "model_b": TEXT, "winner": TEXT, "judge": TEXT,
        "conversation_a": TURNS, "conversation_b": TURNS, "turn": NUMBER, "anony": FLAG, "language": TEXT,
        "tstamp": Value("float64"),
        "openai_moderation": {
            "categories": {"hate": FLAG}, "category_scores": {"hate": Value("float64")}, "flagged": FLAG,
        },
        "toxic_chat_tag": {"roberta-large": {"flagged": FLAG, "probability": Value("float64")}},
    }),
    [
        _arena(1, "English", _turns("Name a bird.", "A wren."), _turns("Name a bird.", "An owl, for one.")),
        _arena(
            2, "English", _turns("Is tea hot?", "It is.", "And ice?", "No."),
            _turns("Is tea hot?", "Often.", "And ice?", "It is cold."),
        ),
        _arena(3, "German", _turns("Guten Tag", "Hallo!"), _turns("Guten Tag", "")),
    ],
)  # fmt: skip

PREFERENCES = [
    {
        "chosen": f"\n\nHuman: Where is town {n}?\n\nAssistant: By the sea: see\n\nthe map.",
        "rejected": f"\n\nHuman: Where is town {n}?\n\nAssistant: No idea, {n}.",
    }
    for n in range(40)
]
PREFERENCES[1] = {
    "chosen": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Sing!\n\nAssistant: La la.",
    "rejected": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Sing!\n\nAssistant: No.",
}

AMAZON = (
    Features({"query": TEXT, "answer": TEXT}),
    [
        {"query": "Does it float?", "answer": "Ours did."},
        {"query": "Is it blue?", "answer": "Rather green."},
    ],
)

COQA = (
    Features({
        "source": TEXT, "story": TEXT, "questions": List(TEXT),
        "answers": Sequence({
            "input_text": TEXT, "answer_start": Value("int32"), "answer_end": Value("int32"),
        }),
    }),
    [
        {
            "source": "made up", "story": f"Ann {n} has a red kite.", "questions": ["Who?", "What colour?"],
            "answers": {"input_text": [f"Ann {n}", "red"], "answer_start": [0, 12], "answer_end": [3, 15]},
        }
        for n in range(20)
    ],
)  # fmt: skip

CORNELL = (
    Features({
        **dict.fromkeys(("movieID", "movieTitle", "movieYear", "movieIMDBRating", "movieNoIMDBVotes"), TEXT),
        "movieGenres": List(TEXT),
        **dict.fromkeys(("characterID1", "characterID2", "characterName1", "characterName2"), TEXT),
        "utterance": Sequence({"text": TEXT, "LineID": TEXT}),
    }),
    [{
        "movieID": "m0", "movieTitle": "a made-up film", "movieYear": "1999", "movieIMDBRating": "5.00",
        "movieNoIMDBVotes": "7", "movieGenres": ["drama"], "characterID1": "u0", "characterID2": "u1",
        "characterName1": "ANN", "characterName2": "BO",
        "utterance": {"text": ["Stay.", "Why?", "It rains."], "LineID": ["L1", "L2", "L3"]},
    }],
)  # fmt: skip

NEWS = (
    Features({"text": TEXT, "label": ClassLabel(names=["World", "Sports", "Business", "Sci/Tech"])}),
    [{"text": f"Item {n} of the news", "label": n % 4} for n in range(40)],
)

MEDICAL = (
    Features({"condition_label": NUMBER, "medical_abstract": TEXT}),
    [{"condition_label": 1 + n % 5, "medical_abstract": f"We looked at case {n}."} for n in range(40)],
)

PARQUET = {
    "chatbot-arena": (ARENA, "data/train-00000-of-00001.parquet"),
    "amazon-qa": (AMAZON, "pair/train-00000-of-00001.parquet"),
    "coqa": (COQA, "data/train-00000-of-00001.parquet"),
    "cornell-movie-dialogs": (CORNELL, "default/train/0000.parquet"),
    "ag-news": (NEWS, "data/train-00000-of-00001.parquet"),
    "medical-abstracts": (MEDICAL, "data/train-00000-of-00001.parquet"),
}


def write(root: Path) -> None:
    """Write one folder per public set, named as in a spec."""
    disable_progress_bars()
    for name, ((features, rows), place) in PARQUET.items():
        file = root / name / place
        file.parent.mkdir(parents=True)
        Dataset.from_list(rows, features=features).to_parquet(file)
    for name in ("hh-rlhf-chosen", "hh-rlhf-rejected"):
        for split, part in (("train", PREFERENCES[:30]), ("test", PREFERENCES[30:])):
            file = root / name / "helpful-base" / f"{split}.jsonl.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            with gzip.open(file, "wt", encoding="utf-8") as stream:
                stream.writelines(json.dumps(row) + "\n" for row in part)
