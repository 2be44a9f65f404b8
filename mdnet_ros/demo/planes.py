"""Textured rectangles, and which part of an image each of them covers.

A rectangle is drawn by the homography from pixels to its surface. The third coordinate of that
homography's result is the inverse depth, so images and depth come from one formula and agree
exactly.
"""

from __future__ import annotations

import cv2
import numpy as np

from mdnet_ros.data.camera import CameraModel
from mdnet_ros.data.poses import Pose

#: Surfaces nearer to the camera than this are not drawn, metres.
_NEAR = 0.05


class Plane:
    """A textured rectangle: origin + a · u + b · v for 0 ≤ a ≤ width, 0 ≤ b ≤ height (metres).

    Args:
        texture: (H, W) uint8 gray.
        origin: (3,) the corner of the texture's first pixel, in the map.
        u: (3,) unit vector along the texture's rows.
        v: (3,) unit vector along the texture's columns.
        width: length of the side along ``u``, metres; the other follows from the texture.

    Attributes:
        atlas: the texture and its halvings side by side.
        starts: (L,) float32, the column of the atlas where each halving begins.
        scales: (L,) float32, texels per metre of each halving.
        texels_per_metre: resolution of the texture itself.
        size: lengths of the sides along ``u`` and ``v``, metres.
    """

    def __init__(
        self, texture: np.ndarray, origin: np.ndarray, u: np.ndarray, v: np.ndarray, width: float
    ) -> None:
        self.origin, self.u, self.v = origin, u, v
        self.texels_per_metre = texture.shape[1] / width
        self.size = (width, texture.shape[0] / self.texels_per_metre)
        self.atlas, self.starts = _mip_atlas(texture)
        halvings = np.arange(len(self.starts))
        self.scales = (self.texels_per_metre * 0.5**halvings).astype(np.float32)

    def corners(self) -> np.ndarray:
        """Return the (4, 3) corners in the map."""
        a, b = self.size
        u, v = self.u * a, self.v * b
        return self.origin + np.stack([0 * u, u, u + v, v])

    def homography(self, camera: CameraModel, map_to_camera: Pose) -> np.ndarray:
        """Return the (3, 3) homography from a pixel (x, y, 1) to (a, b, 1) / depth."""
        columns = map_to_camera.rotation @ np.stack([self.u, self.v, self.origin], axis=1)
        columns[:, 2] += map_to_camera.translation
        return np.linalg.inv(camera.k @ columns)


def _mip_atlas(texture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all halvings of a texture side by side, and the column where each begins.

    A margin of one texel keeps interpolation inside each level.
    """
    levels = [texture]
    while min(levels[-1].shape) >= 16 and len(levels) < 7:
        height, width = levels[-1].shape
        half = cv2.resize(levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        levels.append(half)
    height = texture.shape[0] + 2
    padded = [
        cv2.copyMakeBorder(
            level, 1, height - level.shape[0] - 1, 1, 1, cv2.BORDER_REPLICATE
        )
        for level in levels
    ]
    starts = np.cumsum([0] + [p.shape[1] for p in padded[:-1]]) + 1
    return np.concatenate(padded, axis=1), starts.astype(np.float32)


def bounding_box(
    plane: Plane, camera: CameraModel, map_to_camera: Pose
) -> tuple[int, int, int, int] | None:
    """Return the part of the image that holds all of a plane that lies before the camera.

    Returns:
        (left, top, right, bottom) in pixels, right and bottom excluded; None if it is not seen.
    """
    points = plane.corners() @ map_to_camera.rotation.T + map_to_camera.translation
    clipped = []
    for start, end in zip(points, np.roll(points, -1, axis=0), strict=True):
        if start[2] >= _NEAR:
            clipped.append(start)
        if (start[2] >= _NEAR) != (end[2] >= _NEAR):
            share = (_NEAR - start[2]) / (end[2] - start[2])
            clipped.append(start + share * (end - start))
    if not clipped:
        return None
    pixels = np.array(clipped) @ camera.k.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    left, top = np.floor(pixels.min(axis=0)).astype(int) - 1
    right, bottom = np.ceil(pixels.max(axis=0)).astype(int) + 2
    left, top = max(left, 0), max(top, 0)
    right, bottom = min(right, camera.width), min(bottom, camera.height)
    return (left, top, right, bottom) if left < right and top < bottom else None
