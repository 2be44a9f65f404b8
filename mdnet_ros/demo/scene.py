"""A camera flying through a hall of photographs, with exact poses and depth.

Everything is plane: five sides of a hall and pictures standing in it. A plane is rendered by the
homography from pixels to its surface, whose third coordinate is the inverse depth, so images and
depth come from the same formula and are exact. A frame is the mean of several instants of its
exposure, spread evenly around the stamp (motion blur), each shifted by a part of a pixel
(anti-aliasing), the shifts adding up to zero.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from mdnet_ros.data.camera import CameraModel
from mdnet_ros.data.poses import Pose, PoseTrack
from mdnet_ros.demo.textures import collage, load_photographs
from mdnet_ros.errors import DataError

#: Surfaces nearer to the camera than this are not drawn, metres.
_NEAR = 0.05
#: Shift of each instant in pixels; the one in the middle has none and gives the depth.
_SHIFTS = ((-0.3, 0.1), (0.1, 0.3), (0.0, 0.0), (-0.1, -0.3), (0.3, -0.1))


@dataclass(frozen=True)
class SceneSettings:
    """What the camera is like and how long it flies.

    Attributes:
        duration_s: length of the sequence, seconds.
        rate_hz: frames a second.
        width: of an image, pixels.
        height: of an image, pixels.
        seed: everything random follows from it.
        exposure_s: how long the shutter is open (motion blur).
        noise: standard deviation of the read-out noise, gray levels; shot noise comes on top.
        start_ns: stamp of the first frame, nanoseconds.
    """

    duration_s: float = 10.0
    rate_hz: float = 30.0
    width: int = 640
    height: int = 480
    seed: int = 0
    exposure_s: float = 0.01
    noise: float = 1.5
    start_ns: int = 1_700_000_000_000_000_000

    def __post_init__(self) -> None:
        if self.duration_s <= 0 or self.rate_hz <= 0:
            raise DataError(
                f'demo scene: expected a duration and rate above 0, '
                f'got {self.duration_s:g} s and {self.rate_hz:g} Hz'
            )
        if self.width < 16 or self.height < 16:
            raise DataError(
                f'demo scene: expected at least 16x16 px, got {self.width}x{self.height}'
            )

    @property
    def frame_count(self) -> int:
        """How many frames there are."""
        return max(1, round(self.duration_s * self.rate_hz))


@dataclass(frozen=True)
class SceneFrame:
    """One frame of the sequence.

    Attributes:
        stamp_ns: the middle of the exposure, nanoseconds.
        image: (H, W) uint8 gray.
        depth: (H, W) float32, metres along the optical axis at ``stamp_ns``.
        pose: of the camera at ``stamp_ns``.
    """

    stamp_ns: int
    image: np.ndarray
    depth: np.ndarray
    pose: Pose


class _Plane:
    """A textured rectangle: origin + a · u + b · v for 0 ≤ a ≤ width, 0 ≤ b ≤ height (metres)."""

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
        """(4, 3) in the map."""
        a, b = self.size
        u, v = self.u * a, self.v * b
        return self.origin + np.stack([0 * u, u, u + v, v])

    def homography(self, camera: CameraModel, map_to_camera: Pose) -> np.ndarray:
        """(3, 3): pixel (x, y, 1) to (a, b, 1) / depth."""
        columns = map_to_camera.rotation @ np.stack([self.u, self.v, self.origin], axis=1)
        columns[:, 2] += map_to_camera.translation
        return np.linalg.inv(camera.k @ columns)


def _mip_atlas(texture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All halvings of a texture side by side, and the column where each starts.

    One texel of margin keeps interpolation inside each level.
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


def _box(
    plane: _Plane, camera: CameraModel, map_to_camera: Pose
) -> tuple[int, int, int, int] | None:
    """(left, top, right, bottom) pixels that hold all of the plane before the camera."""
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


class Scene:
    """The hall, the camera and its flight.

    Args:
        settings: of the sequence.

    Raises:
        MissingDependencyError: if scikit-image is not installed.
    """

    def __init__(self, settings: SceneSettings | None = None) -> None:
        self.settings = settings = settings or SceneSettings()
        focal = 0.8 * settings.width
        k = np.array(
            [
                [focal, 0.0, (settings.width - 1) / 2],
                [0.0, focal, (settings.height - 1) / 2],
                [0.0, 0.0, 1.0],
            ]
        )
        self.camera = CameraModel(settings.width, settings.height, k, np.zeros(5))
        self._planes = _hall(np.random.default_rng(settings.seed))
        self._grid = (
            np.arange(settings.width, dtype=np.float32)[None, :],
            np.arange(settings.height, dtype=np.float32)[:, None],
        )

    def stamp(self, index: int) -> int:
        """Stamp of a frame, nanoseconds."""
        return self.settings.start_ns + round(index * 1e9 / self.settings.rate_hz)

    def poses(self) -> PoseTrack:
        """The true pose of every frame."""
        stamps = [self.stamp(i) for i in range(self.settings.frame_count)]
        poses = [camera_pose((s - self.settings.start_ns) * 1e-9) for s in stamps]
        return PoseTrack(
            np.array(stamps, np.int64),
            np.stack([p.rotation for p in poses]),
            np.stack([p.translation for p in poses]),
        )

    def __iter__(self) -> Iterator[SceneFrame]:
        """The frames in order, rendered ahead on all processors."""
        workers = os.cpu_count() or 1
        with ThreadPoolExecutor(workers) as pool:
            waiting: deque[Future[SceneFrame]] = deque()
            for index in range(self.settings.frame_count):
                waiting.append(pool.submit(self.frame, index))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def frame(self, index: int) -> SceneFrame:
        """Render one frame; the same every time, whatever was rendered before."""
        settings = self.settings
        stamp = self.stamp(index)
        time = (stamp - settings.start_ns) * 1e-9
        light = np.zeros((settings.height, settings.width), np.float32)
        inverse_depth = np.zeros_like(light)
        for i, shift in enumerate(_SHIFTS):
            part = (i - len(_SHIFTS) // 2) / len(_SHIFTS)
            # Mip levels are blended by taking another threshold in each instant.
            picture, nearness = self._instant(
                camera_pose(time + part * settings.exposure_s), shift, (i + 0.5) / len(_SHIFTS)
            )
            light += picture
            if shift == (0.0, 0.0):
                inverse_depth = nearness
        light *= exposure(time) / len(_SHIFTS)
        rng = np.random.default_rng((settings.seed, index))
        deviation = np.sqrt(settings.noise**2 + 0.02 * settings.noise * light)
        light += deviation * rng.standard_normal(light.shape, np.float32)
        image = np.clip(np.rint(light), 0, 255).astype(np.uint8)
        return SceneFrame(stamp, image, 1.0 / inverse_depth, camera_pose(time))

    def _instant(
        self, pose: Pose, shift: tuple[float, float], threshold: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """One instant: (H, W) uint8 picture and (H, W) float32 inverse depth, 1/m."""
        settings = self.settings
        picture = np.zeros((settings.height, settings.width), np.uint8)
        nearness = np.zeros((settings.height, settings.width), np.float32)
        map_to_camera = pose.inverse()
        for plane in self._planes:
            box = _box(plane, self.camera, map_to_camera)
            if box is None:
                continue
            left, top, right, bottom = box
            h = plane.homography(self.camera, map_to_camera)
            area = abs(float(np.linalg.det(h))) * plane.texels_per_metre**2
            h = h.astype(np.float32)
            x = self._grid[0][:, left:right] + np.float32(shift[0])
            y = self._grid[1][top:bottom] + np.float32(shift[1])
            w = (h[2, 0] * x) + (h[2, 1] * y + h[2, 2])
            seen = w > nearness[top:bottom, left:right]
            safe = np.where(seen, w, np.float32(1.0))
            a = ((h[0, 0] * x) + (h[0, 1] * y + h[0, 2])) / safe
            b = ((h[1, 0] * x) + (h[1, 1] * y + h[1, 2])) / safe
            seen &= (a >= 0) & (a <= plane.size[0]) & (b >= 0) & (b <= plane.size[1])
            if not seen.any():
                continue
            # Texels in a pixel: the determinant of the homography over depth to the third.
            level = np.floor(0.5 * np.log2(area / safe**3) + np.float32(threshold))
            level = np.clip(level, 0, len(plane.starts) - 1).astype(np.int32)
            texels = plane.scales[level]
            values = cv2.remap(
                plane.atlas,
                a * texels + (plane.starts[level] - np.float32(0.5)),
                b * texels + np.float32(0.5),
                cv2.INTER_LINEAR,
            )
            np.copyto(picture[top:bottom, left:right], values, where=seen)
            np.copyto(nearness[top:bottom, left:right], w, where=seen)
        return picture, nearness


def camera_pose(time: float) -> Pose:
    """Where the camera is: forward through the hall, swaying, turning and rolling.

    Args:
        time: seconds since the start; the hall ends after about 20.
    """

    def wave(amplitude: float, period: float, phase: float = 0.0) -> float:
        return float(amplitude * np.sin(2 * np.pi * time / period + phase))

    translation = np.array(
        [wave(1.0, 6.5), wave(0.45, 4.3), 0.9 * time + wave(0.5, 5.0)]
    )
    yaw = wave(0.28, 7.0) + wave(0.012, 0.71)
    pitch = wave(0.12, 5.1, 0.5) + wave(0.010, 0.53)
    roll = wave(0.5, 10.0) + wave(0.3, 2.7)
    rotation = np.eye(3)
    for vector in ((0.0, yaw, 0.0), (pitch, 0.0, 0.0), (0.0, 0.0, roll)):
        rotation = rotation @ cv2.Rodrigues(np.array(vector))[0]
    return Pose(rotation, translation)


def exposure(time: float) -> float:
    """The camera's gain: drifting, and at 6 s a sudden step that it recovers from."""
    drift = 1.0 + 0.25 * np.sin(2 * np.pi * time / 3.7)
    step = 0.45 * np.exp(-(time - 6.0) / 0.8) if time >= 6.0 else 0.0
    return float(drift * (1.0 - step))


