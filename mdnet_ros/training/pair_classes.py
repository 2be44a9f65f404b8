"""Classes of image pairs, one for each kind and strength of change, from large photographs.

Each pair shows one photograph twice with exactly one change: scale, tilt (a plane seen slanted),
rotation, or light. What a network is good and bad at can be read off class by class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from mdnet_ros.errors import DataError
from mdnet_ros.training.data import step_generator
from mdnet_ros.training.images import ImagePool
from mdnet_ros.training.photometric import PhotometricRanges, change_light
from mdnet_ros.training.views import ViewPair, render_pairs
from mdnet_ros.training.warps import Motion, place_views, span_of

#: Side of the views, pixels.
SIDE = 320
#: Seed of the pairs, the same for everyone who is measured.
_SEED = 20261126
#: Corners move by this much beside what the class asks for, as a share of the side: no camera
#: moves along one axis alone.
_BEND = 0.05
#: The views' centres lie apart by up to this, as a share of the side.
_SHIFT = 0.1


@dataclass(frozen=True)
class PairClass:
    """One kind of change between two views, drawn evenly between two strengths.

    Attributes:
        name: such as ``scale 1.5-2``.
        scale: least and largest ratio of the views' scales; which view is nearer is drawn.
        tilt: least and largest stretch along one axis over that across it.
        rotation: least and largest angle, degrees; to which side is drawn.
        light: strength of the changes of light, lens and codec, in [0, 1].
    """

    name: str
    scale: tuple[float, float] = (1.0, 1.0)
    tilt: tuple[float, float] = (1.0, 1.0)
    rotation: tuple[float, float] = (0.0, 0.0)
    light: float = 0.0


CLASSES = (
    PairClass('small motion', (1.0, 1.07), (1.0, 1.07), (0.0, 4.0)),
    PairClass('scale 1-1.5', scale=(1.0, 1.5)),
    PairClass('scale 1.5-2', scale=(1.5, 2.0)),
    PairClass('scale 2-3', scale=(2.0, 3.0)),
    PairClass('tilt 1-1.5', tilt=(1.0, 1.5)),
    PairClass('tilt 1.5-2', tilt=(1.5, 2.0)),
    PairClass('tilt 2-3', tilt=(2.0, 3.0)),
    PairClass('rotation 0-30', rotation=(0.0, 30.0)),
    PairClass('rotation 30-60', rotation=(30.0, 60.0)),
    PairClass('rotation 60-180', rotation=(60.0, 180.0)),
    PairClass('light', light=1.0),
)


def pairs_of(
    pool: ImagePool, kind: PairClass, count: int, side: int = SIDE
) -> ViewPair:
    """Render the pairs of a class: the same for everyone on the same photographs.

    Photographs too small for the class's least change are left out; on those too small for its
    largest one, changes reach as far as they allow, so that no view is ever an enlargement.

    Args:
        pool: the photographs, on the CPU; best large ones that nobody was trained on.
        kind: the class.
        count: number of pairs; each photograph is used equally often, give or take one.
        side: side of the views, pixels; a multiple of 16.

    Raises:
        DataError: no photograph is large enough.
    """
    generator = step_generator(_SEED, CLASSES.index(kind) if kind in CLASSES else 99, 0, 1)
    spans = span_of(pool.sizes[:, 0], side, 1.0)
    least = math.log(kind.scale[0]) + math.log(kind.tilt[0]) / 2
    enough = (spans > least).nonzero()[:, 0]
    if not len(enough):
        needed = math.ceil(side * math.exp(least))
        raise DataError(
            f"pairs '{kind.name}': expected photographs with a short side over {needed} px"
        )
    index = enough[torch.arange(count) % len(enough)]
    span = spans[index]

    def between(limits: tuple[float, float], largest: torch.Tensor) -> torch.Tensor:
        low = torch.full((count,), math.log(limits[0]))
        high = torch.minimum(torch.full((count,), math.log(limits[1])), largest)
        return low + (high - low).clamp(min=0.0) * torch.rand(count, generator=generator)

    def sign() -> torch.Tensor:
        return torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)

    ratio = between(kind.scale, span)
    angle = torch.rand(count, generator=generator) * (kind.rotation[1] - kind.rotation[0])
    same = torch.zeros(count)
    still = kind.light > 0
    motion = Motion(
        ratio * sign(), between(kind.tilt, 2 * (span - ratio)),
        torch.deg2rad(angle + kind.rotation[0]) * sign(), same,
        same if still else same + _BEND, same if still else same + _SHIFT,
    )
    pair = render_pairs(
        pool, index, side, place_views(pool.sizes[index, 0], side, 1.0, motion, generator)
    )
    if not kind.light:
        return pair
    changed = change_light(pair.images[count:], PhotometricRanges(), kind.light, generator)
    return ViewPair(torch.cat([pair.images[:count], changed]), pair.valid, pair.to_second)
