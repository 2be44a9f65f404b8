"""Draws tracks on an image: keypoints as dots, earlier positions as trails."""

from __future__ import annotations

from typing import Literal, get_args

import cv2
import numpy as np

from mdnet_ros.errors import ImageError
from mdnet_ros.features.types import TrackedFrame

ColourBy = Literal['age', 'set', 'inlier']
COLOUR_BY: tuple[str, ...] = get_args(ColourBy)

#: Ages are coloured on a logarithmic scale up to this many frames.
_OLDEST = 64
_LEVELS = 16
#: OpenCV draws at positions in units of 1/2**_SHIFT pixels.
_SHIFT = 4
#: Young tracks blue, old ones red.
_AGE_COLOURS = cv2.applyColorMap(
    np.linspace(40, 235, _LEVELS).astype(np.uint8)[:, None], cv2.COLORMAP_TURBO
)[:, 0]
#: One colour for each of up to eight sets; the colour-blind can distinguish them (Okabe and Ito).
_SET_COLOURS = np.array(
    [
        (233, 180, 86), (0, 159, 230), (115, 158, 0), (167, 121, 204),
        (66, 228, 240), (178, 114, 0), (0, 94, 213), (255, 255, 255),
    ],
    np.uint8,
)
#: Colours of new keypoints, inliers and outliers.
_INLIER_COLOURS = np.array([(200, 200, 200), (80, 220, 60), (60, 60, 240)], np.uint8)


def keypoint_colours(frame: TrackedFrame, colour_by: ColourBy) -> np.ndarray:
    """Return the colour of each keypoint.

    Args:
        frame: tracked frame with N keypoints.
        colour_by: ``age`` (blue: new, red: old), ``set`` (one colour each), or ``inlier``
            (gray: new, green: inlier, red: outlier).

    Returns:
        (N, 3) uint8, BGR.

    Raises:
        ValueError: if ``colour_by`` is unknown.
    """
    if colour_by == 'age':
        level = np.log1p(np.minimum(frame.ages, _OLDEST)) / np.log1p(_OLDEST)
        return _AGE_COLOURS[np.rint(level * (_LEVELS - 1)).astype(int)]
    if colour_by == 'set':
        return _SET_COLOURS[frame.features.sets % len(_SET_COLOURS)]
    if colour_by == 'inlier':
        state = np.zeros(len(frame.features), int)
        matches = frame.correspondences
        state[matches.indices] = np.where(matches.inlier, 1, 2)
        return _INLIER_COLOURS[state]
    raise ValueError(f"colour_by '{colour_by}': expected one of {', '.join(COLOUR_BY)}")


def previous_positions(frame: TrackedFrame) -> np.ndarray:
    """Return trails of one step, taken from the frame's own correspondences.

    Returns:
        (N, 1, 2) float32 pixels, NaN where the keypoint is new.
    """
    trails = np.full((len(frame.features), 1, 2), np.nan, np.float32)
    matches = frame.correspondences
    trails[matches.indices, 0] = matches.keypoints_prev
    return trails


