"""A camera that flies through a hall of photographs, with exact poses and depth.

A frame is the mean of several sub-frame samples of its exposure, spread evenly around the stamp
(motion blur). Each sample is shifted by a part of a pixel (anti-aliasing); the shifts add up to
zero.
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
from mdnet_ros.data.poses import Pose, Trajectory
from mdnet_ros.demo.flight import camera_pose
from mdnet_ros.demo.hall import build_hall
from mdnet_ros.demo.lighting import gain
from mdnet_ros.demo.planes import Plane, bounding_box
from mdnet_ros.errors import DataError

#: Shift of each sub-frame sample in pixels; the one in the middle has none and gives the depth.
_SHIFTS = ((-0.3, 0.1), (0.1, 0.3), (0.0, 0.0), (-0.1, -0.3), (0.3, -0.1))
#: Sub-frame samples of an exposure lie at most this far apart in the image, pixels.
_MAX_STEP = 2.0


@dataclass(frozen=True)
class SceneSettings:
    """The camera and the length and speed of its flight.

    Attributes:
        duration_s: length of the sequence, seconds.
        rate_hz: frames per second.
        width: image width, pixels.
        height: image height, pixels.
        seed: seed of the textures, the places of the pictures and the noise.
        exposure_s: how long the shutter is open, seconds (motion blur).
        noise: standard deviation of the read-out noise, gray levels; shot noise comes on top.
        start_ns: stamp of the first frame, nanoseconds.
        speed: factor on the speed of the flight; 1 is 0.9 m/s along the course.
        steady_light: leave out the changes of brightness of :func:`mdnet_ros.demo.lighting.gain`.

    Raises:
        DataError: if a setting is out of its range.
    """

    duration_s: float = 10.0
    rate_hz: float = 30.0
    width: int = 640
    height: int = 480
    seed: int = 0
    exposure_s: float = 0.01
    noise: float = 1.5
    start_ns: int = 1_700_000_000_000_000_000
    speed: float = 1.0
    steady_light: bool = False

    def __post_init__(self) -> None:
        if not (0 < self.duration_s < np.inf and 0 < self.rate_hz < np.inf):
            raise DataError(
                f'demo scene: expected a duration and rate above 0, '
                f'got {self.duration_s:g} s and {self.rate_hz:g} Hz'
            )
        if self.width < 16 or self.height < 16:
            raise DataError(
                f'demo scene: expected at least 16x16 px, got {self.width}x{self.height}'
            )
        if not 0 < self.speed < np.inf:
            raise DataError(f'demo scene: expected a speed above 0, got {self.speed:g}')
        if not 0 <= self.exposure_s * self.rate_hz <= 1:
            raise DataError(
                f'demo scene: expected an exposure from 0 to {1 / self.rate_hz:g} s, the time '
                f'between frames, got {self.exposure_s:g} s'
            )

    @property
    def frame_count(self) -> int:
        """Number of frames."""
        return max(1, round(self.duration_s * self.rate_hz))


@dataclass(frozen=True)
class SceneFrame:
    """One frame of the sequence.

    Attributes:
        stamp_ns: stamp in the middle of the exposure, nanoseconds.
        image: (H, W) uint8 gray.
        depth: (H, W) float32, metres along the optical axis at ``stamp_ns``.
        pose: camera to map at ``stamp_ns``.
    """

    stamp_ns: int
    image: np.ndarray
    depth: np.ndarray
    pose: Pose


class Scene:
    """Renders the frames of the flight.

    Args:
        settings: camera and flight.

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
        self._planes = build_hall(np.random.default_rng(settings.seed))
        self._grid = (
            np.arange(settings.width, dtype=np.float32)[None, :],
            np.arange(settings.height, dtype=np.float32)[:, None],
        )

    def stamp(self, index: int) -> int:
        """Return the stamp of a frame, nanoseconds."""
        return self.settings.start_ns + round(index * 1e9 / self.settings.rate_hz)

    def poses(self) -> Trajectory:
        """Return the true pose of every frame."""
        stamps = [self.stamp(i) for i in range(self.settings.frame_count)]
        poses = [self._pose((s - self.settings.start_ns) * 1e-9) for s in stamps]
        return Trajectory(
            np.array(stamps, np.int64),
            np.stack([p.rotation for p in poses]),
            np.stack([p.translation for p in poses]),
        )

    def __iter__(self) -> Iterator[SceneFrame]:
        """Yield the frames in order; they are rendered ahead on all processors."""
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
        count = self._sample_count(time)
        for i in range(count):
            part = (i - count // 2) / count
            # Mip levels are blended by taking another threshold in each sample.
            picture, inverse_depth_of_sample = self._render_sample(
                self._pose(time + part * settings.exposure_s),
                _SHIFTS[i % len(_SHIFTS)],
                (i % len(_SHIFTS) + 0.5) / len(_SHIFTS),
            )
            light += picture
            if i == count // 2:
                inverse_depth = inverse_depth_of_sample
        light *= (1.0 if settings.steady_light else gain(time)) / count
        rng = np.random.default_rng((settings.seed, index))
        deviation = np.sqrt(settings.noise**2 + 0.02 * settings.noise * light)
        light += deviation * rng.standard_normal(light.shape, np.float32)
        image = np.clip(np.rint(light), 0, 255).astype(np.uint8)
        return SceneFrame(stamp, image, 1.0 / inverse_depth, self._pose(time))

    def _pose(self, time: float) -> Pose:
        """Return the camera's pose at a time in seconds since the first frame."""
        return camera_pose(self.settings.speed * time)

    def _sample_count(self, time: float) -> int:
        """Return how many sub-frame samples an exposure needs: an odd number of ``_SHIFTS``."""
        half = self.settings.exposure_s / 2
        turn = self._pose(time - half).rotation.T @ self._pose(time + half).rotation
        angle = float(np.linalg.norm(cv2.Rodrigues(turn)[0]))
        needed = angle * self.camera.k[0, 0] / (_MAX_STEP * len(_SHIFTS))
        return len(_SHIFTS) * (1 + 2 * int(np.ceil(max(0.0, needed - 1) / 2)))

    def _render_sample(
        self, pose: Pose, shift: tuple[float, float], threshold: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Render a sub-frame sample: (H, W) uint8 picture, (H, W) float32 inverse depth, 1/m."""
        settings = self.settings
        picture = np.zeros((settings.height, settings.width), np.uint8)
        inverse_depth = np.zeros((settings.height, settings.width), np.float32)
        map_to_camera = pose.inverse()
        for margin in (0.0, 1e-3):  # the second pass closes seams between two sides of the hall
            if inverse_depth.all():
                break
            for plane in self._planes:
                self._draw(plane, map_to_camera, shift, threshold, margin, picture, inverse_depth)
        return picture, inverse_depth

    def _draw(
        self,
        plane: Plane,
        map_to_camera: Pose,
        shift: tuple[float, float],
        threshold: float,
        margin: float,
        picture: np.ndarray,
        inverse_depth: np.ndarray,
    ) -> None:
        """Draw one plane where it is nearer than what is drawn already.

        Args:
            plane: the rectangle.
            map_to_camera: transform from map to camera.
            shift: added to the coordinates of every pixel, pixels.
            threshold: rounds the mip level, in [0, 1].
            margin: by which the rectangle is enlarged on all sides, metres.
            picture: (H, W) uint8, changed in place.
            inverse_depth: (H, W) float32 inverse depth, 1/m, changed in place.
        """
        box = bounding_box(plane, self.camera, map_to_camera)
        if box is None:
            return
        left, top, right, bottom = box
        h = plane.homography(self.camera, map_to_camera)
        area = abs(float(np.linalg.det(h))) * plane.texels_per_metre**2
        h = h.astype(np.float32)
        x = self._grid[0][:, left:right] + np.float32(shift[0])
        y = self._grid[1][top:bottom] + np.float32(shift[1])
        w = (h[2, 0] * x) + (h[2, 1] * y + h[2, 2])
        seen = w > inverse_depth[top:bottom, left:right]
        safe = np.where(seen, w, np.float32(1.0))
        a = ((h[0, 0] * x) + (h[0, 1] * y + h[0, 2])) / safe
        b = ((h[1, 0] * x) + (h[1, 1] * y + h[1, 2])) / safe
        seen &= (a >= -margin) & (a <= plane.size[0] + margin)
        seen &= (b >= -margin) & (b <= plane.size[1] + margin)
        if not seen.any():
            return
        # Where the plane lies edge-on, the third power of the inverse depth can vanish: only pixels
        # that show the plane count.
        safe[~seen] = 1.0
        # The determinant over the third power of the depth is the number of texels in a pixel.
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
        np.copyto(inverse_depth[top:bottom, left:right], w, where=seen)
