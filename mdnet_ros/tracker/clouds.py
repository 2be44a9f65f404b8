"""Layout of the PointCloud2 outputs, without ROS: structured arrays to and from tracked frames.

The node and the bag writer take the bytes of their messages from these arrays; the reading
functions return :class:`Features` and :class:`Correspondences`. All numbers are little-endian.

Track ids are UINT32, the widest integer of a PointCloud2: they wrap modulo 2**32, so an id repeats
only after more than four thousand million other tracks.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np

from mdnet_ros.errors import DataError
from mdnet_ros.features.types import Correspondences, Features, TrackedFrame
from mdnet_ros.tracker.stereo import StereoMatches

DescriptorEncoding = Literal['float32', 'int8', 'none']
DESCRIPTOR_ENCODINGS: tuple[str, ...] = get_args(DescriptorEncoding)

#: Fields of ``keypoints`` before the descriptor.
_KEYPOINT_FIELDS: list[Any] = [
    ('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('score', '<f4'),
    ('set', '<i4'), ('track_id', '<u4'), ('age', '<i4'),
]
CORRESPONDENCE_DTYPE = np.dtype(
    [
        ('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('x_prev', '<f4'), ('y_prev', '<f4'),
        ('similarity', '<f4'), ('set', '<i4'), ('track_id', '<u4'), ('inlier', '<i4'),
        ('index', '<i4'), ('index_prev', '<i4'),
        ('stamp_prev_sec', '<i4'), ('stamp_prev_nanosec', '<u4'),
    ]
)
STEREO_DTYPE = np.dtype(
    [
        ('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('x_right', '<f4'), ('y_right', '<f4'),
        ('similarity', '<f4'), ('set', '<i4'), ('track_id', '<u4'), ('inlier', '<i4'),
        ('index', '<i4'), ('index_right', '<i4'), ('disparity', '<f4'), ('depth', '<f4'),
        ('stamp_right_sec', '<i4'), ('stamp_right_nanosec', '<u4'),
    ]
)
_SECOND = 1_000_000_000


def keypoint_table(frame: TrackedFrame, descriptors: DescriptorEncoding = 'float32') -> np.ndarray:
    """Build the points of a ``keypoints`` message.

    Args:
        frame: tracked frame with N keypoints.
        descriptors: ``float32`` as they are; ``int8`` scaled so that the largest component of
            each is 127 (normalise after reading); or ``none``.

    Returns:
        (N,) structured: x, y (pixels), z = 0, score, set, track_id, age and, unless left out,
        descriptor (D numbers).

    Raises:
        ValueError: if the descriptor encoding is unknown.
    """
    if descriptors not in DESCRIPTOR_ENCODINGS:
        raise ValueError(
            f"descriptors '{descriptors}': expected one of {', '.join(DESCRIPTOR_ENCODINGS)}"
        )
    features = frame.features
    dim = features.descriptors.shape[1]
    last = {'float32': [('descriptor', '<f4', (dim,))], 'int8': [('descriptor', 'i1', (dim,))]}
    table = np.zeros(len(features), np.dtype(_KEYPOINT_FIELDS + last.get(descriptors, [])))
    table['x'], table['y'] = features.keypoints.T
    table['score'] = features.scores
    table['set'] = features.sets
    table['track_id'] = frame.track_ids & 0xFFFFFFFF
    table['age'] = frame.ages
    if descriptors == 'float32':
        table['descriptor'] = features.descriptors
    elif descriptors == 'int8':
        largest = np.abs(features.descriptors).max(axis=1, keepdims=True, initial=1e-12)
        table['descriptor'] = np.rint(features.descriptors * (127.0 / largest))
    return table


def correspondence_table(frame: TrackedFrame) -> np.ndarray:
    """Build the points of a ``correspondences`` message.

    Returns:
        (M,) structured, :data:`CORRESPONDENCE_DTYPE`: where a keypoint is (x, y, z = 0) and
        where it was (x_prev, y_prev) in pixels, its row in this and in the earlier frame's
        ``keypoints``, and the stamp of that frame.
    """
    matches = frame.correspondences
    table = np.zeros(len(matches), CORRESPONDENCE_DTYPE)
    table['x'], table['y'] = frame.features.keypoints[matches.indices].T
    table['x_prev'], table['y_prev'] = matches.keypoints_prev.T
    table['similarity'] = matches.similarity
    table['set'] = frame.features.sets[matches.indices]
    table['track_id'] = frame.track_ids[matches.indices] & 0xFFFFFFFF
    table['inlier'] = matches.inlier
    table['index'] = matches.indices
    table['index_prev'] = matches.indices_prev
    table['stamp_prev_sec'], table['stamp_prev_nanosec'] = np.divmod(matches.stamps_prev, _SECOND)
    return table


def stereo_table(left: TrackedFrame, right: TrackedFrame, matches: StereoMatches) -> np.ndarray:
    """Build the points of a ``stereo`` message.

    Returns:
        (M,) structured, :data:`STEREO_DTYPE`: where a keypoint is in the left (x, y, z = 0) and
        in the right image (x_right, y_right) in pixels, the left one's track_id, the rows in the
        ``keypoints`` of both, disparity in pixels of the rectified images, depth in metres
        (both NaN without calibration), and the stamp of the right image.
    """
    table = np.zeros(len(matches), STEREO_DTYPE)
    table['x'], table['y'] = left.features.keypoints[matches.indices].T
    table['x_right'], table['y_right'] = right.features.keypoints[matches.indices_right].T
    table['similarity'] = matches.similarity
    table['set'] = left.features.sets[matches.indices]
    table['track_id'] = left.track_ids[matches.indices] & 0xFFFFFFFF
    table['inlier'] = matches.inlier
    table['index'] = matches.indices
    table['index_right'] = matches.indices_right
    table['disparity'] = matches.disparity
    table['depth'] = matches.depth
    table['stamp_right_sec'], table['stamp_right_nanosec'] = divmod(right.stamp_ns, _SECOND)
    return table


def features_of_table(table: np.ndarray, image_size: tuple[int, int] = (0, 0)) -> Features:
    """Read the features of a ``keypoints`` message.

    Args:
        table: (N,) structured, as :func:`keypoint_table` returns it.
        image_size: (width, height) of the image, which is not part of the message.

    Returns:
        The features; if the message has no descriptors, they are (N, 0).

    Raises:
        DataError: if a field is missing.
    """
    _require(table, [name for name, _ in _KEYPOINT_FIELDS], 'keypoints')
    n, names = len(table), table.dtype.names or ()
    descriptors = np.zeros((n, 0), np.float32)
    if 'descriptor' in names:
        kind = table.dtype['descriptor']
        descriptors = table['descriptor'].astype(np.float32).reshape(n, *(kind.shape or (1,)))
        if kind.base.kind == 'i':
            descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True).clip(1.0)
    return Features(
        keypoints=np.stack([table['x'], table['y']], axis=1).astype(np.float32),
        scores=table['score'].astype(np.float32),
        sets=table['set'].astype(np.int32),
        descriptors=descriptors,
        image_size=image_size,
        num_sets=int(table['set'].max(initial=0)) + 1,
    )


def correspondences_of_table(table: np.ndarray) -> Correspondences:
    """Read the correspondences of a ``correspondences`` message.

    Raises:
        DataError: if a field is missing.
    """
    _require(table, list(CORRESPONDENCE_DTYPE.names or ()), 'correspondences')
    seconds = table['stamp_prev_sec'].astype(np.int64)
    return Correspondences(
        indices=table['index'].astype(np.int64),
        indices_prev=table['index_prev'].astype(np.int64),
        keypoints_prev=np.stack([table['x_prev'], table['y_prev']], axis=1).astype(np.float32),
        stamps_prev=seconds * _SECOND + table['stamp_prev_nanosec'],
        similarity=table['similarity'].astype(np.float32),
        inlier=table['inlier'] != 0,
    )


def tracked_of_tables(
    keypoints: np.ndarray,
    correspondences: np.ndarray,
    stamp_ns: int,
    image_size: tuple[int, int] = (0, 0),
) -> TrackedFrame:
    """Read the tracked frame of two messages with the same stamp.

    Raises:
        DataError: if a field is missing, or the correspondences refer to rows that do not exist.
    """
    features = features_of_table(keypoints, image_size)
    matches = correspondences_of_table(correspondences)
    if len(matches) and not 0 <= matches.indices.min() <= matches.indices.max() < len(features):
        raise DataError(
            f'correspondences: expected rows of the {len(features)} keypoints, '
            f'got {matches.indices.min()} to {matches.indices.max()}'
        )
    return TrackedFrame(
        features,
        keypoints['track_id'].astype(np.int64),
        keypoints['age'].astype(np.int32),
        matches,
        stamp_ns,
    )


def _require(table: np.ndarray, names: list[str], what: str) -> None:
    missing = [name for name in names if name not in (table.dtype.names or ())]
    if missing:
        raise DataError(
            f'{what} point cloud: expected the fields {", ".join(names)}; '
            f'missing: {", ".join(missing)}'
        )
