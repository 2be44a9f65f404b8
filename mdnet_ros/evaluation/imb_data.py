"""Scenes in the layout of the Image Matching Benchmark (Jin et al., IJCV 2021).

``SCENE/set_100/images/NAME.*`` with ``calibration/calibration_NAME.h5`` (K, R, T; x = K (R X + T),
integer pixel centres) and, where present, ``depth_maps/NAME.h5`` (depth: z in the units of T,
0 unknown), ``new-vis-pairs/keys-th-0.1.npy`` (pairs as "NAME1-NAME2") and
``sub_set/SIZEbag_ID.txt`` (an image path a line).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mdnet_ros.errors import DataError, MissingDependencyError
from mdnet_ros.poses import Pose

try:
    import h5py
except ImportError:
    h5py = None

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.ppm', '.webp', '.tif', '.tiff', '.bmp')
VISIBILITY_FILE = Path('new-vis-pairs', 'keys-th-0.1.npy')
#: Sizes of the benchmark's image subsets for multiview reconstruction.
BAG_SIZES = (5, 10, 25, 100)


@dataclass(frozen=True)
class View:
    """An image with its camera.

    Attributes:
        name: file name without suffix.
        image_path: where the image lies.
        intrinsics: (3, 3) float64.
        world_to_camera: its pose.
        depth_path: its depth map, or None.
    """

    name: str
    image_path: Path
    intrinsics: np.ndarray
    world_to_camera: Pose
    depth_path: Path | None


@dataclass(frozen=True)
class Scene:
    """A scene to measure on.

    Attributes:
        name: of its folder.
        views: by name, sorted.
        pairs: names of the two images of each stereo pair.
        pair_source: how they were chosen, in words.
        bags: names of the images of each subset to reconstruct.
        omitted: what could not be used and why, one line each.
    """

    name: str
    views: dict[str, View]
    pairs: tuple[tuple[str, str], ...]
    pair_source: str
    bags: tuple[tuple[str, ...], ...]
    omitted: tuple[str, ...]


@dataclass(frozen=True)
class SceneSettings:
    """What to take from a scene.

    Attributes:
        max_pairs: at most so many stereo pairs, drawn at random; 0: all.
        max_angle: without a visibility file, pairs whose baseline spans at most this angle
            at the scene are taken, degrees.
        bag_sizes: sizes of the subsets to reconstruct; larger ones than the scene are left out.
        bags_per_size: at most so many of each size.
        seed: of every draw.
    """

    max_pairs: int = 0
    max_angle: float = 60.0
    bag_sizes: tuple[int, ...] = BAG_SIZES
    bags_per_size: int = 5
    seed: int = 0


def find_scenes(root: Path) -> list[Path]:
    """The scene folders (with ``set_100/images``) of a data set, or ``root`` if it is one.

    Raises:
        DataError: if there is none.
    """
    candidates = [root, *sorted(p for p in root.glob('*') if p.is_dir())] if root.is_dir() else []
    scenes = [p for p in candidates if (p / 'set_100' / 'images').is_dir()]
    if not scenes:
        raise DataError(f'{root}: expected scenes as SCENE/set_100/images')
    return scenes


def load_scene(folder: Path, settings: SceneSettings) -> Scene:
    """Read a scene; images whose calibration cannot be used are left out and named.

    Raises:
        DataError: if fewer than two images are left, or no pair.
        MissingDependencyError: without h5py.
    """
    if h5py is None:
        raise MissingDependencyError('h5py', 'evaluate', 'reading camera calibrations')
    base = folder / 'set_100'
    omitted: list[str] = []
    views: dict[str, View] = {}
    files = (p for p in (base / 'images').iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    for path in sorted(files):
        try:
            calibration = base / 'calibration' / f'calibration_{path.stem}.h5'
            intrinsics, pose = read_calibration(calibration)
        except DataError as error:
            omitted.append(str(error))
            continue
        depth = base / 'depth_maps' / f'{path.stem}.h5'
        views[path.stem] = View(
            path.stem, path, intrinsics, pose, depth if depth.is_file() else None
        )
    if len(views) < 2:
        reason = f' ({omitted[0]})' if omitted else ''
        raise DataError(f'{base}: expected at least 2 calibrated images, got {len(views)}{reason}')
    rng = np.random.default_rng(settings.seed)
    visibility = base / VISIBILITY_FILE
    if visibility.is_file():
        pairs, source = _pairs_from_file(visibility, views, omitted), str(VISIBILITY_FILE)
    else:
        pairs = pairs_by_angle(list(views.values()), settings.max_angle)
        source = f'baseline angle up to {settings.max_angle:g} degrees'
    if not pairs:
        raise DataError(f'{base}: expected image pairs, found none by {source}')
    bags = _read_bags(base / 'sub_set', views, settings, omitted)
    if not bags:
        bags = _draw_bags(list(views), pairs, settings, rng)
    if settings.max_pairs and len(pairs) > settings.max_pairs:
        chosen = sorted(rng.permutation(len(pairs))[: settings.max_pairs])
        pairs = [pairs[i] for i in chosen]
    return Scene(folder.name, views, tuple(pairs), source, tuple(bags), tuple(omitted))


def without_views(scene: Scene, names: Sequence[str]) -> Scene:
    """The scene without some images and all that needs them.

    Raises:
        DataError: if no pair is left.
    """
    gone = set(names)
    pairs = tuple(pair for pair in scene.pairs if not gone & set(pair))
    if not pairs:
        raise DataError(f'{scene.name}: expected image pairs, none is left')
    return replace(
        scene,
        views={name: view for name, view in scene.views.items() if name not in gone},
        pairs=pairs,
        bags=tuple(bag for bag in scene.bags if not gone & set(bag)),
    )


def read_calibration(path: Path) -> tuple[np.ndarray, Pose]:
    """(3, 3) intrinsics and world→camera pose of a calibration file.

    Raises:
        DataError: if it is missing, unreadable, or not a calibration.
    """
    values: dict[str, np.ndarray] = {}
    if not path.is_file():
        raise DataError(f'{path}: no such calibration file')
    try:
        with h5py.File(path, 'r') as file:
            for key, size in (('K', 9), ('R', 9), ('T', 3)):
                if key not in file:
                    raise DataError(f'{path}: expected the key {key}, got {sorted(file)}')
                values[key] = np.asarray(file[key], np.float64)
                if values[key].size != size:
                    raise DataError(
                        f'{path}: expected {size} numbers in {key}, got shape {values[key].shape}'
                    )
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f'{path}: not a readable HDF5 calibration ({error})') from None
    intrinsics, rotation = values['K'].reshape(3, 3), values['R'].reshape(3, 3)
    if not all(np.isfinite(v).all() for v in values.values()):
        raise DataError(f'{path}: expected finite numbers')
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-2 or np.linalg.det(rotation) < 0:
        raise DataError(f'{path}: R: expected a rotation matrix')
    if min(intrinsics[0, 0], intrinsics[1, 1]) <= 0:
        raise DataError(f'{path}: K: expected positive focal lengths')
    return intrinsics, Pose(rotation, values['T'].ravel())


def read_depth(path: Path) -> np.ndarray:
    """(H, W) float32 depth along z, 0 where unknown.

    Raises:
        DataError: if it is unreadable.
    """
    try:
        with h5py.File(path, 'r') as file:
            depth = np.asarray(file['depth'], np.float32)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise DataError(f'{path}: not a readable depth map ({error})') from None
    if depth.ndim != 2:
        raise DataError(f'{path}: depth: expected two dimensions, got shape {depth.shape}')
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0.0).astype(np.float32)


def pairs_by_angle(views: Sequence[View], max_angle: float) -> list[tuple[str, str]]:
    """Pairs whose baseline spans at most ``max_angle`` degrees, seen from the scene.

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


