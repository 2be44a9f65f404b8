"""The training objective: network output on a pair of views to one number to descend."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch.nn import functional as F

from mdnet_ros.features.detection import local_maxima, refine, sample_descriptors
from mdnet_ros.features.network import NetworkOutput
from mdnet_ros.training import losses
from mdnet_ros.training.warps import ViewPair, apply_homography, pixel_grid


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


@dataclass(frozen=True)
class LossTerms:
    """The terms of one step, each a scalar tensor, unweighted; and their weighted sum."""

    similarity: torch.Tensor
    peaky: torch.Tensor
    agreement: torch.Tensor
    intersection: torch.Tensor
    reliability: torch.Tensor
    reprojection: torch.Tensor
    triplet: torch.Tensor
    total: torch.Tensor
    repeated: torch.Tensor
    correct: torch.Tensor
    hardest: torch.Tensor

    def values(self) -> dict[str, float]:
        """For logs."""
        return {f.name: float(getattr(self, f.name).detach()) for f in fields(self)}


@dataclass(frozen=True)
class _Peaks:
    """Detected keypoints of one view, per set.

    Attributes:
        index: (B, K, M) flat pixel index. logits: (B, K, M). valid: (B, K, M).
        keypoints: (B, K, M, 2) refined. descriptors: (B, K, M, D).
    """

    index: torch.Tensor
    logits: torch.Tensor
    valid: torch.Tensor
    keypoints: torch.Tensor
    descriptors: torch.Tensor


#: Closer to a crop's edge than this, a keypoint lacks context: not judged. Pixels.
_MARGIN = 8
#: A peak repeats when the other view has one within this of its true place, pixels.
_NEAR = 3.0
#: Descriptors this far apart in the image must differ, pixels.
_APART = 6.0


def _peaks(
    logits: torch.Tensor, output: NetworkOutput, visible: torch.Tensor, count: int
) -> _Peaks:
    """The strongest local maxima inside the photograph, as the extractor finds them."""
    b, k, h, w = logits.shape
    with torch.no_grad():
        inside = torch.zeros_like(visible)
        inside[..., _MARGIN:-_MARGIN, _MARGIN:-_MARGIN] = True
        allowed = local_maxima(logits, 2) & inside & visible
        ranked = logits.masked_fill(~allowed, -1e4).reshape(b, k, -1)
        best, index = ranked.topk(count, dim=-1)
        valid = best > -1e4
    keypoints = refine(logits, index)
    sampled = sample_descriptors(
        output, keypoints.detach().reshape(b, -1, 2), (h, w)
    ).reshape(b, k, count, -1)
    at_peak = logits.reshape(b, k, -1).gather(2, index)
    return _Peaks(index, at_peak, valid, keypoints, sampled)


def _match_quality(
    first: _Peaks, second: _Peaks, carried: torch.Tensor, seen: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """How well each first-view peak's mutual nearest neighbour hits its true place.

    The share of the thresholds 1, 2 and 3 px that the match stays under: 1 for a precise match, 0
    for a wrong one or none.

    Returns:
        (B, K, M) quality for the first view's and the second view's peaks.
    """
    similarity = first.descriptors @ second.descriptors.transpose(2, 3)
    similarity = similarity.masked_fill(~(first.valid[..., None] & second.valid[:, :, None]), -2.0)
    forward, backward = similarity.argmax(3), similarity.argmax(2)
    rows = torch.arange(forward.shape[2], device=forward.device)
    mutual = backward.gather(2, forward) == rows
    place = second.keypoints.gather(2, forward[..., None].expand(-1, -1, -1, 2))
    error = (place - carried).norm(dim=-1)
    hits = sum((error <= t).float() for t in (1.0, 2.0, 3.0)) / 3.0
    quality = hits * (mutual & first.valid & seen)
    other = torch.zeros_like(quality).scatter_reduce(2, forward, quality, 'amax')
    return quality, other


def objective(
    output: NetworkOutput,
    pair: ViewPair,
    weights: LossWeights,
    temperature: float,
    reliability_share: float,
    generator: torch.Generator,
    peaks_per_pixel: float = 1 / 300,
) -> LossTerms:
    """All loss terms of a batch.

    Args:
        output: of the network on ``pair.images`` (2B views).
        pair: the views and the map between them.
        weights: of the terms.
        temperature: of the triplet's soft maximum over negatives; small means the hardest.
        reliability_share: in [0, 1]; ramps the weight of the reliability term in, since at the
            start no descriptor matches and every score would be pushed down.
        generator: on the CPU, for the windows' offset and the random anchors.
        peaks_per_pixel: how many peaks of each set are judged, per pixel of a view.
    """
    logits = output.logits.float().contiguous()
    b = logits.shape[0] // 2
    side = logits.shape[-1]
    device = logits.device
    first_z, second_z = logits[:b], logits[b:]
    grid = pixel_grid(side, device)[None].expand(b, -1, -1, -1)
    to_second = pair.to_second
    mapped = apply_homography(to_second, grid)
    within = ((mapped >= 2) & (mapped <= side - 3)).all(-1)[:, None]
    normalised = ((mapped + 0.5) * (2.0 / side) - 1.0).clamp(-2.0, 2.0)
    second_valid = F.grid_sample(
        pair.valid[b:].float(), normalised, mode='nearest', align_corners=False
    )
    both = within & (second_valid > 0.5) & pair.valid[:b]
    unwarped = F.grid_sample(
        second_z, normalised, mode='bilinear', padding_mode='border', align_corners=False
    )

    offset = torch.randint(0, losses.WINDOW, (2,), generator=generator).tolist()
    cut = [losses.windows_of(m, losses.WINDOW, (offset[0], offset[1]))
           for m in (first_z, unwarped, both)]
    covered = (cut[2].float().mean(-1) > 0.9).float()
    zero = logits.sum() * 0.0
    agreement = losses.agreement_loss(cut[0], cut[1], cut[2], covered)
    intersection = losses.intersection_loss(cut[0], cut[2], covered)

    count = int(side * side * peaks_per_pixel)
    first, second = (
        output._replace(descriptors=views) for views in output.descriptors.split(b)
    )
    one = _peaks(first_z, first, pair.valid[:b], count)
    two = _peaks(second_z, second, pair.valid[b:], count)
    carried = apply_homography(to_second, one.keypoints)
    inside = ((carried >= _MARGIN) & (carried <= side - 1 - _MARGIN)).all(-1)
    seen = inside & one.valid & _lookup(both, one.index)
    back = apply_homography(torch.linalg.inv(to_second.double()).float(), two.keypoints)
    seen_back = ((back >= _MARGIN) & (back <= side - 1 - _MARGIN)).all(-1) & two.valid
    with torch.no_grad():
        quality, quality_back = _match_quality(one, two, carried, seen)
    reliability = 0.5 * (
        losses.reliability_loss(one.logits, quality, seen)
        + losses.reliability_loss(two.logits, quality_back, seen_back)
    )
    with torch.no_grad():
        distance = torch.cdist(carried, two.keypoints)
        distance = distance.masked_fill(~two.valid[:, :, None], 1e6)
        nearest, partner = distance.min(3)
        repeats = seen & (nearest < _NEAR)
    partners = two.keypoints.gather(2, partner[..., None].expand(-1, -1, -1, 2))
    reprojection = losses.reprojection_loss(carried, partners, repeats)

    triplet, hardest = _describe(
        first, second, one, carried, seen, pair, side, temperature, generator
    )

    if weights.similarity or weights.peaky:
        heat, heat_other = first_z.sigmoid(), unwarped.sigmoid()
        similarity = losses.similarity_loss(heat, heat_other, both)
        reliable = torch.zeros_like(heat).reshape(b, heat.shape[1], -1)
        reliable = reliable.scatter(2, one.index, quality).reshape_as(heat)
        reliable = F.max_pool2d(reliable, losses.WINDOW + 1, 1, losses.WINDOW // 2)
        peaky = losses.peaky_loss(heat, (0.1 + reliable) * both)
    else:
        similarity = peaky = zero.detach()
    total = (
        weights.similarity * similarity
        + weights.peaky * peaky
        + weights.agreement * agreement
        + weights.intersection * intersection
        + weights.reliability * reliability_share * reliability
        + weights.reprojection * reprojection
        + weights.triplet * triplet
    )
    with torch.no_grad():
        repeated = losses.masked_mean(repeats.float(), seen)
        correct = losses.masked_mean((quality > 0).float(), seen)
    return LossTerms(
        similarity, peaky, agreement, intersection, reliability, reprojection, triplet, total,
        repeated, correct, hardest,
    )


def _lookup(mask: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """(B, K, M) values of a (B, 1, H, W) mask at flat pixel indices."""
    b, k, _ = index.shape
    return mask.reshape(b, 1, -1).expand(b, k, -1).gather(2, index)


def _describe(
    first: NetworkOutput,
    second: NetworkOutput,
    one: _Peaks,
    carried: torch.Tensor,
    seen: torch.Tensor,
    pair: ViewPair,
    side: int,
    temperature: float,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The triplet loss at detected keypoints and at some random places."""
    b = carried.shape[0]
    device = carried.device
    half = one.index.shape[2] // 2
    random = torch.rand(b, half, 2, generator=generator).to(device)
    random = random * (side - 1 - 2 * _MARGIN) + _MARGIN
    random_there = apply_homography(pair.to_second, random)
    random_seen = ((random_there >= _MARGIN) & (random_there <= side - 1 - _MARGIN)).all(-1)
    index = (random[..., 1].round() * side + random[..., 0].round()).long()
    random_seen &= _lookup(pair.valid[:b], index[:, None])[:, 0]
    here = torch.cat([one.keypoints.detach().reshape(b, -1, 2), random], 1)
    there = torch.cat([carried.detach().reshape(b, -1, 2), random_there], 1)
    use = torch.cat([seen.reshape(b, -1), random_seen], 1)
    anchors = sample_descriptors(first, here, (side, side))
    positives = sample_descriptors(second, there, (side, side))
    apart = (torch.cdist(there, there) > _APART) & (torch.cdist(here, here) > _APART)
    negatives = apart & use[:, None] & use[:, :, None]
    loss, hardest = losses.triplet_loss(anchors, positives, negatives, use.float(), temperature)
    return loss, losses.masked_mean(hardest, use)


