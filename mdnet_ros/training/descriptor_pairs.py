"""Which descriptors the descriptor losses compare: positives and negatives."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from mdnet_ros.features.detection import sample_descriptors
from mdnet_ros.features.network import NetworkOutput
from mdnet_ros.training.keypoint_terms import EDGE, ViewKeypoints
from mdnet_ros.training.overlap import Overlap, lookup_at
from mdnet_ros.training.warps import apply_homography

#: Descriptors must differ where they lie farther apart than this in the image, pixels.
_APART = 6.0


@dataclass(frozen=True)
class Correspondences:
    """N points of an image pair, at their true positions in both views, with a descriptor in each.

    Attributes:
        first, second: (B, N, D) unit-norm descriptors in the first and in the second view.
        visible: (B, N) bool, both views see the point: its descriptors must match.
        negatives: (B, N, N) bool, descriptor j of the second view must differ from i of the first.
        negatives_back: (B, N, N) bool, descriptor i of the first view must differ from j of the
            second.
    """

    first: torch.Tensor
    second: torch.Tensor
    visible: torch.Tensor
    negatives: torch.Tensor
    negatives_back: torch.Tensor


def every_second(view: ViewKeypoints) -> ViewKeypoints:
    """Leave out every second keypoint of each set, in the order of scores."""
    return ViewKeypoints(*(getattr(view, f.name)[:, :, ::2] for f in fields(view)))


def correspondences(
    outputs: tuple[NetworkOutput, NetworkOutput],
    keypoints: tuple[ViewKeypoints, ViewKeypoints],
    shared: tuple[Overlap, Overlap],
    random_points: torch.Tensor,
) -> Correspondences:
    """Gather detections of both views and some random points.

    Every second detection in the order of scores, which halves the points and quarters the time.
    The detections of a view stay negatives where the other view does not see or repeat them: at
    test time nothing distinguishes them from the others.

    Args:
        outputs: outputs of the network for the two views.
        keypoints: detected in the two views.
        shared: the overlap as the first and as the second view see it.
        random_points: (B, R, 2) pixels of the first view.
    """
    keypoints0, keypoints1 = (every_second(view) for view in keypoints)
    b, side = len(random_points), shared[0].visible.shape[-1]
    moved = apply_homography(shared[0].to_second, random_points)
    in_first, in_second = (
        torch.cat([a.reshape(b, -1, 2), c.reshape(b, -1, 2), points], 1).detach()
        for a, c, points in (
            (keypoints0.keypoints, keypoints1.warped, random_points),
            (keypoints0.warped, keypoints1.keypoints, moved),
        )
    )
    inside = ((moved >= EDGE) & (moved <= side - 1 - EDGE)).all(-1)
    seen = [keypoints0.visible.reshape(b, -1), keypoints1.visible.reshape(b, -1),
            inside & lookup_at(shared[0].visible, random_points)]
    visible = torch.cat(seen, 1)
    exists_first = torch.cat([keypoints0.valid.reshape(b, -1), *seen[1:]], 1)
    exists_second = torch.cat([seen[0], keypoints1.valid.reshape(b, -1), seen[2]], 1)
    apart_first = torch.cdist(in_first, in_first) > _APART
    apart_second = torch.cdist(in_second, in_second) > _APART
    return Correspondences(
        sample_descriptors(outputs[0], in_first, (side, side)),
        sample_descriptors(outputs[1], in_second, (side, side)),
        visible,
        apart_second & visible[:, :, None] & exists_second[:, None, :],
        apart_first & visible[:, None, :] & exists_first[:, :, None],
    )
