"""The training objective: network output on a pair of views to one number to descend."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from mdnet_ros.features.network import NetworkOutput
from mdnet_ros.training import losses
from mdnet_ros.training.descriptor_pairs import correspondences
from mdnet_ros.training.keypoint_terms import (
    EDGE,
    ViewKeypoints,
    find_keypoints,
    keypoint_terms,
    match_quality,
)
from mdnet_ros.training.overlap import Overlap, overlaps
from mdnet_ros.training.views import ViewPair
from mdnet_ros.training.window_terms import (
    WindowTerms,
    agreement,
    intersection,
    similarity_and_peaky,
)

#: Keypoints of each set that are judged, per pixel of a view: 2048 of two sets in 640x480.
_DENSITY = 1 / 300
#: Temperature of the dual-softmax loss.
_MATCH_TEMPERATURE = 0.05


@dataclass(frozen=True)
class LossWeights:
    """Weight of each term; see :mod:`mdnet_ros.training.losses` for what they mean."""

    similarity: float = 0.0
    peaky: float = 0.0
    agreement: float = 4.0
    intersection: float = 10.0
    reliability: float = 0.5
    reprojection: float = 0.3
    triplet: float = 1.0
    dual_softmax: float = 0.1


@dataclass(frozen=True)
class LossTerms:
    """The terms of one step as scalar tensors, unweighted, and their weighted sum ``total``.

    ``repeated``, ``correct`` and ``hardest`` are for watching: the share of the visible keypoints
    that the other view has too, the share whose match is right, and the mean similarity of the
    hardest negative.
    """

    similarity: torch.Tensor
    peaky: torch.Tensor
    agreement: torch.Tensor
    intersection: torch.Tensor
    reliability: torch.Tensor
    reprojection: torch.Tensor
    triplet: torch.Tensor
    dual_softmax: torch.Tensor
    total: torch.Tensor
    repeated: torch.Tensor
    correct: torch.Tensor
    hardest: torch.Tensor

    def values(self) -> dict[str, float]:
        """The numbers, for logs; waits for the device."""
        return {f.name: float(getattr(self, f.name).detach()) for f in fields(self)}


@dataclass(frozen=True)
class Draws:
    """The random choices of one step.

    Attributes:
        offset: (y, x) of the grid of windows, pixels, each less than ``losses.WINDOW``.
        points: (B, R, 2) pixels of the first views whose descriptors are compared as well.
    """

    offset: tuple[int, int]
    points: torch.Tensor


def draw(
    pairs: int, side: int, generator: torch.Generator, device_generator: torch.Generator
) -> Draws:
    """Draw the random choices of one step.

    Args:
        pairs: B.
        side: S of the views, pixels.
        generator: on the CPU, for what shapes depend on.
        device_generator: on the views' device.
    """
    offset = torch.randint(0, losses.WINDOW, (2,), generator=generator).tolist()
    points = torch.rand(
        pairs, _count(side) // 2, 2, generator=device_generator, device=device_generator.device
    )
    return Draws((offset[0], offset[1]), points * (side - 1 - 2 * EDGE) + EDGE)


def _count(side: int) -> int:
    """Keypoints of each set in a view."""
    return int(side * side * _DENSITY)


def objective(
    output: NetworkOutput,
    pair: ViewPair,
    weights: LossWeights,
    temperature: float,
    reliability_share: float,
    draws: Draws,
) -> LossTerms:
    """Compute all loss terms of a batch; both views have a part in each.

    Args:
        output: output of the network on ``pair.images`` (2B views).
        pair: the views and the map between them.
        weights: weights of the terms; those of weight 0 are not computed where that saves time.
        temperature: τ of the triplet's soft maximum over negatives; small means the hardest.
        reliability_share: in [0, 1]; ramps the weight of the reliability term in, since at the
            start no descriptor matches and every score would be pushed down.
        draws: the step's random choices.
    """
    logits = output.logits.float().contiguous()
    b, side = len(logits) // 2, logits.shape[-1]
    maps = (logits[:b], logits[b:])
    first, second = (output._replace(descriptors=views) for views in output.descriptors.split(b))
    shared = overlaps(pair)
    keypoints0 = find_keypoints(maps[0], first, pair.valid[:b], shared[0], _count(side))
    keypoints1 = find_keypoints(maps[1], second, pair.valid[b:], shared[1], _count(side))
    keypoints = (keypoints0, keypoints1)
    quality = match_quality(*keypoints)
    windows = _window_terms(maps, shared, keypoints, quality, weights, draws.offset)
    at_keypoints = keypoint_terms(*keypoints, quality)
    points = correspondences((first, second), keypoints, shared, draws.points)
    similarity = points.first @ points.second.transpose(1, 2)
    compared = (similarity, points.negatives, points.negatives_back, points.visible.float())
    triplet, hardest = losses.triplet_loss(*compared, temperature)
    none = logits.new_zeros(())
    dual = losses.dual_softmax_loss(*compared, _MATCH_TEMPERATURE) if weights.dual_softmax else none
    total = (
        weights.similarity * windows.similarity
        + weights.peaky * windows.peaky
        + weights.agreement * windows.agreement
        + weights.intersection * windows.intersection
        + weights.reliability * reliability_share * at_keypoints.reliability
        + weights.reprojection * at_keypoints.reprojection
        + weights.triplet * triplet
        + weights.dual_softmax * dual
    )
    return LossTerms(
        windows.similarity, windows.peaky, windows.agreement, windows.intersection,
        at_keypoints.reliability, at_keypoints.reprojection, triplet, dual, total,
        at_keypoints.repeated, at_keypoints.correct,
        losses.masked_mean(hardest, points.visible),
    )


def _window_terms(
    maps: tuple[torch.Tensor, torch.Tensor],
    shared: tuple[Overlap, Overlap],
    keypoints: tuple[ViewKeypoints, ViewKeypoints],
    quality: tuple[torch.Tensor, torch.Tensor],
    weights: LossWeights,
    offset: tuple[int, int],
) -> WindowTerms:
    """The window losses; the published ones only where they have weight."""
    none = maps[0].new_zeros(())
    published = [(none, none)]
    if weights.similarity or weights.peaky:
        published = [
            similarity_and_peaky(maps[i], maps[1 - i], shared[i], keypoints[i], quality[i])
            for i in (0, 1)
        ]
    similarity, peaky = (torch.stack(values).mean() for values in zip(*published, strict=True))
    return WindowTerms(
        agreement(maps[0], maps[1], shared[0], offset),
        (intersection(maps[0], shared[0], offset) + intersection(maps[1], shared[1], offset)) / 2,
        similarity, peaky,
    )
