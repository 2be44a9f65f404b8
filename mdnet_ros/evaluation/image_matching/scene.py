"""Scenes of the Image Matching Benchmark: images with cameras, pairs and subsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mdnet_ros.data.poses import Pose
from mdnet_ros.errors import DataError

#: Sizes of the benchmark's image subsets for multiview reconstruction.
SUBSET_SIZES = (5, 10, 25, 100)


@dataclass(frozen=True)
class View:
    """Image with its camera.

    Attributes:
        name: file name without suffix.
        image_path: path of the image.
        intrinsics: (3, 3) float64, pixels.
        world_to_camera: pose of the camera.
        depth_path: path of the depth map; None without one.
    """

    name: str
    image_path: Path
    intrinsics: np.ndarray
    world_to_camera: Pose
    depth_path: Path | None


@dataclass(frozen=True)
class Scene:
    """Scene with the pairs and subsets to measure.

    Attributes:
        name: name of its folder.
        views: images by name, sorted.
        pairs: names of the two images of each stereo pair.
        pair_source: how the pairs were chosen, in words.
        subsets: names of the images of each subset to reconstruct; the benchmark calls it a bag.
        omitted: what could not be used and why, one line each.
    """

    name: str
    views: dict[str, View]
    pairs: tuple[tuple[str, str], ...]
    pair_source: str
    subsets: tuple[tuple[str, ...], ...]
    omitted: tuple[str, ...]


@dataclass(frozen=True)
class SceneSettings:
    """Choice of pairs and subsets of a scene.

    Attributes:
        max_pairs: the most stereo pairs, drawn at random; 0: all.
        max_angle: without a visibility file, the largest angle that the baseline of a pair spans
            at the scene, degrees.
        subset_sizes: sizes of the subsets to reconstruct; larger ones than the scene are left out.
        subsets_per_size: the most subsets of each size.
        seed: seed of every random draw.
    """

    max_pairs: int = 0
    max_angle: float = 60.0
    subset_sizes: tuple[int, ...] = SUBSET_SIZES
    subsets_per_size: int = 5
    seed: int = 0


def without_views(scene: Scene, names: Sequence[str]) -> Scene:
    """Remove images from a scene, with the pairs and subsets that contain them.

    Raises:
        DataError: no pair is left.
    """
    gone = set(names)
    pairs = tuple(pair for pair in scene.pairs if not gone & set(pair))
    if not pairs:
        raise DataError(f'{scene.name}: expected image pairs, none is left')
    return replace(
        scene,
        views={name: view for name, view in scene.views.items() if name not in gone},
        pairs=pairs,
        subsets=tuple(subset for subset in scene.subsets if not gone & set(subset)),
    )
