"""Sizes of common tasks, for plans of those whose documents are not at hand.

Counts are of the split that lm-evaluation-harness asks (test, else validation) of the data set as it is
published; lengths are rough means, at about four characters a token. Tasks of Inspect of the same names ask
the same documents.
"""

from __future__ import annotations

from attrs import frozen


@frozen
class CommonTask:
    """What lm-evaluation-harness asks of one document of a task."""

    documents: int
    choices: int  # whose likelihood is read, each behind the context; 0: an answer is written
    context: float  # mean tokens before the answer, without solved examples
    answer: float  # mean tokens of a choice, or most tokens of an answer
    shots: int = 0  # unless the spec says otherwise

    @property
    def passes(self) -> int:
        """Passes for a document, generation left out: choices of one token share one."""
        return 1 if self.answer <= 1 else max(1, self.choices)


COMMON_TASKS = {
    "anli_r1": CommonTask(1000, 3, 100, 1),
    "anli_r2": CommonTask(1000, 3, 100, 1),
    "anli_r3": CommonTask(1200, 3, 100, 1),
    "arc_challenge": CommonTask(1172, 4, 35, 8),
    "arc_easy": CommonTask(2376, 4, 30, 6),
    "boolq": CommonTask(3270, 2, 140, 1),
    "cb": CommonTask(56, 3, 85, 1),
    "cola": CommonTask(1043, 2, 20, 1),
    "commonsense_qa": CommonTask(1221, 5, 45, 1),
    "copa": CommonTask(100, 2, 10, 8),
    "gsm8k": CommonTask(1319, 0, 150, 256, shots=5),
    "hellaswag": CommonTask(10042, 4, 60, 30),
    "ifeval": CommonTask(541, 0, 55, 1280),
    "lambada_openai": CommonTask(5153, 1, 85, 2),
    "lambada_standard": CommonTask(5153, 1, 85, 2),
    "logiqa": CommonTask(651, 4, 170, 20),
    "mathqa": CommonTask(2985, 5, 55, 5),
    "medmcqa": CommonTask(4183, 4, 70, 1),
    "medqa_4options": CommonTask(1273, 4, 210, 1),
    "mmlu": CommonTask(14042, 4, 110, 1),
    "mnli": CommonTask(9815, 3, 50, 1),
    "nq_open": CommonTask(3610, 0, 15, 256),
    "openbookqa": CommonTask(500, 4, 14, 5),
    "piqa": CommonTask(1838, 2, 18, 28),
    "rte": CommonTask(277, 2, 80, 1),
    "sciq": CommonTask(1000, 4, 115, 4),
    "social_iqa": CommonTask(1954, 3, 35, 6),
    "sst2": CommonTask(872, 2, 35, 1),
    "swag": CommonTask(20006, 4, 20, 12),
    "triviaqa": CommonTask(17944, 0, 25, 256),
    "truthfulqa_mc1": CommonTask(817, 5, 190, 15),
    "truthfulqa_mc2": CommonTask(817, 7, 190, 15),
    "wic": CommonTask(638, 2, 50, 1),
    "winogrande": CommonTask(1267, 2, 20, 10),
}
"""By the name of a task of lm-evaluation-harness."""
ASSUMED = CommonTask(1000, 4, 150, 10)
"""Of a task of which nothing is known."""
