"""Damaged copies of media files: the same bytes for the same seed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from seed_files import KINDS

HEXADECIMAL = """
    1549A966 1654AE6B 1F43B675 1C53BB6B 114D9B74 2AD7B1 4489 63A2 868F565F
    3026B275 A1DCAB8C 9107DCB7 33264A2A 474000 474100 000001E0 000001B3
    676400 9D012A 498342 00000120
"""
FIELDS = (
    *b"mvhd tkhd mdhd hdlr elst stsd avcC esds stts ctts stsc stsz stco".split(),
    *b"avih strh strf idx1 movi LIST fmt data fLaC OggS OpusHead onMetaData FLV".split(),
    *(bytes.fromhex(mark) for mark in HEXADECIMAL.split()),
)
"""Marks near which header fields lie: MP4; RIFF, FLAC, Ogg, FLV; Matroska; ASF and MPEG; pictures of four codecs."""
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 2**62, 2**63 - 1, 2**64 - 1)
CODECS = (
    b"avc1 hvc1 mp4v av01 vp09 jpeg apcn FMP4 MJPG FFV1 HFYU WMV1 WMV2 WMV3 IV50 cvid".split()
    + b"mp4a alac fLaC Opus ac-3 ec-3 dtsc QDM2 ulaw twos sowt fl32 ima4 samr".split()
    + b"V_VP8 V_VP9 V_AV1 A_OPUS A_FLAC A_TTA1".split()
    + [b"fmt \x10\0\0\0" + code.to_bytes(2, "little") for code in (1, 2, 3, 6, 7, 0x11, 0x45, 0x50, 0x55, 0x160, 0x162)]
)
"""How files name what decodes them."""


@dataclass(frozen=True)
class Mutant:
    """A damaged copy of a file."""

    number: int
    kind: str
    content: bytes
    changes: tuple[str, ...]
    """What was done to it, in order."""

    @property
    def name(self) -> str:
        """A file name that says which it is."""
        return f"{self.number:05d}-{self.kind.replace(' ', '-')}.{KINDS[self.kind].suffix}"


def make_mutants(seeds: dict[str, bytes], count: int, seed: int) -> Iterator[Mutant]:
    """Damaged copies, the kinds in turn; each depends on its number and `seed` alone."""
    kinds = list(seeds)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        kind = kinds[number % len(kinds)]
        content, other = seeds[kind], seeds[kinds[rng.integers(len(kinds))]]
        changes = []
        for change in rng.choice(len(CHANGES), size=rng.integers(1, 5)):
            content = CHANGES[change](content, other, rng) or b"\0"
            changes.append(CHANGES[change].__name__)
        yield Mutant(number, kind, mend_pages(content) if kind == "ogg" else content, tuple(changes))


def _stretch(content: bytes, rng: Generator) -> tuple[int, int]:
    """Where a random piece begins and ends; short ones are as frequent as long ones."""
    length = int(2 ** rng.uniform(0, np.log2(max(2, len(content) // 2))))
    begin = int(rng.integers(max(1, len(content) - length + 1)))
    return begin, begin + length


def flip_bits(content: bytes, other: bytes, rng: Generator) -> bytes:
    """Up to 64 bits anywhere."""
    changed = bytearray(content)
    for place in rng.integers(len(content), size=int(2 ** rng.uniform(0, 6))):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def overwrite(content: bytes, other: bytes, rng: Generator) -> bytes:
    """A run of random bytes, of zeros or of ones."""
    begin, end = _stretch(content, rng)
    runs = (rng.bytes(end - begin), b"\0" * (end - begin), b"\xff" * (end - begin))
    return content[:begin] + runs[rng.integers(3)] + content[end:]


def truncate(content: bytes, other: bytes, rng: Generator) -> bytes:
    """The file ends early."""
    return content[: int(rng.integers(1, len(content) + 1))]


def delete(content: bytes, other: bytes, rng: Generator) -> bytes:
    """A piece is missing."""
    begin, end = _stretch(content, rng)
    return content[:begin] + content[end:]


def duplicate(content: bytes, other: bytes, rng: Generator) -> bytes:
    """A piece comes two to nine times."""
    begin, end = _stretch(content, rng)
    return content[:begin] + content[begin:end] * int(rng.integers(2, 10)) + content[end:]


def swap(content: bytes, other: bytes, rng: Generator) -> bytes:
    """Two neighbouring pieces change places."""
    begin, end = _stretch(content, rng)
    middle = int(rng.integers(begin, end))
    return content[:begin] + content[middle:end] + content[begin:middle] + content[end:]


def splice(content: bytes, other: bytes, rng: Generator) -> bytes:
    """It goes on as another file."""
    return content[: int(rng.integers(1, len(content) + 1))] + other[int(rng.integers(len(other))) :]


def set_fields(content: bytes, other: bytes, rng: Generator) -> bytes:
    """One to four header fields hold an extreme value, in either order of bytes."""
    marks = [mark for mark in FIELDS if mark in content]
    for _ in range(int(rng.integers(1, 5))):
        size = int(rng.choice([1, 2, 4, 8]))
        value = EXTREMES[rng.integers(len(EXTREMES))] % 256**size
        mark = marks[rng.integers(len(marks))] if marks else b""
        found = [place for place in range(len(content)) if mark and content.startswith(mark, place)] or [0]
        place = found[rng.integers(len(found))] + len(mark) + int(rng.integers(-8, 56))
        place = min(max(place, 0), len(content))
        content = (
            content[:place] + value.to_bytes(size, "big" if rng.integers(2) else "little") + content[place + size :]
        )
    return content


def set_codec(content: bytes, other: bytes, rng: Generator) -> bytes:
    """The data is said to be for another decoder."""
    named = [code for code in CODECS if code in content]
    if not named:
        return content
    old = named[rng.integers(len(named))]
    choices = [code for code in CODECS if len(code) == len(old) and (len(old) == 4 or code[:2] == old[:2])]
    return content.replace(old, choices[rng.integers(len(choices))])


CHANGES: tuple[Callable[[bytes, bytes, Generator], bytes], ...] = (
    *(flip_bits, overwrite, truncate, delete, duplicate, swap, splice),
    *(set_fields, set_fields, set_fields, set_codec),
)


def mend_pages(content: bytes) -> bytes:
    """Give the pages of an Ogg file right checksums: FFmpeg passes over the others."""
    mended = bytearray(content)
    place = content.find(b"OggS")
    while place >= 0 and place + 27 <= len(content):
        sizes = content[place + 27 : place + 27 + content[place + 26]]
        end = place + 27 + len(sizes) + sum(sizes)
        mended[place + 22 : place + 26] = bytes(4)
        mended[place + 22 : place + 26] = _checksum(mended[place:end]).to_bytes(4, "little")
        place = content.find(b"OggS", max(end, place + 4))
    return bytes(mended)


def _checksum(page: bytearray) -> int:
    checksum = 0
    for byte in page:
        checksum = (checksum << 8 & 0xFFFF_FFFF) ^ _CHECKSUMS[(checksum >> 24) ^ byte]
    return checksum


def _checksum_of_byte(byte: int) -> int:
    checksum = byte << 24
    for _ in range(8):
        checksum = (checksum << 1) ^ (0x1_04C1_1DB7 if checksum & 0x8000_0000 else 0)
    return checksum


_CHECKSUMS = [_checksum_of_byte(byte) for byte in range(256)]
