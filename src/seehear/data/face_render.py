"""A grey picture of a talking mouth, drawn from its shape: skin, nose, chin, lips, teeth, tongue.

Every frame is first drawn upright on a canvas a little larger than the crop, where the contours of the lips are
functions of the column alone, so that a few array operations draw a whole clip; then each frame is turned, scaled and
shifted with the head, blurred, lit and made noisy. Distances are in pixels of the 96×96 crop, whose mouths are about
44 pixels wide (METHOD §1); v grows downwards, the origin is the middle of the closed mouth, greys go from 0 to 255.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from seehear.data.visemes import MouthShape
from seehear.modality import CROP_SIZE, FRAME_RATE

CANVAS = 120
"""Side of the canvas: the crop and what head motion may bring into it."""
POSITION = np.arange(CANVAS, dtype=np.float32) - (CANVAS - 1) / 2
"""Of the canvas's pixels, along u or v."""
BLOCK = 8
"""Frames drawn together: few enough to stay in the processor's cache, three times faster than a whole clip."""


@dataclass(frozen=True)
class Face:
    """What stays the same whenever a speaker is filmed."""

    half_width: float
    upper_thickness: float
    lower_thickness: float
    bow: float
    """Depth of the cupid's bow, a share of the upper lip."""
    corner: float
    """Height of the corners above the middle of the closed mouth."""
    reach: float
    """How far the mouth opens, in pixels."""
    skin: float
    lip: float
    """Grey of the lips."""
    nose_height: float
    """From the mouth up to the nostrils."""
    chin_height: float
    """From the mouth down to the crease above the chin."""
    stubble: float
    """Darkness of a beard's shadow."""
    texture_seed: int

    @staticmethod
    def draw(rng: np.random.Generator) -> "Face":
        """A face at random."""
        skin = rng.uniform(130, 180)
        return Face(
            half_width=rng.uniform(20, 24),
            upper_thickness=rng.uniform(5, 7.5),
            lower_thickness=rng.uniform(7, 10),
            bow=rng.uniform(0.1, 0.4),
            corner=rng.uniform(-1.5, 2),
            reach=rng.uniform(18, 23),
            skin=skin,
            lip=skin - rng.uniform(22, 45),
            nose_height=rng.uniform(20, 24),
            chin_height=rng.uniform(21, 26),
            stubble=max(0.0, rng.uniform(-25, 25)),
            texture_seed=int(rng.integers(2**31)),
        )


class Filming(NamedTuple):
    """How much head, light and camera vary in a clip."""

    motion: float = 1.0
    """Scale of the motion that alignment leaves; 1: a pixel, a degree, 1.5 % in a clip, twice that between clips."""
    noise: float = 2.0
    """Standard deviation of the sensor's noise, in greys."""


def render(shape: MouthShape, face: Face, filming: Filming, rng: np.random.Generator) -> np.ndarray:
    """Film a mouth of shape (T,): (T, 96, 96) uint8."""
    num_frames = len(np.asarray(shape.opening))
    skin = _skin(face)
    transforms = _head_motion(num_frames, filming.motion, rng)
    blur = rng.uniform(0.4, 0.9)
    frames = np.empty((num_frames, CROP_SIZE, CROP_SIZE), np.float32)
    for first in range(0, num_frames, BLOCK):
        block = slice(first, first + BLOCK)
        canvas = _draw(MouthShape(*(np.asarray(part)[block] for part in shape)), face, skin)
        for frame, upright, transform in zip(frames[block], canvas, transforms[block], strict=True):
            moved = cv2.warpAffine(upright, transform, (CROP_SIZE, CROP_SIZE), borderMode=cv2.BORDER_REPLICATE)
            frame[:] = cv2.GaussianBlur(moved, (0, 0), blur)
    frames *= _light(num_frames, rng)
    frames += filming.noise * rng.standard_normal(frames.shape, np.float32)
    return np.clip(frames, 0, 255).astype(np.uint8)


