"""Times of words by what the decoder has heard them by."""

import pytest
import torch
from torch import Tensor

from seehear.config import SIZES
from seehear.decoding.word_times import time_words
from seehear.modality import Modality
from seehear.model.usr import USR

A, AV = Modality.AUDIO, Modality.AUDIOVISUAL
CONFIG = SIZES["tiny"].model_copy(update={"vocab_size": 12})


class Ear(USR):
    """A decoder that hears token k by how loud channel k is, at any time; its encoder hands on what comes in."""

    def contextualise(self, streams: dict[Modality, Tensor], mask: Tensor) -> dict[Modality, Tensor]:  # type: ignore[override]
        return dict(streams)

    def decode(self, tokens: Tensor, features: Tensor, mask: Tensor, cache: object = None) -> Tensor:  # type: ignore[override]
        loud = (features.square() * mask[..., None]).sum(1)[:, : CONFIG.vocab_size]
        return loud[:, None].expand(-1, tokens.shape[1], -1)

    def logits(self, states: Tensor, modality: Modality) -> Tensor:
        return states


def clip(frames: int, said: dict[int, tuple[int, int]]) -> Tensor:
    """Quiet but for the channels of what is said, in its frames."""
    stream = 0.01 * torch.randn(frames, CONFIG.dim, generator=torch.Generator().manual_seed(frames))
    for token, (start, end) in said.items():
        stream[start:end, token] += 1.0
    return stream


@pytest.mark.parametrize("streams", [(A,), (A, AV)])
def test_words_are_where_they_are_heard(streams: tuple[Modality, ...]) -> None:
    """In a batch of clips of other lengths and numbers of words; what stands at padding does not matter."""
    said = [{1: (5, 12), 2: (12, 18), 4: (24, 30)}, {3: (2, 8)}, {}]
    words = [[[1], [2, 2], [4]], [[3]], []]
    lengths = (36, 12, 3)
    batch = torch.full((3, 36, CONFIG.dim), 5.0)
    for row, length in enumerate(lengths):
        batch[row, :length] = clip(length, said[row])
    mask = torch.arange(36) < torch.tensor(lengths)[:, None]
    found = time_words(Ear(CONFIG), dict.fromkeys(streams, batch), mask, words, streams[-1])
    assert [len(times) for times in found] == [3, 1, 0]
    for times, spans in zip(found, said, strict=True):
        for time, (start, end) in zip(times, spans.values(), strict=True):
            assert abs(time.start - start) <= 1
            assert abs(time.end - end) <= 1
            assert 0 < time.probability <= 1


def test_a_real_model_gives_words_in_order_and_its_weights_no_gradient() -> None:
    torch.manual_seed(0)
    model = USR(CONFIG).eval()
    streams = {A: torch.randn(2, 20, CONFIG.dim)}
    mask = torch.arange(20) < torch.tensor([20, 9])[:, None]
    with torch.no_grad():
        found = time_words(model, streams, mask, [[[1, 2], [3], [4]], [[5]]], A)
    bounds = [bound for time in found[0] for bound in (time.start, time.end)]
    assert bounds == sorted(bounds)
    assert all(time.start < time.end for times in found for time in times)
    assert found[1][0].end <= 9
    assert all(parameter.grad is None for parameter in model.parameters())
    assert time_words(model, streams, mask, [[], []], A) == [[], []]
    together = [time.probability for times in found for time in times]
    alone = time_words(model, {A: streams[A][1:, :9]}, mask[1:, :9], [[[5]]], A)
    assert together[-1] == pytest.approx(alone[0][0].probability, rel=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("modality", list(Modality))
def test_a_word_is_as_probable_as_the_head_that_was_decoded_holds_it(modality: Modality) -> None:
    torch.manual_seed(1)
    model = USR(CONFIG).eval()
    for head in model.output_heads.values():
        torch.nn.init.normal_(head.weight, std=0.5)  # type: ignore[arg-type]
    streams = {m: torch.randn(1, 20, CONFIG.dim) for m in Modality}
    mask = torch.ones(1, 20, dtype=torch.bool)
    (found,) = time_words(model, streams, mask, [[[1, 2], [3], [4, 5, 6]]], modality)
    features = model.contextualise(streams, mask)[modality]
    states = model.decode(torch.tensor([[model.sos, 1, 2, 3, 4, 5]]), features, mask)
    by_token = model.logits(states, modality)[0].log_softmax(-1)[range(6), [1, 2, 3, 4, 5, 6]]
    expected = [float(part.mean().exp()) for part in by_token.split([2, 1, 3])]
    assert [time.probability for time in found] == pytest.approx(expected, rel=1e-4)
