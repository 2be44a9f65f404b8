"""Textures for the demo scene, made from the photographs that scikit-image ships."""

from __future__ import annotations

import cv2
import numpy as np

from mdnet_ros.errors import MissingDependencyError

#: Photographs in scikit-image's wheel. It would download any other.
PHOTOGRAPHS = (
    'astronaut', 'brick', 'camera', 'chelsea', 'coffee', 'coins', 'grass', 'gravel',
    'hubble_deep_field', 'immunohistochemistry', 'moon', 'page', 'retina', 'rocket', 'text',
)  # fmt: skip


def load_photographs() -> dict[str, np.ndarray]:
    """Load the photographs, by name, as (H, W) uint8 gray images.

    Raises:
        MissingDependencyError: if scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError:
        raise MissingDependencyError('scikit-image', 'demo', 'the demo scene') from None
    photographs = {}
    for name in PHOTOGRAPHS:
        image = getattr(data, name)()
        photographs[name] = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
    return photographs


def collage(
    photographs: list[np.ndarray], size: tuple[int, int], rng: np.random.Generator, cell: int = 256
) -> np.ndarray:
    """Return a large texture made of random pieces of photographs, so that no place repeats.

    Args:
        photographs: images, (H, W) uint8 gray.
        size: (width, height) in pixels.
        rng: source of the choice, the quarter turns and the mirroring of the pieces.
        cell: side of a piece, pixels.

    Returns:
        The texture, (height, width) uint8 gray.
    """
    width, height = size
    texture = np.empty((height, width), np.uint8)
    for top in range(0, height, cell):
        for left in range(0, width, cell):
            photograph = photographs[rng.integers(len(photographs))]
            side = int(rng.uniform(0.4, 1.0) * min(photograph.shape))
            y = int(rng.integers(photograph.shape[0] - side + 1))
            x = int(rng.integers(photograph.shape[1] - side + 1))
            piece = np.rot90(photograph[y : y + side, x : x + side], int(rng.integers(4)))
            if rng.random() < 0.5:
                piece = piece[:, ::-1]
            piece = cv2.resize(
                np.ascontiguousarray(piece), (cell, cell),
                interpolation=cv2.INTER_AREA if side > cell else cv2.INTER_CUBIC,
            )
            texture[top : top + cell, left : left + cell] = piece[: height - top, : width - left]
    return texture
