"""Optical-flow tracking (Kanade-Lucas-Tomasi) by OpenCV, the front end of most VIO systems."""

from __future__ import annotations

import cv2
import numpy as np

from mdnet_ros.features.extractor import to_gray
from mdnet_ros.features.geometry import inlier_mask
from mdnet_ros.features.types import Correspondences, Features, TrackedFrame


class KltTracker:
    """Tracks corners from frame to frame, as the front ends of VINS-Mono and OpenVINS do.

    Corners (Shi and Tomasi, CVPR 1994) are tracked by pyramidal optical flow (Bouguet 2000). A
    track ends when tracking it backwards misses its start; new corners fill the free places.

    Args:
        max_keypoints: the most tracks at a time.
        min_distance: least distance between corners, pixels.
        max_backward_error: how far backward tracking may miss the start, pixels.
        max_error: distance to the fundamental matrix up to which a match is an inlier, pixels.
    """

    name = 'klt'

    def __init__(
        self,
        max_keypoints: int = 1024,
        min_distance: int = 10,
        max_backward_error: float = 0.5,
        max_error: float = 2.0,
    ) -> None:
        self.max_keypoints = max_keypoints
        self.min_distance = min_distance
        self.max_backward_error = max_backward_error
        self.max_error = max_error
        self._next_id = 0
        self._image: np.ndarray | None = None
        self._previous: TrackedFrame | None = None

    def update(self, image: np.ndarray, stamp_ns: int) -> TrackedFrame:
        """Track the next frame.

        Args:
            image: uint8, (H, W) gray or (H, W, 3) BGR.
            stamp_ns: stamp of the image, nanoseconds.

        Returns:
            The tracks in the frame, the oldest first, without descriptors.

        Raises:
            ImageError: the image cannot be used.
        """
        gray = to_gray(image)
        if self._image is not None and self._image.shape != gray.shape:
            self._image = self._previous = None
        points, rows = self._follow(gray)
        previous = self._previous
        count = len(points)
        corners = self._corners(gray, points)
        ids = np.arange(self._next_id, self._next_id + len(corners))
        self._next_id += len(corners)
        ages = np.zeros(count + len(corners), np.int32)
        if previous is not None:
            ages[:count] = previous.ages[rows] + 1
            ids = np.concatenate([previous.track_ids[rows], ids])
        keypoints = np.concatenate([points, corners]).astype(np.float32)
        origin = previous.features.keypoints[rows] if previous is not None else points
        frame = TrackedFrame(
            features=Features(
                keypoints,
                np.ones(len(keypoints), np.float32),
                np.zeros(len(keypoints), np.int32),
                np.zeros((len(keypoints), 0), np.float32),
                (gray.shape[1], gray.shape[0]),
            ),
            track_ids=ids.astype(np.int64),
            ages=ages,
            correspondences=Correspondences(
                np.arange(count),
                rows,
                origin,
                np.full(count, previous.stamp_ns if previous is not None else 0, np.int64),
                np.ones(count, np.float32),
                inlier_mask(origin, points, 'fundamental', self.max_error),
            ),
            stamp_ns=int(stamp_ns),
        )
        self._image, self._previous = gray, frame
        return frame

    def _follow(self, gray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (M, 2) positions of the surviving tracks and their (M,) rows in the last frame."""
        nothing = np.zeros((0, 2), np.float32), np.zeros(0, np.int64)
        if self._previous is None or self._image is None or not len(self._previous.features):
            return nothing
        start = self._previous.features.keypoints.reshape(-1, 1, 2)
        end, found, _ = cv2.calcOpticalFlowPyrLK(self._image, gray, start, None)  # type: ignore[call-overload]
        back, found_back, _ = cv2.calcOpticalFlowPyrLK(gray, self._image, end, None)  # type: ignore[call-overload]
        miss = np.linalg.norm((back - start)[:, 0], axis=1)
        height, width = gray.shape
        x, y = end[:, 0].T
        good = (found.ravel() == 1) & (found_back.ravel() == 1) & (miss <= self.max_backward_error)
        good &= (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        rows = np.nonzero(good)[0]
        return end[rows, 0], rows

    def _corners(self, gray: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Find (M, 2) new corners that are not close to the tracked points."""
        room = self.max_keypoints - len(points)
        if room <= 0:
            return np.zeros((0, 2), np.float32)
        mask = np.full(gray.shape, 255, np.uint8)
        for x, y in points:
            cv2.circle(mask, (round(float(x)), round(float(y))), self.min_distance, 0, -1)
        corners = cv2.goodFeaturesToTrack(gray, room, 0.01, self.min_distance, mask=mask)
        if corners is None:
            return np.zeros((0, 2), np.float32)
        return corners.reshape(-1, 2)