def _pairs_from_file(
    path: Path, views: dict[str, View], omitted: list[str]
) -> list[tuple[str, str]]:
    try:
        keys = [str(key) for key in np.load(path, allow_pickle=False)]
    except (OSError, ValueError) as error:
        raise DataError(f'{path}: not a readable list of pairs ({error})') from None
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
        omitted.append(f'{path}: {len(unknown)} pairs of images not there, such as {unknown[0]}')
    return pairs


def _read_bags(
    folder: Path, views: dict[str, View], settings: SceneSettings, omitted: list[str]
) -> list[tuple[str, ...]]:
    bags = []
    for size in settings.bag_sizes:
        files = sorted(folder.glob(f'{size}bag_*.txt'))
        for path in files[: settings.bags_per_size]:
            names = [Path(line.strip()).stem for line in path.read_text().splitlines()]
            names = [name for name in names if name]
            missing = [name for name in names if name not in views]
            if missing:
                omitted.append(f'{path}: {missing[0]} is not there')
            elif len(names) >= 3:
                bags.append(tuple(names))
    return bags


def _draw_bags(
    names: list[str],
    pairs: list[tuple[str, str]],
    settings: SceneSettings,
    rng: np.random.Generator,
) -> list[tuple[str, ...]]:
    """Random subsets in which every image has a pair with another one."""
    neighbours: dict[str, set[str]] = {name: set() for name in names}
    for a, b in pairs:
        neighbours[a].add(b)
        neighbours[b].add(a)
    bags: list[tuple[str, ...]] = []
    for size in settings.bag_sizes:
        found: set[tuple[str, ...]] = set()
        for _ in range(4 * settings.bags_per_size):
            if size > len(names) or len(found) == settings.bags_per_size:
                break
            bag = {names[rng.integers(len(names))]}
            while len(bag) < size:
                reachable = sorted(set().union(*(neighbours[name] for name in bag)) - bag)
                if not reachable:
                    break
                bag.add(reachable[rng.integers(len(reachable))])
            if len(bag) == size:
                found.add(tuple(sorted(bag)))
        bags.extend(sorted(found))
    return bags