def draw_tracks(
    image: np.ndarray,
    frame: TrackedFrame,
    trails: np.ndarray | None = None,
    colour_by: ColourBy = 'age',
) -> np.ndarray:
    """Draw the tracks of a frame on a copy of its image.

    Args:
        image: (H, W, 3) BGR or (H, W) gray, uint8.
        frame: the tracks to draw; N keypoints in pixels of the image.
        trails: (N, L, 2) earlier positions in pixels, latest first, NaN where there is none;
            if None, one step back from the frame's correspondences.
        colour_by: see :func:`keypoint_colours`.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        ImageError: if the image is not uint8 of one of these shapes.
        ValueError: if ``colour_by`` is unknown.
    """
    if image.dtype != np.uint8 or not (image.ndim == 2 or image.shape[2:] == (3,)):
        raise ImageError(
            f'image to draw on: expected (H, W) or (H, W, 3) uint8, '
            f'got {image.shape} {image.dtype}'
        )
    if image.ndim == 2:
        canvas = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    else:
        canvas = np.ascontiguousarray(image).copy()
    colours = keypoint_colours(frame, colour_by)
    if trails is None:
        trails = previous_positions(frame)
    points = frame.features.keypoints
    size = max(canvas.shape[:2])
    palette, colour_index = np.unique(colours, axis=0, return_inverse=True)
    for entry, colour in enumerate(palette.tolist()):
        rows = np.nonzero(colour_index.reshape(-1) == entry)[0]
        segments = _segments(points[rows], trails[rows])
        thickness = max(1, round(size / 900))
        cv2.polylines(canvas, list(segments), False, colour, thickness, cv2.LINE_AA, _SHIFT)
    radius = round(max(1.2, size / 500) * 2**_SHIFT)
    for (x, y), colour in zip(
        _fixed_point(points).tolist(), colours.tolist(), strict=True
    ):
        cv2.circle(canvas, (x, y), radius, colour, -1, cv2.LINE_AA, _SHIFT)
    return canvas


class TrackDrawer:
    """Draws a sequence of frames with trails through the earlier positions of each track.

    Args:
        length: how many frames a trail reaches back; 0 draws only dots.
        colour_by: see :func:`keypoint_colours`.
    """

    def __init__(self, length: int = 12, colour_by: ColourBy = 'age') -> None:
        if length < 0:
            raise ValueError(f'length: expected at least 0, got {length}')
        self.colour_by = colour_by
        self.length = length
        self.reset()

    def reset(self) -> None:
        """Forget all trails."""
        self._ids = np.zeros(0, np.int64)
        self._history = np.zeros((0, self.length + 1, 2), np.float32)

    def update(self, frame: TrackedFrame) -> np.ndarray:
        """Add a frame to the trails; to be called for frames that are not drawn, too.

        Returns:
            (N, length, 2) float32, earlier positions of the frame's keypoints, latest first,
            NaN where there is none.
        """
        if self._history.shape[1] != self.length + 1:
            self.reset()  # the length was changed
        ids = np.union1d(self._ids, frame.track_ids)
        history = np.full((len(ids), self.length + 1, 2), np.nan, np.float32)
        history[np.searchsorted(ids, self._ids), 1:] = self._history[:, :-1]
        rows = np.searchsorted(ids, frame.track_ids)
        history[rows, 0] = frame.features.keypoints
        trails = history[rows, 1:]
        # An outlier must not become part of the trail; it is drawn only if outliers are coloured.
        matches = frame.correspondences
        outliers = matches.indices[~matches.inlier]
        history[rows[outliers], 1:] = np.nan
        trails[outliers, 1 if self.colour_by == 'inlier' else 0 :] = np.nan
        alive = ~np.isnan(history[:, :, 0]).all(axis=1)
        self._ids, self._history = ids[alive], history[alive]
        return trails

    def __call__(self, image: np.ndarray, frame: TrackedFrame) -> np.ndarray:
        """Add a frame to the trails and draw it, see :func:`draw_tracks`."""
        return draw_tracks(image, frame, self.update(frame), self.colour_by)


def _fixed_point(points: np.ndarray) -> np.ndarray:
    return np.rint(points * 2**_SHIFT).astype(np.int32)


def _segments(points: np.ndarray, trails: np.ndarray) -> np.ndarray:
    """Return (S, 2, 2) int32 line segments along trails; missing positions are bridged."""
    path = np.concatenate([points[:, None], trails], axis=1)
    for step in range(path.shape[1] - 2, -1, -1):
        missing = np.isnan(path[:, step])
        path[:, step][missing] = path[:, step + 1][missing]
    segments = np.stack([path[:, :-1], path[:, 1:]], axis=2).reshape(-1, 2, 2)
    drawn = ~np.isnan(segments).any(axis=(1, 2)) & (segments[:, 0] != segments[:, 1]).any(axis=1)
    return _fixed_point(segments[drawn])
