"""Poses of a camera or another body over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

#: Poses are interpolated over at most this time, nanoseconds.
MAX_GAP_NS = 500_000_000
#: Poses of one stamp differ if a number differs by more than this, metres for positions.
_SAME = 1e-4


@dataclass(frozen=True)
class Pose:
    """A rigid motion; as a pose it is body to map: X_map = rotation · X_body + translation.

    The body is the camera unless something else is said. A pose in the other direction has it in
    its name, for example ``world_to_camera``.

    Attributes:
        rotation: (3, 3) float64.
        translation: (3,) float64, metres.
    """

    rotation: np.ndarray
    translation: np.ndarray

    def inverse(self) -> Pose:
        """Return the motion back."""
        return Pose(self.rotation.T, -self.rotation.T @ self.translation)

    def __matmul__(self, other: Pose) -> Pose:
        """Return the motion that applies ``other`` first, then this."""
        return Pose(
            self.rotation @ other.rotation, self.rotation @ other.translation + self.translation
        )


def rotation_of_quaternion(x: float, y: float, z: float, w: float) -> np.ndarray:
    """Return the (3, 3) rotation of a quaternion of any length; the identity for length 0."""
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
    """Return the quaternion (x, y, z, w), w ≥ 0, of a (3, 3) rotation."""
    vector = cv2.Rodrigues(np.asarray(rotation, np.float64))[0].ravel()
    angle = float(np.linalg.norm(vector))
    axis = vector / angle if angle > 0 else vector
    x, y, z = (float(v) for v in axis * np.sin(angle / 2))
    return x, y, z, float(np.cos(angle / 2))


def pose_of_quaternion(
    translation: Sequence[float], quaternion: Sequence[float]
) -> Pose | None:
    """Make a pose of a translation and a quaternion (x, y, z, w) of any length.

    Returns:
        None if a number is not finite or the quaternion is zero, which is how trackers and
        simulators write "lost".
    """
    numbers = np.array([*translation, *quaternion], np.float64)
    with np.errstate(over='ignore'):
        length = np.linalg.norm(numbers[3:])
    if not np.isfinite([*numbers, length]).all() or not length > 1e-6:
        return None
    return Pose(rotation_of_quaternion(*numbers[3:]), numbers[:3])


@dataclass(frozen=True)
class Trajectory:
    """Poses of one body, sorted by stamp.

    Attributes:
        stamps_ns: (N,) int64.
        rotations: (N, 3, 3) float64, body to map.
        translations: (N, 3) float64, position of the body in the map, metres.
        frame_id: name of the map's frame.
        body_frame: name of the body's frame; empty: not known.
        skipped: how many poses were left out because they are not finite.
        conflicting: how many poses were left out because an earlier one has the same stamp, and
            another value.
    """

    stamps_ns: np.ndarray
    rotations: np.ndarray
    translations: np.ndarray
    frame_id: str = 'map'
    body_frame: str = ''
    skipped: int = 0
    conflicting: int = 0

    @classmethod
    def of_poses(
        cls,
        stamps_ns: Sequence[int] | np.ndarray,
        poses: Sequence[Pose | None],
        frame_id: str = 'map',
        body_frame: str = '',
    ) -> Trajectory:
        """Sort poses by stamp; of several with one stamp the first is kept.

        Args:
            stamps_ns: (N,) in any order.
            poses: N poses; None where there is no finite one.
            frame_id: name of the map's frame.
            body_frame: name of the body's frame; empty: not known.
        """
        kept = [i for i, pose in enumerate(poses) if pose is not None]
        finite = [pose for pose in poses if pose is not None]
        rotations = np.array([pose.rotation for pose in finite], np.float64).reshape(-1, 3, 3)
        translations = np.array([pose.translation for pose in finite], np.float64).reshape(-1, 3)
        stamps = np.asarray(stamps_ns, np.int64)[kept]
        unique, first, group = np.unique(stamps, return_index=True, return_inverse=True)
        origin = first[group]
        same = np.isclose(rotations, rotations[origin], atol=_SAME).all((1, 2))
        same &= np.isclose(translations, translations[origin], atol=_SAME).all(1)
        return cls(
            unique, rotations[first], translations[first], frame_id, body_frame,
            skipped=len(poses) - len(finite), conflicting=int((~same).sum()),
        )

    @property
    def left_out(self) -> str:
        """A line on the poses that were left out, empty if there are none."""
        reasons = (
            (self.skipped, 'are not finite'),
            (self.conflicting, 'have the stamp of an earlier one and another value'),
        )
        return '; '.join(
            f'{count} poses {reason} and are left out' for count, reason in reasons if count
        )

    def __len__(self) -> int:
        return len(self.stamps_ns)

    def __getitem__(self, index: int) -> Pose:
        return Pose(self.rotations[index], self.translations[index])

    def seen_from(self, to_body: Pose) -> Trajectory:
        """Return the poses of a camera from those of the body that carries it.

        Args:
            to_body: transform from the camera's frame to the body's.
        """
        return replace(
            self,
            rotations=self.rotations @ to_body.rotation,
            translations=self.translations + self.rotations @ to_body.translation,
            body_frame='',
        )

    def overlap_problem(self, stamps_ns: Sequence[int] | np.ndarray) -> str:
        """Tell whether the poses cover the times of images.

        Args:
            stamps_ns: of the images.

        Returns:
            Empty if nearly all images (99 %) have a pose, else a line with both time ranges.
        """
        stamps = np.asarray(stamps_ns, np.int64)
        if not len(stamps) or not len(self):
            return '' if len(self) else 'there are no poses'
        known = sum(self.interpolated_at(int(stamp)) is not None for stamp in stamps)
        if known >= 0.99 * len(stamps):
            return ''
        share = f'only {known} of {len(stamps)} images have' if known else 'no image has'
        inside = (stamps >= self.stamps_ns[0]) & (stamps <= self.stamps_ns[-1])
        far = '' if known >= inside.sum() else (
            f'; poses more than {MAX_GAP_NS / 1e9:g} s apart are not interpolated'
        )
        return (
            f'{share} a true pose: the poses are from {_range(self.stamps_ns)} s, '
            f'the images from {_range(stamps)} s{far}'
        )

    def interpolated_at(self, stamp_ns: int) -> Pose | None:
        """Return the pose at a time, interpolated between its neighbours.

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


def _range(stamps_ns: np.ndarray) -> str:
    """Write the first and the last of some stamps in seconds."""
    first, last = (int(stamp) for stamp in (stamps_ns.min(), stamps_ns.max()))
    return f'{first / 1e9:.3f} to {last / 1e9:.3f}'
