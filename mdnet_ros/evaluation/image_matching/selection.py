"""Choice of the pairs and subsets of a scene in the Image Matching Benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mdnet_ros.data.array_files import read_npy
from mdnet_ros.data.image_files import image_name
from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.image_matching.scene import SceneSettings, View

#: File of the pairs that overlap enough, in the benchmark's data.
VISIBILITY_FILE = Path('new-vis-pairs', 'keys-th-0.1.npy')


def pairs_by_angle(views: Sequence[View], max_angle: float) -> list[tuple[str, str]]:
    """Return the pairs whose baseline spans at most ``max_angle`` degrees, seen from the scene.

    The scene is taken to lie at the point nearest to all optical axes. Where that point is
    behind one of the two cameras (parallel or outward views), the angle between the optical
    axes counts.
    """
    centres = np.stack([view.world_to_camera.inverse().translation for view in views])
    axes = np.stack([view.world_to_camera.rotation[2] for view in views])
    # The point x that minimises the sum of squared distances to the lines c + s d.
    projectors = np.eye(3)[None] - axes[:, :, None] * axes[:, None, :]
    target = np.linalg.lstsq(
        projectors.sum(axis=0), np.einsum('nij,nj->i', projectors, centres), rcond=None
    )[0]
    rays = target - centres
    in_front = np.einsum('ni,ni->n', rays, axes) > 0
    pairs = []
    for i in range(len(views)):
        for j in range(i + 1, len(views)):
            lines = rays if in_front[i] and in_front[j] else axes
            cosine = lines[i] @ lines[j] / np.linalg.norm(lines[i]) / np.linalg.norm(lines[j])
            if np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))) <= max_angle:
                pairs.append((views[i].name, views[j].name))
    return pairs


def pairs_from_file(
    path: Path, views: dict[str, View], omitted: list[str]
) -> list[tuple[str, str]]:
    """Read the pairs of a visibility file; pairs whose images are missing are left out and counted.

    Raises:
        DataError: the file cannot be read.
    """
    keys = [str(key) for key in np.ravel(read_npy(path))]
    pairs = []
    unknown = []
    for key in keys:
        cuts = [i for i, c in enumerate(key) if c == '-']
        found = [(key[:i], key[i + 1 :]) for i in cuts if {key[:i], key[i + 1 :]} <= views.keys()]
        if found:
            pairs.append(found[0])
        else:
            unknown.append(key)
    if unknown:
        omitted.append(f'{path}: {len(unknown)} pairs of missing images, such as {unknown[0]}')
    return pairs


def read_subsets(
    folder: Path, views: dict[str, View], settings: SceneSettings, omitted: list[str]
) -> list[tuple[str, ...]]:
    """Read the subsets of a scene's own files; those with a missing image are left out, named.

    Raises:
        DataError: a file cannot be read.
    """
    subsets = []
    for size in settings.subset_sizes:
        files = sorted(folder.glob(f'{size}bag_*.txt'))
        for path in files[: settings.subsets_per_size]:
            try:
                lines = path.read_text(encoding='utf-8').splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"subset '{path}': cannot be read: {error}") from None
            names = [image_name(Path(line.strip()).name) for line in lines]
            names = [name for name in names if name]
            missing = [name for name in names if name not in views]
            if missing:
                omitted.append(f'{path}: image {missing[0]} is missing')
            elif len(names) >= 3:
                subsets.append(tuple(names))
    return subsets


def draw_subsets(
    names: list[str],
    pairs: list[tuple[str, str]],
    settings: SceneSettings,
    rng: np.random.Generator,
) -> list[tuple[str, ...]]:
    """Draw random subsets in which every image has a pair with another one."""
    neighbours: dict[str, set[str]] = {name: set() for name in names}
    for a, b in pairs:
        neighbours[a].add(b)
        neighbours[b].add(a)
    subsets: list[tuple[str, ...]] = []
    for size in settings.subset_sizes:
        found: set[tuple[str, ...]] = set()
        for _ in range(4 * settings.subsets_per_size):
            if size > len(names) or len(found) == settings.subsets_per_size:
                break
            subset = {names[rng.integers(len(names))]}
            while len(subset) < size:
                reachable = sorted(set().union(*(neighbours[name] for name in subset)) - subset)
                if not reachable:
                    break
                subset.add(reachable[rng.integers(len(reachable))])
            if len(subset) == size:
                found.add(tuple(sorted(subset)))
        subsets.extend(sorted(found))
    return subsets