def _draw(shape: MouthShape, face: Face, skin: np.ndarray) -> np.ndarray:
    """The upright face, frame by frame: (T, CANVAS, CANVAS) float32."""
    v = POSITION[None, :, None]  # (1, V, 1)
    opening, width, protrusion, tuck, teeth, tongue = (
        np.asarray(part, np.float32)[:, None, None] for part in shape
    )  # each (T, 1, 1)
    pressed, opened = np.maximum(-opening, 0), np.maximum(opening, 0)

    # Contours, each (T, 1, U): outer and inner edge of each lip, from corner to corner.
    x = POSITION[None, None, :] / (face.half_width * (1 + 0.20 * width - 0.14 * protrusion))
    arch = np.clip(1 - x**2, 0, 1)
    seam = -face.corner * x**2
    gap = face.reach * opened * (1 - 0.2 * np.maximum(width, 0))
    upper_inner = seam - (0.3 * gap + 3.5 * tuck) * arch
    lower_inner = seam + (0.7 * gap - 1.5 * tuck) * arch
    fullness = (1 + 0.3 * protrusion) * (1 - 0.8 * pressed) * np.sqrt(arch)
    bow = 1 - face.bow * np.clip(1 - (5 * x) ** 2, 0, 1)
    upper_outer = upper_inner - face.upper_thickness * bow * fullness
    lower_outer = lower_inner + face.lower_thickness * (1 - 0.55 * tuck) * fullness

    picture: np.ndarray = skin + _chin(face, 0.6 * gap)
    upper_lip = face.lip - 14 + 1.5 * (v - upper_inner)
    highlight = 16 * np.clip(1 - ((v - lower_inner - 0.45 * face.lower_thickness) / 4) ** 2, 0, 1) * arch
    lower_lip = face.lip - 9 + highlight * (1 - 0.6 * tuck)
    lips = np.where(v < 0.5 * (upper_inner + lower_inner), upper_lip, lower_lip)
    _paint(picture, lips, _between(v, upper_outer, lower_outer))
    seam_shadow = np.clip(1 - np.abs(v - seam) / 1.6, 0, 1) * np.clip(3 * arch, 0, 1)
    _paint(picture, np.float32(0.35 * face.lip), 0.8 * seam_shadow)
    inside = _inside_of_mouth(v, upper_inner, lower_inner, np.maximum(teeth, tuck), tongue, protrusion)
    _paint(picture, inside, _between(v, upper_inner, lower_inner))
    return picture


def _inside_of_mouth(
    v: np.ndarray,
    upper: np.ndarray,
    lower: np.ndarray,
    teeth: np.ndarray,
    tongue: np.ndarray,
    protrusion: np.ndarray,
) -> np.ndarray:
    """Cavity, tongue and teeth between the inner contours (T, 1, U), over the whole canvas."""
    gap = np.maximum(lower - upper, 0)
    inside = np.full(np.broadcast_shapes(v.shape, upper.shape), 26, np.float32)
    _paint(inside, np.float32(90), _coverage(v - lower + (0.25 + 0.5 * tongue) * gap))
    shown = np.minimum(4.5, 0.35 * gap) * (1 - protrusion) + teeth * gap  # of the teeth; pushed-out lips hide them
    _paint(inside, np.float32(205), _coverage(upper + np.minimum(shown, gap) - v))
    _paint(inside, np.float32(125), np.maximum(tongue - 0.5, 0) * 2 * _coverage(v - 0.6 * upper - 0.4 * lower))
    return inside