def _hall(rng: np.random.Generator) -> list[_Plane]:
    """Five sides and the pictures; x right, y down, z into the hall, metres."""
    photographs = load_photographs()
    rich = [p for name, p in photographs.items() if name not in ('moon', 'text')]
    left, right, ceiling, floor, back, front = -5.0, 5.0, -3.0, 2.6, 30.0, -6.0
    x, y, z = np.eye(3)
    length, width, height = back - front, right - left, floor - ceiling

    def side(origin: tuple[float, float, float], u: np.ndarray, v: np.ndarray, across: float,
             down: float) -> _Plane:  # fmt: skip
        texels = 130
        texture = collage(rich, (round(across * texels), round(down * texels)), rng)
        return _Plane(texture, np.array(origin), u, v, across)

    planes = [
        side((left, ceiling, front), z, y, length, height),
        side((right, ceiling, front), z, y, length, height),
        side((left, ceiling, front), z, x, length, width),
        side((left, floor, front), z, x, length, width),
        side((left, ceiling, back), x, y, width, height),
    ]
    names = rng.permutation(list(photographs))
    for i, name in enumerate(np.concatenate([names, names])):
        texture = photographs[name]
        across = float(rng.uniform(1.0, 2.0))
        turn = cv2.Rodrigues(np.array([rng.uniform(-0.3, 0.3), rng.uniform(-0.6, 0.6), 0.0]))[0]
        # Beside the way of the camera, in turn on both sides, further and further away.
        beside = (1 if i % 2 else -1) * rng.uniform(2.3, 3.6)
        centre = np.array([beside, rng.uniform(-1.6, 1.4), 2.5 + 0.8 * i])
        u, v = turn[:, 0], turn[:, 1]
        down = across * texture.shape[0] / texture.shape[1]
        planes.append(_Plane(texture, centre - u * across / 2 - v * down / 2, u, v, across))
    return planes
