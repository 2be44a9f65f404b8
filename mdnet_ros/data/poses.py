"""Camera poses over time."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

#: Poses are interpolated over at most this time, nanoseconds.
MAX_GAP_NS = 500_000_000


@dataclass(frozen=True)
class Pose:
    """Maps points of the camera's frame to the map: X_map = rotation · X_camera + translation.

    Attributes:
        rotation: (3, 3) float64.
        translation: (3,) float64, metres.
    """

    rotation: np.ndarray
    translation: np.ndarray

    def inverse(self) -> Pose:
        """Map to camera."""
        return Pose(self.rotation.T, -self.rotation.T @ self.translation)

    def __matmul__(self, other: Pose) -> Pose:
        """First ``other``, then this."""
        return Pose(
            self.rotation @ other.rotation, self.rotation @ other.translation + self.translation
        )


def rotation_of_quaternion(x: float, y: float, z: float, w: float) -> np.ndarray:
    """(3, 3) rotation of a quaternion of any length but 0 (then: no rotation)."""
    q = np.array([w, x, y, z], np.float64)
    norm = np.linalg.norm(q)
    w, x, y, z = q / norm if norm > 0 else (1.0, 0.0, 0.0, 0.0)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion_of_rotation(rotation: np.ndarray) -> tuple[float, float, float, float]:
    """(x, y, z, w) of a (3, 3) rotation, w ≥ 0."""
    vector = cv2.Rodrigues(np.asarray(rotation, np.float64))[0].ravel()
    angle = float(np.linalg.norm(vector))
    axis = vector / angle if angle > 0 else vector
    x, y, z = (float(v) for v in axis * np.sin(angle / 2))
    return x, y, z, float(np.cos(angle / 2))


@dataclass(frozen=True)
class PoseTrack:
    """Poses of one camera, by rising stamp.

    Attributes:
        stamps_ns: (N,) int64.
        rotations: (N, 3, 3) float64, camera to map.
        translations: (N, 3) float64, camera in the map, metres.
        frame_id: the map's name.
    """

    stamps_ns: np.ndarray
    rotations: np.ndarray
    translations: np.ndarray
    frame_id: str = 'map'

    def __len__(self) -> int:
        return len(self.stamps_ns)

    def __getitem__(self, index: int) -> Pose:
        return Pose(self.rotations[index], self.translations[index])

    def seen_from(self, to_body: Pose) -> PoseTrack:
        """The poses of a camera, where these are of the body that carries it.

        Args:
            to_body: camera to body.
        """
        return PoseTrack(
            self.stamps_ns,
            self.rotations @ to_body.rotation,
            self.translations + self.rotations @ to_body.translation,
            self.frame_id,
        )

    def at(self, stamp_ns: int) -> Pose | None:
        """The pose at a time, interpolated between its neighbours.

        Returns:
            None outside the track or in a gap longer than :data:`MAX_GAP_NS`.
        """
        after = int(np.searchsorted(self.stamps_ns, stamp_ns))
        if after < len(self) and self.stamps_ns[after] == stamp_ns:
            return self[after]
        if after == 0 or after == len(self):
            return None
        before = after - 1
        span = int(self.stamps_ns[after] - self.stamps_ns[before])
        if span > MAX_GAP_NS:
            return None
        share = (stamp_ns - int(self.stamps_ns[before])) / span
        turn = cv2.Rodrigues(self.rotations[before].T @ self.rotations[after])[0]
        rotation = self.rotations[before] @ cv2.Rodrigues(turn * share)[0]
        translation = (
            self.translations[before] * (1 - share) + self.translations[after] * share
        )
        return Pose(rotation, translation)