def _skin(face: Face) -> np.ndarray:
    """The part of the face that does not move: (1, CANVAS, CANVAS)."""
    rng = np.random.default_rng(face.texture_seed)
    u, v = POSITION[None, :], POSITION[:, None]
    texture = cv2.GaussianBlur(rng.standard_normal((CANVAS, CANVAS)).astype(np.float32), (0, 0), 1.5)
    pores = cv2.GaussianBlur(rng.standard_normal((CANVAS, CANVAS)).astype(np.float32), (0, 0), 6)
    skin = face.skin + 10 * texture + 60 * pores - 0.011 * u**2
    nose = v + face.nose_height
    skin += 14 * _bump(u / 16) * _bump((nose + 14) / 26) - 18 * _bump(u / 22) * _bump((nose - 3) / 6)
    skin -= 75 * (_bump((u - 8) / 5) + _bump((u + 8) / 5)) * _bump(nose / 3)
    skin -= 12 * _bump(u / 4) * _bump((v + 0.6 * face.nose_height) / 9)  # the furrow under the nose
    cheek = np.abs(u) - 24 - 0.45 * (v + face.nose_height)
    skin -= 22 * _bump(cheek / 5) * np.clip((30 - np.abs(v)) / 25, 0, 1)
    skin -= face.stubble * np.clip((v + 18) / 12, 0, 1) * (0.8 + texture)
    return np.asarray(skin[None], np.float32)


def _chin(face: Face, drop: np.ndarray) -> np.ndarray:
    """Shadow under the lower lip and light on the chin, moved down with the jaw by (T, 1, 1): (T, CANVAS, CANVAS)."""
    below = POSITION[None, :, None] - face.chin_height - drop
    crease = -26 * _bump(below / 6) + 14 * _bump((below - 14) / 12)
    jaw_line = -45 * np.clip((below - 24) / 8, 0, 1)
    return np.asarray(crease * _bump(POSITION / 30) + jaw_line, np.float32)


def _head_motion(num_frames: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    """From canvas to crop, an affine transform a frame: (T, 2, 3)."""
    times = np.arange(num_frames) / FRAME_RATE
    swing = rng.uniform(0.2, 0.9, (4, 1)) * 2 * np.pi * times + rng.uniform(0, 2 * np.pi, (4, 1))
    wander = rng.uniform(-1, 1, (4, 1)) + 0.5 * np.sin(swing)  # (4, T)
    angle = np.deg2rad(2 * scale) * wander[0]
    size = 1 + 0.03 * scale * wander[1]
    cosine, sine = size * np.cos(angle), size * np.sin(angle)
    turn = np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], -2)  # (T, 2, 2)
    crop_middle, canvas_middle = (CROP_SIZE - 1) / 2, (CANVAS - 1) / 2
    shift = crop_middle + 1.8 * scale * wander[2:].T - turn @ np.full(2, canvas_middle)
    return np.concatenate([turn, shift[:, :, None]], -1)


def _light(num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Brightness: its level, a gradient over the picture, and its slow change and flicker: (T, 96, 96) float32."""
    across = np.linspace(-1, 1, CROP_SIZE, dtype=np.float32)
    gradient = rng.uniform(-0.12, 0.12) * across[None, :] + rng.uniform(-0.08, 0.08) * across[:, None]
    times = np.arange(num_frames) / FRAME_RATE
    slow = rng.uniform(0, 0.05) * np.sin(2 * np.pi * rng.uniform(0.2, 1) * times + rng.uniform(0, 2 * np.pi))
    flicker = 0.01 * rng.standard_normal(num_frames)
    level = rng.uniform(0.85, 1.15) * (1 + slow + flicker)
    return np.asarray(level[:, None, None] * (1 + gradient), np.float32)


def _paint(picture: np.ndarray, colour: np.ndarray | np.float32, opacity: np.ndarray) -> None:
    """Lay a colour over a picture, in place."""
    picture += opacity * (colour - picture)


def _coverage(depth: np.ndarray) -> np.ndarray:
    """Share of a pixel that is covered when its middle lies `depth` pixels inside an edge."""
    return np.clip(depth + 0.5, 0, 1)


def _between(v: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    return np.asarray(_coverage(v - upper) * _coverage(lower - v) * (lower > upper))


def _bump(x: np.ndarray) -> np.ndarray:
    """A smooth hill: 1 at 0, 0 beyond ±1.5."""
    return np.asarray(np.clip(1 - (x / 1.5) ** 2, 0, 1) ** 2)
