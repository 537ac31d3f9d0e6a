"""What a run is made of: the clips of its streams, its vocabulary, how many steps it takes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from seehear.data.batch import Batch, TrainingClips
from seehear.data.corpus import Corpus, Utterance, count_streams
from seehear.data.sampler import FrameBatchSampler, stream
from seehear.errors import CorpusError
from seehear.modality import Modality
from seehear.recipe import Recipe
from seehear.tokenizer import Tokenizer
from seehear.training.trainer import Streams
from seehear.training.world import World


@dataclass(frozen=True)
class Material:
    """The clips a run uses."""

    corpus: Corpus
    labelled: list[Utterance]
    unlabelled: list[Utterance]
    valid: list[Utterance]

    @property
    def lacks_streams(self) -> bool:
        """Whether some clips to learn from have sound or picture alone."""
        return any(clip.streams is not Modality.AUDIOVISUAL for clip in (*self.labelled, *self.unlabelled))


def describe_streams(material: Material) -> str:
    """How many of the clips to learn from have a single stream, in brackets; nothing if all have both."""
    return f" ({count_streams([*material.labelled, *material.unlabelled])})" if material.lacks_streams else ""


def load_material(recipe: Recipe, tell: Callable[[str], None] = print) -> Material:
    """Read the corpus and pick the clips of each stream; longer ones than `data.max_frames` are left out, and said."""
    data = recipe.data
    corpus = Corpus.load(Path(data.corpus))

    def pick(names: Sequence[str]) -> list[Utterance]:
        found = [utterance for name in names for utterance in corpus.split(name)]
        short = [utterance for utterance in found if utterance.frames <= data.max_frames]
        if len(short) < len(found):
            tell(f"left out {len(found) - len(short)} clips of {', '.join(names)} over {data.max_frames} frames")
        return short

    labelled = pick(data.labelled)
    if not labelled:
        raise CorpusError(f"{corpus.root} has no labelled clips in {', '.join(data.labelled)}")
    silent = [utterance.id for utterance in labelled if utterance.text is None]
    if silent:
        raise CorpusError(f"{len(silent)} labelled clips of {corpus.root} have no transcript, first '{silent[0]}'")
    labelled_only = recipe.objective.kind == "supervised"
    unlabelled = [] if labelled_only else pick(data.unlabelled)
    if not unlabelled and not labelled_only:
        raise CorpusError(f"{corpus.root} has no unlabelled clips in {', '.join(data.unlabelled)}")
    valid = corpus.split(data.valid) if data.valid else []
    if any(utterance.text is None for utterance in valid):
        raise CorpusError(f"the split '{data.valid}' of {corpus.root} has clips without transcript: nothing to compare")
    return Material(corpus, labelled, unlabelled, valid)


def learn_tokenizer(recipe: Recipe, labelled: Sequence[Utterance]) -> Tokenizer:
    """The run's vocabulary, from the labelled text alone."""
    return Tokenizer.train([utterance.text or "" for utterance in labelled], recipe.model.resolve().vocab_size)


def open_streams(recipe: Recipe, material: Material, tokenizer: Tokenizer, world: World) -> tuple[Streams, int]:
    """The streams of clips of this process, and the number of steps of the run."""
    data, run = recipe.data, recipe.run
    pin_memory = world.device.type == "cuda"
    group = run.accumulate * world.size

    def sampler(clips: TrainingClips, max_frames: int, salt: int, start: int = 0) -> FrameBatchSampler:
        if material.lacks_streams:  # with another number of processes, go on with a whole group: of clips alike
            start += -start % group
        return FrameBatchSampler(
            [utterance.frames for utterance in clips.utterances],
            max_frames,
            2 * run.seed + salt,
            start=start + world.rank,
            stride=world.size,
            group=group,
            length=clips.length,
            streams=[utterance.streams for utterance in clips.utterances],
        )

    def clips_of(utterances: Sequence[Utterance], reader: Tokenizer | None) -> TrainingClips:
        cache_bytes = data.cache_mb * 1_000_000
        return TrainingClips(material.corpus, utterances, recipe.augment, reader, cache_bytes, data.max_frames)

    def opener(clips: TrainingClips, max_frames: int, salt: int) -> Callable[[int], Iterator[Batch]]:
        return lambda start: stream(clips, sampler(clips, max_frames, salt, start), data.workers, pin_memory)

    labelled, unlabelled = clips_of(material.labelled, tokenizer), clips_of(material.unlabelled, None)
    streams = Streams(
        opener(labelled, data.labelled_frames, 0),
        opener(unlabelled, data.unlabelled_frames, 1) if material.unlabelled else None,
        world.size,
    )
    if run.steps is not None:
        return streams, run.steps
    assert run.epochs is not None, "a recipe gives steps or epochs"
    longest = (
        sampler(unlabelled, data.unlabelled_frames, 1)
        if material.unlabelled
        else sampler(labelled, data.labelled_frames, 0)
    )
    return streams, max(1, round(run.epochs * longest.batches_per_epoch() / group))
