"""The collapse alarm: a teacher that says nothing, ever less, or nothing it is sure of, and a run that says so."""

from collections.abc import Mapping

PATIENCE = 50
"""Steps in a row that a sign must last."""
SHORTEST = 0.5
"""Tokens a clip, on average, below which the teacher is silent."""
LEAST_KEPT = 0.01
"""Share of labels below which nothing is kept."""
SURE = 0.95
"""Mean confidence from which on a teacher has no doubts."""
SHRUNK = 0.5
"""Share of what it has been to which the length of labels falls when a sure teacher goes silent."""
MEMORY = 0.95
"""Of the moving average of the length, by step."""

MESSAGES = {
    "silent": "the teacher emits almost no tokens: more objective.supervised_steps give it something to say",
    "shrinking": "the teacher is sure and its labels have become half as long as they were: it is falling silent; "
    "lower objective.gamma or optimiser.peak_lr",
    "unsure": "almost no pseudo-label is kept: the teacher is not sure enough for the thresholds",
}


class CollapseAlarm:
    """Watches what the teacher's labels are like; speaks once when a sign has lasted, and again after it has gone."""

    def __init__(self) -> None:
        self._lasted = dict.fromkeys(MESSAGES, 0)
        self._length: float | None = None
        self._longest = 0.0

    def __call__(self, numbers: Mapping[str, float]) -> list[str]:
        """The warnings that a step's numbers (names of `objectives/usr2.py`) give rise to."""
        if "teacher/ctc_length" not in numbers:
            return []
        length = numbers["teacher/ctc_length"]
        self._length = length if self._length is None else MEMORY * self._length + (1 - MEMORY) * length
        self._longest = max(self._longest, self._length)
        signs = {
            "silent": length < SHORTEST,
            "shrinking": numbers["teacher/ctc_confidence"] >= SURE and self._length < SHRUNK * self._longest,
            "unsure": max(numbers["teacher/ctc_kept"], numbers["teacher/attention_kept"]) < LEAST_KEPT,
        }
        for name, present in signs.items():
            self._lasted[name] = self._lasted[name] + 1 if present else 0
        return [f"{MESSAGES[name]} ({PATIENCE} steps)" for name, steps in self._lasted.items() if steps == PATIENCE]
