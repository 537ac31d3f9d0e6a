"""Clips of a batch to token ids in each modality, within the memory that there is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from seehear.data.batch import Batch
from seehear.decoding.alignment import align_words
from seehear.decoding.decode import decode_batch, precision
from seehear.decoding.join import PlacedWord, join
from seehear.decoding.language_model import LanguageModel
from seehear.decoding.options import DecodingOptions, DType
from seehear.decoding.shortage import OVERLAP_FRAMES, Reduction, halves, within_memory
from seehear.modality import Modality
from seehear.model.usr import USR
from seehear.tokenizer import Tokenizer


class ClipPart(NamedTuple):
    """A clip of a batch, or a part of it."""

    row: int
    start: int
    """In frames, as is `end`."""
    end: int


class DecodedPart(NamedTuple):
    """What is said in a clip or a part of it, in one modality."""

    tokens: list[int]
    words: tuple[PlacedWord, ...] = ()
    """Placed in the clip; of parts alone."""


class DecodedClip(NamedTuple):
    """What is said in a clip."""

    tokens: dict[Modality, list[int]]
    """Ids without specials."""
    reduction: Reduction
    """What was done for want of memory."""


Decoded = dict[Modality, DecodedPart]


@dataclass(frozen=True)
class ClipDecoder:
    """A model, and how clips are decoded with it; see `search_on` for where its parts are."""

    model: USR
    tokenizer: Tokenizer
    options: DecodingOptions
    language_model: LanguageModel | None = None
    dtype: DType = "float32"

    def __call__(self, batch: Batch, modalities: Sequence[Modality]) -> list[DecodedClip]:
        """What is said in each clip of `batch`, which lies on the CPU, in each of `modalities`."""
        clips = [ClipPart(row, 0, frames) for row, frames in enumerate(batch.lengths.tolist())]
        found = within_memory(_Clips(self, batch, modalities), clips, self.options)
        return [DecodedClip({m: part.tokens for m, part in parts.items()}, how) for parts, how in found]


@dataclass(frozen=True)
class _Clips:
    """Clips of a batch, to be decoded within memory."""

    decoder: ClipDecoder
    batch: Batch
    modalities: Sequence[Modality]

    @torch.no_grad()
    def decode(self, items: Sequence[ClipPart], options: DecodingOptions) -> list[Decoded]:
        """Clips or parts of them, in every modality: one pass of the encoder."""
        decoder, model = self.decoder, self.decoder.model
        device = next(model.parameters()).device
        whole = self._whole(items)
        batch = (self.batch if whole and len(items) == len(self.batch.ids) else self.batch.cut(items)).to(device)
        found: list[Decoded] = [{} for _ in items]
        with precision(device, decoder.dtype):
            encoded = model.encode(batch.video, batch.audio, batch.mask, self.modalities, mask_padding=True)
            for modality, encoder_features in encoded.items():
                features, mask = model.to_search(encoder_features, batch.mask)
                rows = decode_batch(model, features, mask, modality, options, decoder.language_model)
                words = [()] * len(rows) if whole else self._place_words(rows, features, mask, modality, items)
                for clip, tokens, placed in zip(found, rows, words, strict=True):
                    clip[modality] = DecodedPart(tokens, placed)
        return found

    def _whole(self, items: Sequence[ClipPart]) -> bool:
        """Whether these are no parts of clips, but clips."""
        return all(item.end - item.start == int(self.batch.lengths[item.row]) for item in items)

    def _place_words(
        self,
        rows: Sequence[Sequence[int]],
        features: Tensor,
        mask: Tensor,
        modality: Modality,
        items: Sequence[ClipPart],
    ) -> list[tuple[PlacedWord, ...]]:
        """The words of each row of tokens, placed by CTC in the clips of which `items` are parts."""
        tokenizer = self.decoder.tokenizer
        words = [tokenizer.words(row) for row in rows]
        log_probs = self.decoder.model.ctc_logits(features, modality).float().log_softmax(-1)
        placed = []
        for item, said, spans in zip(items, words, align_words(log_probs, mask, words), strict=True):
            in_part = [PlacedWord(w, tokenizer.decode(w), *span) for w, span in zip(said, spans, strict=True)]
            placed.append(tuple(word.moved(item.start) for word in in_part))
        return placed

    def halves(self, item: ClipPart) -> tuple[ClipPart, ClipPart] | None:
        """Two overlapping parts."""
        bounds = halves(item.end - item.start)
        if bounds is None:
            return None
        first, second = (item._replace(start=item.start + start, end=item.start + end) for start, end in bounds)
        return first, second

    def join(self, item: ClipPart, left: Decoded, right: Decoded) -> Decoded:
        """The words of two parts, without those of the overlap that both have."""
        middle = item.start + (item.end - item.start) // 2
        overlap = (middle - OVERLAP_FRAMES // 2, middle + OVERLAP_FRAMES // 2)
        joined: Decoded = {}
        for modality in left:
            kept, dropped = join(left[modality].words, right[modality].words, overlap)
            words = (*left[modality].words[:kept], *right[modality].words[dropped:])
            joined[modality] = DecodedPart([token for word in words for token in word.tokens], words)
        return joined
