"""The collapse alarm: a teacher that says nothing, or nothing it is sure of, teaches nothing, and a run says so."""

from collections.abc import Mapping

PATIENCE = 50
"""Steps in a row that a sign must last."""
SHORTEST = 0.5
"""Tokens a clip, on average, below which the teacher is silent."""
LEAST_KEPT = 0.01
"""Share of labels below which nothing is kept."""


class CollapseAlarm:
    """Watches what the teacher's labels are like; speaks once when a sign has lasted, and again after it has gone."""

    def __init__(self) -> None:
        self._lasted = {"silent": 0, "unsure": 0}

    def __call__(self, numbers: Mapping[str, float]) -> list[str]:
        """The warnings that a step's numbers (names of `objectives/usr2.py`) give rise to."""
        if "teacher/ctc_length" not in numbers:
            return []
        signs = {
            "silent": numbers["teacher/ctc_length"] < SHORTEST,
            "unsure": max(numbers["teacher/ctc_kept"], numbers["teacher/attention_kept"]) < LEAST_KEPT,
        }
        messages = {
            "silent": "the teacher emits almost no tokens: more objective.supervised_steps give it something to say",
            "unsure": "almost no pseudo-label is kept: the teacher is not sure enough for the thresholds",
        }
        for name, present in signs.items():
            self._lasted[name] = self._lasted[name] + 1 if present else 0
        return [f"{messages[name]} ({PATIENCE} steps)" for name, steps in self._lasted.items() if steps == PATIENCE]
