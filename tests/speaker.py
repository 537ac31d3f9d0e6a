"""What a model says of the clips of a batch, for the functions of `loop_reference`."""

import torch
from torch import Tensor, nn

import loop_reference as loop
from loop_reference import Student
from seehear.data.batch import Batch
from seehear.modality import Modality
from seehear.model.usr import USR


class Speaker:
    """What a model says of the clips of a batch, one clip at a time and without its padding."""

    def __init__(
        self,
        model: USR,
        batch: Batch,
        *,
        masked: bool,
        ctc_heads: nn.ModuleDict | None = None,
        output_heads: nn.ModuleDict | None = None,
    ) -> None:
        self.model = model
        self.lengths = batch.lengths.tolist()
        self.ctc_heads = ctc_heads or model.ctc_heads
        self.output_heads = output_heads or model.output_heads
        self.streams = batch.streams.value
        video, audio = (None if tensor is None else tensor.clone() for tensor in (batch.video, batch.audio))
        if masked and video is not None:
            assert batch.video_keep is not None
            video[~batch.video_keep] = 0.0
        if masked and audio is not None:
            assert batch.audio_keep is not None
            audio[~batch.audio_keep] = 0.0
        modalities = [Modality(m) for m in loop.readable(self.streams)]
        self.features = model.encode(video, audio, batch.mask, modalities)

    def _of(self, clip: int, modality: str) -> Tensor:
        return self.features[Modality(modality)][clip : clip + 1, : self.lengths[clip]]

    def ctc(self, clip: int, modality: str) -> list[loop.Row]:
        """Logits of each frame."""
        rows: list[loop.Row] = self.ctc_heads[modality](self._of(clip, modality))[0].tolist()
        return rows

    def decoder(self, clip: int, modality: str, prefix: list[int]) -> list[loop.Row]:
        """Logits of what follows each token of `prefix`."""
        features = self._of(clip, modality)
        states = self.model.decode(torch.tensor([prefix]), features, features.new_ones(features.shape[:2]).bool())
        rows: list[loop.Row] = self.output_heads[modality](states)[0].tolist()
        return rows

    def students(self, prefixes: list[list[int]]) -> dict[str, list[Student]]:
        """Both branches for every modality and clip."""
        return {
            m.value: [Student(self.ctc(i, m), self.decoder(i, m, prefix)) for i, prefix in enumerate(prefixes)]
            for m in self.features
        }
