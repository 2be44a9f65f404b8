"""Refinement of tracks by optical flow: precise positions, and tracks between detections.

A detector decides in every image afresh where a keypoint lies, so matched positions scatter by most
of a pixel. Aligning the patch of the track's position in the last image measures the motion
several times as precisely, and goes on measuring it where the keypoint is not detected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from mdnet_ros.features.optical_flow import (
    FlowResult,
    distinct,
    follow,
    nearby,
    patch_correlation,
    predict_motion,
)
from mdnet_ros.features.track_state import Association, EarlierTracks, select_features
from mdnet_ros.features.types import Features

Refinement = Literal['none', 'flow']
REFINEMENTS: tuple[str, ...] = get_args(Refinement)

#: An alignment that ends farther than this from the detection contradicts the match, pixels.
_MAX_MOVE = 3.0
#: Share of the way from the aligned position to the detected one that a refined position lies at.
#: Alignments from frame to frame add up their errors; detections scatter, but do not drift.
_PULL = 0.1
#: Least normalised cross-correlation of the patches of a propagated track.
_MIN_CORRELATION = 0.8
#: Least cosine at which a keypoint detected at the position of a propagated track continues it.
_SAME_PLACE_SIMILARITY = 0.5


def refine(
    association: Association,
    features: Features,
    earlier: EarlierTracks,
    previous: np.ndarray,
    image: np.ndarray,
    *,
    max_gap: int,
    min_similarity: float,
    border: int,
    masks: Sequence[np.ndarray | None] = (),
) -> Association:
    """Refine the positions of matched keypoints, and propagate tracks that were not detected.

    Tracks with a position in the previous frame are followed to this one. Where a track is
    matched, the search starts from the detection. Its result, with a small share of the detection,
    replaces the detected position, unless the search fails or ends too far away. Where a track is
    not matched, the search starts from where the tracks nearby have moved. If it is found and its
    patch still looks the same, there are three cases. Without a keypoint at that position the track
    is propagated. A new keypoint at that position continues it, if their descriptors agree.
    Otherwise the track ends.

    Args:
        association: matches of the N detected keypoints to earlier tracks.
        features: the detected keypoints.
        earlier: the tracks.
        previous: (H, W) uint8, the last image.
        image: (H, W) uint8, this image.
        max_gap: through how many frames in a row a track may be propagated.
        min_similarity: least cosine of a match.
        border: no track is propagated closer to the edge of the image than this, pixels.
        masks: (h, w) uint8 of any size, stretched to the image: no track is propagated to where one
            of them is 0; None: everywhere.
    """
    table = earlier.table
    keypoint = np.full(len(table), -1, np.int64)  # of each track
    matched = np.nonzero(association.track_index >= 0)[0]
    keypoint[association.track_index[matched]] = matched
    tracks = np.nonzero((table.frames_ago == 0) & ((keypoint >= 0) | (table.missed < max_gap)))[0]
    flow = _follow(association, features, earlier, tracks, keypoint[tracks], previous, image)
    association = _moved(association, tracks, keypoint[tracks], flow)
    loose = np.nonzero(flow.found & (keypoint[tracks] < 0))[0]
    loose = loose[_allowed(flow.points[loose], features.image_size, border, masks)]
    alike = patch_correlation(
        previous, image, table.keypoints[tracks[loose]], flow.points[loose]
    )
    loose = loose[alike >= _MIN_CORRELATION]
    return _propagated(
        association, features, earlier, tracks[loose], flow.points[loose],
        max(min_similarity, _SAME_PLACE_SIMILARITY),
    )


def _follow(
    association: Association, features: Features, earlier: EarlierTracks, tracks: np.ndarray,
    keypoint: np.ndarray, previous: np.ndarray, image: np.ndarray,
) -> FlowResult:
    """Follow tracks; ``keypoint`` is the row that each is matched to, or -1."""
    points = earlier.table.keypoints[tracks]
    start = points.copy()
    known = keypoint >= 0
    start[known] = association.keypoints[keypoint[known]]
    motion = start[known] - points[known]
    start[~known] += predict_motion(points[known], motion, points[~known], features.image_size)
    return follow(previous, image, points, start)


def _moved(
    association: Association, tracks: np.ndarray, keypoint: np.ndarray, flow: FlowResult
) -> Association:
    """Replace the detected positions by those of optical flow where the two agree."""
    rows = np.nonzero(flow.found & (keypoint >= 0))[0]
    to_detection = association.keypoints[keypoint[rows]] - flow.points[rows]
    agrees = np.linalg.norm(to_detection, axis=1) <= _MAX_MOVE
    rows, to_detection = rows[agrees], to_detection[agrees]
    keypoints, refined = association.keypoints.copy(), association.refined.copy()
    keypoints[keypoint[rows]] = flow.points[rows] + np.float32(_PULL) * to_detection
    refined[keypoint[rows]] = True
    return replace(association, keypoints=keypoints, refined=refined)


def _allowed(
    points: np.ndarray, image_size: tuple[int, int], border: int,
    masks: Sequence[np.ndarray | None],
) -> np.ndarray:
    """Mark the (N, 2) points that lie inside the border and all masks; (N,) bool."""
    size = np.array(image_size)
    inside = (points >= border) & (points <= size - 1 - border)
    allowed = np.logical_and.reduce(inside, axis=1)
    for mask in masks:
        if mask is not None:
            height, width = mask.shape
            x, y = np.floor((points + 0.5) / size * (width, height)).astype(np.int64).T
            allowed &= mask[y.clip(0, height - 1), x.clip(0, width - 1)] > 0
    return allowed


def _propagated(
    association: Association, features: Features, earlier: EarlierTracks, tracks: np.ndarray,
    points: np.ndarray, least: float,
) -> Association:
    """Continue tracks that were followed but not matched, at most one at each position."""
    size = features.image_size
    ages = earlier.table.ages[tracks]
    ranks = np.empty(len(tracks), np.int64)  # the oldest first
    ranks[np.lexsort((-tracks, ages))] = np.arange(len(tracks))
    alone = distinct(points, ranks, size)
    tracks, points = tracks[alone], points[alone]
    # Is it detected after all, only not as its mutual nearest neighbour?
    track_index, similarity = association.track_index.copy(), association.similarity.copy()
    keypoints, refined = association.keypoints.copy(), association.refined.copy()
    new = np.nonzero(track_index < 0)[0]
    at_place = nearby(points, keypoints[new], -np.arange(len(new)), size)
    here = np.nonzero(at_place >= 0)[0]
    here = here[np.unique(at_place[here], return_index=True)[1]]
    rows, here = new[at_place[here]], here
    order = np.argsort(here)
    rows, here = rows[order], here[order]
    now = select_features(features, rows)
    then = earlier.features(tracks[here])
    cosine = np.einsum('ij,ij->i', now.descriptors, then.descriptors)
    agrees = (cosine >= least) & (now.sets == then.sets)
    rows, here, cosine = rows[agrees], here[agrees], cosine[agrees]
    track_index[rows], similarity[rows] = tracks[here], cosine
    keypoints[rows], refined[rows] = points[here], True
    # What is left must not lie where another track does.
    left = np.ones(len(tracks), bool)
    left[here] = False
    left &= nearby(points, keypoints, np.arange(len(keypoints)), size) < 0
    return Association(
        track_index, similarity, keypoints, refined, tracks[left], points[left]
    )
