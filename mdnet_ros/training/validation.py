"""Metrics of a network on held-back photographs, warped once and for all.

Losses alone can look healthy while the detector is useless, so these are measured as a user would
see them: keypoints found by the extractor's own detection, matched by mutual nearest neighbour.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch.nn import functional as F

from mdnet_ros.features.detection import DetectionSettings, detect
from mdnet_ros.features.matching import mutual_nearest
from mdnet_ros.features.network import SIZE_MULTIPLE, MDNet
from mdnet_ros.features.types import PaddedFeatures
from mdnet_ros.training.data import step_generator
from mdnet_ros.training.images import ImagePool
from mdnet_ros.training.photometric import PhotometricRanges, change_light
from mdnet_ros.training.views import ViewPair, make_pairs
from mdnet_ros.training.warps import WarpRanges, apply_homography

#: Side of the validation views, pixels.
SIDE = 256
#: Keypoints of a view: the density of 2048 in 640 x 480.
KEYPOINTS = 2048 * SIDE * SIDE // (640 * 480)
#: Seed of the validation pairs, the same for every run.
_SEED = 20220821
#: How the validation views differ.
_WARPS = WarpRanges(
    rotation=30.0, small_motion=0.0, scale=2.0, tilt=1.8, perspective=0.2, translation=0.15,
)
_LIGHT = PhotometricRanges(blur=1.8)
#: Grey-value spread (of 1) of an 9 x 9 window below which the ground counts as flat.
_FLAT = 2.0 / 255.0


#: The metrics that are measured pair by pair and then averaged.
_MEASURED = (
    'repeatability_1px', 'repeatability_3px', 'mma_1px', 'mma_2px', 'mma_3px', 'ms_3px',
    'flat_share', 'overlap_1px', 'hardest_negative', 'descriptor_spread', 'steadiness_half_px',
)


@dataclass(frozen=True)
class ValidationMetrics:
    """Means over the validation pairs.

    Attributes:
        repeatability_1px, repeatability_3px: share of keypoints seen by both views that the other
            view found again within so many pixels.
        mma_1px, mma_2px, mma_3px: share of right ones among the proposed matches.
        ms_3px: right matches per keypoint in the shared area.
        score_low, score_median, score_high: 10th, 50th and 90th percentile of the peaks' scores.
        flat_share: share of keypoints on flat ground.
        overlap_1px: share of keypoints that another set found too, within a pixel: 0 where the
            sets complement each other, 1 where they are copies. No other metric shows this, since
            copies are matched as well as what they are copies of.
        hardest_negative: mean similarity of a keypoint's descriptor to the most similar wrong one.
        descriptor_spread: mean standard deviation of the descriptors' elements times sqrt(D): 1
            when they fill the sphere, 0 when they have collapsed to one.
        steadiness_half_px: share of keypoints found again within half a pixel when nothing changes
            but that the image moves by one pixel along both axes. Repeatability hides this: a
            detector bound to the raster of its coarse maps can look healthy otherwise.
    """

    repeatability_1px: float
    repeatability_3px: float
    mma_1px: float
    mma_2px: float
    mma_3px: float
    ms_3px: float
    score_low: float
    score_median: float
    score_high: float
    flat_share: float
    overlap_1px: float
    hardest_negative: float
    descriptor_spread: float
    steadiness_half_px: float

    def selection_score(self) -> float:
        """The score that chooses the best checkpoint: accuracy and yield, fine and coarse."""
        return (self.mma_1px + self.mma_2px + self.mma_3px) / 3.0 + self.ms_3px

    def complaints(self) -> list[str]:
        """Signs that the training has gone wrong, in words; empty when healthy."""
        found = []
        if self.descriptor_spread < 0.2 or self.hardest_negative > 0.98:
            found.append('descriptors have collapsed: nearly all are alike')
        if self.score_high - self.score_low < 0.02:
            found.append('scores do not rank keypoints: all peaks score alike')
        if self.score_low > 0.95:
            found.append('scores are saturated')
        if self.flat_share > 0.5:
            found.append('most keypoints lie on flat ground')
        if self.overlap_1px > 0.5:
            found.append('the sets find the same places: raise losses.intersection')
        return found

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def validation_pairs(pool: ImagePool, count: int, device: torch.device) -> ViewPair:
    """The same pairs in every run on the same images: moderate warps, full changes of light."""
    generator = step_generator(_SEED, 0, 0, 1, pool.pixels.device)
    index = torch.arange(count, device=pool.pixels.device) % len(pool)
    pair = make_pairs(pool, index, SIDE, _WARPS, 1.0, generator)
    images = change_light(pair.images, _LIGHT, 0.7, generator)
    return ViewPair(images.to(device), pair.valid.to(device), pair.to_second.to(device))


@torch.no_grad()
def validate(network: MDNet, pairs: ViewPair, precision: torch.dtype) -> ValidationMetrics:
    """Measure a network.

    Args:
        network: left in evaluation mode.
        pairs: from :func:`validation_pairs`.
        precision: precision of the autocast; float32 for none.
    """
    network.eval()
    count = len(pairs.to_second)
    rows: list[torch.Tensor] = []
    scores: list[torch.Tensor] = []
    for i in range(count):
        images = pairs.images[[i, count + i]]
        found = _detect(network, images, precision)
        visible = pairs.valid[[i, count + i]]
        metrics = _measure(found, images, visible, pairs.to_second[i : i + 1])
        rows.append(torch.cat([metrics, steadiness(network, images[:1], precision)[None]]))
        scores.append(found.scores[found.valid].cpu())
    means = dict(zip(_MEASURED, torch.stack(rows).mean(0).tolist(), strict=True))
    low, median, high = torch.quantile(
        torch.cat(scores), torch.tensor([0.1, 0.5, 0.9])
    ).tolist()
    return ValidationMetrics(score_low=low, score_median=median, score_high=high, **means)


def _detect(network: MDNet, images: torch.Tensor, precision: torch.dtype) -> PaddedFeatures:
    with torch.autocast(images.device.type, precision, enabled=precision != torch.float32):
        output = network(images.contiguous(memory_format=torch.channels_last))
    height, width = images.shape[-2:]
    count = KEYPOINTS * height * width // SIDE**2
    return detect(output, DetectionSettings(count), (height, width))


@torch.no_grad()
def steadiness(
    network: MDNet, image: torch.Tensor, precision: torch.dtype, shift: int = 1
) -> torch.Tensor:
    """Scalar: the share of keypoints found again within half a pixel in a window moved a little.

    Args:
        network: in evaluation mode.
        image: (1, 1, S, S) in [0, 1].
        precision: precision of the autocast; float32 for none.
        shift: shift of the window along both axes, pixels; less than ``SIZE_MULTIPLE``.
    """
    side = image.shape[-1] - SIZE_MULTIPLE
    windows = [image[..., at : at + side, at : at + side] for at in (0, shift)]
    found = _detect(network, torch.cat(windows), precision)
    before, after = found[0], found[1]
    inner = DetectionSettings().border + 2
    again = []
    for n in range(before.valid.shape[1]):
        moved = before.keypoints[0, n][before.valid[0, n]] - shift
        moved = moved[((moved >= inner) & (moved < side - inner)).all(-1)]
        others = after.keypoints[0, n][after.valid[0, n]]
        if len(moved) and len(others):
            again.append(torch.cdist(moved, others).min(1).values < 0.5)
    return torch.cat(again).float().mean() if again else image.new_zeros(())


def _inside(points: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """(N,) bool: which (N, 2) points lie on a visible pixel of an (S, S) mask."""
    side = visible.shape[-1]
    index = points.round().long()
    within = ((index >= 0) & (index < side)).all(-1)
    index = index.clamp(0, side - 1)
    return within & visible[index[:, 1], index[:, 0]]


def _measure(
    found: PaddedFeatures, images: torch.Tensor, visible: torch.Tensor, to_second: torch.Tensor
) -> torch.Tensor:
    """Measure one pair: the metrics in the order of ``_MEASURED`` without the last."""
    found0, found1 = found[0], found[1]
    k = found0.valid.shape[1]
    forward = apply_homography(to_second, found0.keypoints)[0]
    backward = apply_homography(torch.linalg.inv(to_second), found1.keypoints)[0]
    partner, _ = mutual_nearest(
        found0.descriptors[0], found0.valid[0], found1.descriptors[0], found1.valid[0]
    )
    proposed = partner >= 0
    matched = found1.keypoints[0].gather(1, partner.clamp(min=0)[..., None].expand(-1, -1, 2))
    error = (matched - forward).norm(dim=-1)
    shared, near = [], []
    for n in range(k):
        seen = found0.valid[0, n] & _inside(forward[n], visible[1, 0])
        seen &= _inside(found0.keypoints[0, n], visible[0, 0])
        seen_back = found1.valid[0, n] & _inside(backward[n], visible[0, 0])
        shared.append((seen.sum() + seen_back.sum()) / 2)
        if bool(seen.any()) and bool(found1.valid[0, n].any()):
            distance = torch.cdist(forward[n][seen], found1.keypoints[0, n][found1.valid[0, n]])
            near.append(distance.min(1).values)
    nearest = torch.cat(near) if near else torch.full((1,), 1e6, device=error.device)
    total = torch.stack(shared).sum().clamp(min=1)
    proposals = proposed.sum().clamp(min=1)
    right = [((error <= t) & proposed).sum() for t in (1.0, 2.0, 3.0)]
    return torch.stack([
        (nearest <= 1.0).float().mean(),
        (nearest <= 3.0).float().mean(),
        *(r / proposals for r in right),
        right[2] / total,
        _flat_share(found0, images[:1]),
        overlap(found0.keypoints[0], found0.valid[0]),
        _hardest(found0),
        found0.descriptors[found0.valid].std(0).mean() * found0.descriptors.shape[-1] ** 0.5,
    ]).float()


def overlap(keypoints: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Scalar: the share of keypoints with one of another set within a pixel.

    Args:
        keypoints: (K, M, 2) pixels.
        valid: (K, M) bool.
    """
    k, m = valid.shape
    points, is_keypoint = keypoints.reshape(-1, 2), valid.reshape(-1)
    number = torch.arange(k, device=valid.device).repeat_interleave(m)
    distance = torch.cdist(points, points)
    distance = distance.masked_fill((number[:, None] == number) | ~is_keypoint, torch.inf)
    shared = distance.amin(1)[is_keypoint] < 1.0
    return shared.float().mean() if len(shared) else keypoints.new_zeros(())


def _flat_share(found: PaddedFeatures, image: torch.Tensor) -> torch.Tensor:
    """Share of the keypoints around which a 9 x 9 window hardly varies."""
    mean = F.avg_pool2d(image, 9, 1, 4, count_include_pad=False)
    square = F.avg_pool2d(image**2, 9, 1, 4, count_include_pad=False)
    spread = (square - mean**2).clamp(min=0.0).sqrt()
    points = found.keypoints[found.valid].round().long().clamp(0, image.shape[-1] - 1)
    return (spread[0, 0, points[:, 1], points[:, 0]] < _FLAT).float().mean()


def _hardest(found: PaddedFeatures) -> torch.Tensor:
    """Mean similarity of each keypoint to the most similar one elsewhere in its own image."""
    descriptors, keypoints = found.descriptors[0], found.keypoints[0]
    similarity = descriptors @ descriptors.transpose(1, 2)
    close = torch.cdist(keypoints, keypoints) < 6.0
    invalid = ~found.valid[0]
    similarity = similarity.masked_fill(close | invalid[:, None] | invalid[:, :, None], -1.0)
    return similarity.max(2).values[found.valid[0]].mean()
