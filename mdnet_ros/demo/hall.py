"""The hall of photographs that the demo's camera flies through."""

from __future__ import annotations

import cv2
import numpy as np

from mdnet_ros.demo.planes import Plane
from mdnet_ros.demo.textures import collage, load_photographs


def build_hall(rng: np.random.Generator) -> list[Plane]:
    """Return the six sides of the hall and the pictures that stand in it.

    The map has x right, y down and z into the hall, in metres. The camera starts at its origin.

    Args:
        rng: decides the textures and the places of the pictures.

    Raises:
        MissingDependencyError: if scikit-image is not installed.
    """
    photographs = load_photographs()
    rich = [p for name, p in photographs.items() if name not in ('moon', 'text')]
    left, right, ceiling, floor, back, front = -5.0, 5.0, -3.0, 2.6, 30.0, -6.0
    x, y, z = np.eye(3)
    length, width, height = back - front, right - left, floor - ceiling

    def side(origin: tuple[float, float, float], u: np.ndarray, v: np.ndarray, across: float,
             down: float) -> Plane:  # fmt: skip
        texels = 130
        texture = collage(rich, (round(across * texels), round(down * texels)), rng)
        return Plane(texture, np.array(origin), u, v, across)

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
        # The pictures stand beside the camera's course, alternately to its left and right.
        beside = (1 if i % 2 else -1) * rng.uniform(2.3, 3.6)
        centre = np.array([beside, rng.uniform(-1.6, 1.4), 2.5 + 0.8 * i])
        u, v = turn[:, 0], turn[:, 1]
        down = across * texture.shape[0] / texture.shape[1]
        planes.append(Plane(texture, centre - u * across / 2 - v * down / 2, u, v, across))
    # The camera sees the entrance only after it has turned round. It comes last, so that
    # everything else is the same as in a hall without it.
    planes.append(side((right, ceiling, front), -x, y, width, height))
    return planes
