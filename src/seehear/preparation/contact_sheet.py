"""A picture of many crops, to see at a glance whether they show mouths."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from seehear.data.corpus import Corpus
from seehear.modality import CROP_SIZE
from seehear.preparation.journal import Prepared

COLUMNS = 6
ROWS = 8
LABEL = 14
"""Height of the line under a crop, in pixels."""
CONTACT_SHEET = "contact-sheet.png"


def write_contact_sheet(corpus: Corpus, prepared: Sequence[Prepared]) -> Path | None:
    """Draw up to 48 clips, each at its beginning, middle and end: the worst fits first, then some from everywhere.

    Under each stand its id and how far its face lies from the mean face, in pixels. Clips without a picture are left
    out; None if all are.
    """
    by_fit = sorted((clip for clip in prepared if clip.streams.uses_video), key=lambda clip: -_misfit(clip))
    if not by_fit:
        return None
    worst = by_fit[: COLUMNS * ROWS // 2]
    rest = sorted(by_fit[len(worst) :], key=lambda clip: clip.source.id)
    places = np.unique(np.linspace(0, len(rest) - 1, min(len(rest), COLUMNS * ROWS - len(worst))).astype(int))
    cells = [_cell(corpus, clip) for clip in [*worst, *[rest[place] for place in places]]]
    columns = min(COLUMNS, len(cells))
    cells += [np.zeros_like(cells[0])] * (-len(cells) % columns)
    rows = [np.hstack(cells[start : start + columns]) for start in range(0, len(cells), columns)]
    path = corpus.root / CONTACT_SHEET
    cv2.imwrite(str(path), np.vstack(rows))
    return path


def _misfit(clip: Prepared) -> float:
    return clip.report.misfit if clip.report else 0.0


def _cell(corpus: Corpus, clip: Prepared) -> NDArray[np.uint8]:
    """Three crops side by side above a line of text: (96 + 14, 3·96 + 4)."""
    video = corpus.read(corpus.utterances[clip.source.id]).require_video()
    crops = np.hstack([video[0], video[len(video) // 2], video[-1]])
    cell = np.zeros((CROP_SIZE + LABEL, crops.shape[1] + 4), np.uint8)
    cell[:CROP_SIZE, : crops.shape[1]] = crops
    text = f"{clip.source.id[-36:]}  {_misfit(clip):.1f} px"
    cv2.putText(cell, text, (3, CROP_SIZE + LABEL - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.33, 255, 1, cv2.LINE_AA)
    return cell
