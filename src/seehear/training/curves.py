"""A picture of training runs, drawn from the metrics.jsonl that each of them wrote."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from seehear.modality import Modality
from seehear.training.monitor import METRICS_FILE, read_metrics

SMOOTHING = 20
"""Steps that a point of a loss curve averages."""
LINES = {Modality.AUDIOVISUAL: "-", Modality.AUDIO: "--", Modality.VIDEO: ":"}
KINDS = {"ctc": "-", "ctc-driven": "--", "autoregressive": ":"}

Records = Sequence[Mapping[str, float]]


def draw_curves(runs: Mapping[str, Sequence[Path]], picture: Path) -> None:
    """Write `picture` (PNG) from the folders of `runs`, named: WER on validation clips and of labels, and losses.

    Each name has a folder, or several of runs that went on from the model of the one before.
    """
    figure = Figure(figsize=(18, 8), dpi=90, layout="constrained")
    by_ctc, by_attention, teacher, labelled, decoder, unlabelled = figure.subplots(2, 3).flat
    for colour, (name, folders) in enumerate(runs.items()):
        records = joined(folders)
        for modality, line in LINES.items():
            key, style = modality.value, {"color": f"C{colour}", "linestyle": line}
            label = f"{name}, {key.upper()}"
            _draw(by_ctc, records, f"valid/ctc/{key}", label, style, percent=True)
            _draw(by_attention, records, f"valid/attention/{key}", label, style, percent=True)
            _draw(labelled, records, f"{key}/ctc/labelled", label, style, smooth=True)
            _draw(decoder, records, f"{key}/attention/labelled", label, style, smooth=True)
            _draw(unlabelled, records, f"{key}/ctc/unlabelled", label, style, smooth=True)
        for key, line in KINDS.items():
            style = {"color": f"C{colour}", "linestyle": line}
            _draw(teacher, records, f"labels/{key}", f"{name}, {key}", style, percent=True)
    titles = {
        by_ctc: ("Word error rate on the validation clips, greedy CTC", "%"),
        by_attention: ("Word error rate on the validation clips, greedy attention", "%"),
        labelled: ("CTC loss on labelled clips", "nats per clip"),
        decoder: ("Attention loss on labelled clips", "nats per clip"),
        unlabelled: ("CTC loss on pseudo-labels", "nats per clip"),
        teacher: ("Word error rate of the teacher's labels of unlabelled clips", "%"),
    }
    for axes, (title, unit) in titles.items():
        axes.set(title=title, xlabel="step", ylabel=unit)
        if axes is labelled:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="small")
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture)


def joined(folders: Sequence[Path]) -> Records:
    """The records of runs one after the other, with their steps counted on."""
    records: list[Mapping[str, float]] = []
    for folder in folders:
        made = records[-1]["step"] if records else 0
        records += [{**record, "step": made + record["step"]} for record in read_metrics(folder / METRICS_FILE)]
    return records


def _draw(
    axes: Axes,
    records: Records,
    key: str,
    label: str,
    style: Mapping[str, str],
    *,
    smooth: bool = False,
    percent: bool = False,
) -> None:
    """Add the curve of `key` to `axes`, if the run has recorded it."""
    steps = np.array([record["step"] for record in records if key in record])
    values = np.array([record[key] for record in records if key in record])
    if not len(steps):
        return
    if smooth:
        steps, values = _moving_average(steps, SMOOTHING), _moving_average(values, SMOOTHING)
    axes.plot(steps, 100 * values if percent else values, label=label, **style)  # type: ignore[arg-type]


def _moving_average(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Means of `width` neighbours (of all values where there are fewer)."""
    width = min(width, len(values))
    return np.convolve(values, np.full(width, 1.0 / width), mode="valid")
