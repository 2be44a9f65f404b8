"""The losses at detected keypoints: reliability and reprojection, for both views of a pair."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mdnet_ros.features.detection import local_maxima, refine, sample_descriptors
from mdnet_ros.features.network import NetworkOutput
from mdnet_ros.training import losses
from mdnet_ros.training.overlap import Overlap, lookup
from mdnet_ros.training.warps import apply_homography

#: Closer to a crop's edge than this a keypoint lacks context and is not judged, pixels.
EDGE = 8
#: A keypoint is repeated when the other view has one within this of its true position, pixels.
_NEAR = 3.0
#: A match within this many pixels of the true position counts a third each.
_THRESHOLDS = (1.0, 2.0, 3.0)
#: Radius of the non-maximum suppression, pixels: the extractor's default.
_RADIUS = 2


@dataclass(frozen=True)
class ViewKeypoints:
    """Detected keypoints of one view, per set, and where the other view sees them.

    Attributes:
        index: (B, K, M) int64 flat pixel index.
        logits: (B, K, M) of the detector at that pixel.
        valid: (B, K, M) bool; false for padding.
        keypoints: (B, K, M, 2) refined position, pixels.
        descriptors: (B, K, M, D) unit norm.
        warped: (B, K, M, 2) the true position in the other view, pixels.
        visible: (B, K, M) bool, valid and seen by the other view.
    """

    index: torch.Tensor
    logits: torch.Tensor
    valid: torch.Tensor
    keypoints: torch.Tensor
    descriptors: torch.Tensor
    warped: torch.Tensor
    visible: torch.Tensor


@dataclass(frozen=True)
class KeypointTerms:
    """Scalars of a batch; the last two are for watching and have no gradient.

    Attributes:
        reliability, reprojection: the losses.
        repeated: share of the visible keypoints that the other view has too.
        correct: share of the visible keypoints whose match is right within 3 px.
    """

    reliability: torch.Tensor
    reprojection: torch.Tensor
    repeated: torch.Tensor
    correct: torch.Tensor


def find_keypoints(
    logits: torch.Tensor, output: NetworkOutput, on_photo: torch.Tensor, shared: Overlap, count: int
) -> ViewKeypoints:
    """Find the strongest local maxima on the photograph, as the extractor does.

    Args:
        logits: (B, K, S, S) of one view.
        output: output of the network for that view, for the descriptors.
        on_photo: (B, 1, S, S) bool.
        shared: the overlap as this view sees it.
        count: M, keypoints of each set.
    """
    b, k, side, _ = logits.shape
    with torch.no_grad():
        inside = torch.zeros_like(on_photo)
        inside[..., EDGE:-EDGE, EDGE:-EDGE] = True
        allowed = local_maxima(logits, _RADIUS) & inside & on_photo
        ranked = logits.masked_fill(~allowed, -1e4).reshape(b, k, -1)
        best, index = ranked.topk(count, dim=-1)
        valid = best > -1e4
    keypoints = refine(logits, index)
    descriptors = sample_descriptors(
        output, keypoints.detach().reshape(b, -1, 2), (side, side)
    ).reshape(b, k, count, -1)
    at_peak = logits.reshape(b, k, -1).gather(2, index)
    warped = apply_homography(shared.to_second, keypoints)
    with torch.no_grad():
        inside_other = ((warped >= EDGE) & (warped <= side - 1 - EDGE)).all(-1)
        visible = valid & inside_other & lookup(shared.visible, index)
    return ViewKeypoints(index, at_peak, valid, keypoints, descriptors, warped, visible)


@torch.no_grad()
def match_quality(
    first: ViewKeypoints, second: ViewKeypoints
) -> tuple[torch.Tensor, torch.Tensor]:
    """Measure how well the mutual nearest neighbour of each keypoint hits its true position.

    Returns:
        (B, K, M) for the first and for the second view's keypoints: the share of the thresholds 1,
        2 and 3 px that the match stays under; 0 for a wrong match or none.
    """
    similarity = first.descriptors @ second.descriptors.transpose(2, 3)
    similarity = similarity.masked_fill(~(first.valid[..., None] & second.valid[:, :, None]), -2.0)
    forward, backward = similarity.argmax(3), similarity.argmax(2)
    rows = torch.arange(forward.shape[2], device=forward.device)
    mutual = backward.gather(2, forward) == rows
    matched = second.keypoints.gather(2, forward[..., None].expand(-1, -1, -1, 2))
    error = (matched - first.warped).norm(dim=-1)
    hits = torch.stack([(error <= t).float() for t in _THRESHOLDS]).mean(0)
    quality = hits * (mutual & first.valid & first.visible)
    return quality, torch.zeros_like(quality).scatter_reduce(2, forward, quality, 'amax')


def _nearest(
    view: ViewKeypoints, other: ViewKeypoints
) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, K, M, 2) the other view's keypoint nearest to each true position; (B, K, M) repeated."""
    with torch.no_grad():
        distance = torch.cdist(view.warped, other.keypoints)
        distance = distance.masked_fill(~other.valid[:, :, None], 1e6)
        least, partner = distance.min(3)
        repeated = view.visible & (least < _NEAR)
    return other.keypoints.gather(2, partner[..., None].expand(-1, -1, -1, 2)), repeated


def keypoint_terms(
    first: ViewKeypoints, second: ViewKeypoints, quality: tuple[torch.Tensor, torch.Tensor]
) -> KeypointTerms:
    """Reliability and reprojection, each the mean of both views.

    Args:
        first, second: keypoints of the two views.
        quality: from :func:`match_quality`.
    """
    reliability, reprojection, repeated, correct = [], [], [], []
    for view, other, own_quality in ((first, second, quality[0]), (second, first, quality[1])):
        reliability.append(losses.reliability_loss(view.logits, own_quality, view.visible))
        partners, again = _nearest(view, other)
        reprojection.append(losses.reprojection_loss(view.warped, partners, again))
        with torch.no_grad():
            repeated.append(losses.masked_mean(again.float(), view.visible))
            correct.append(losses.masked_mean((own_quality > 0).float(), view.visible))
    return KeypointTerms(*(
        torch.stack(terms).mean() for terms in (reliability, reprojection, repeated, correct)
    ))
