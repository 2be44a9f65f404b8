"""Data sets in the HPatches layout.

One folder per sequence, ``v_*`` for a change of viewpoint and ``i_*`` for one of illumination,
with images ``1`` to ``6`` of any type and text files ``H_1_2`` to ``H_1_6``: 3x3 homographies that
map pixels of image 1 to pixels of image k (Balntas et al., CVPR 2017).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mdnet_ros.data.image_files import IMAGE_SUFFIXES
from mdnet_ros.errors import DataError

#: Sequences with images over 1600x1200 px. D2-Net (Dusmanu et al., CVPR 2019) and everyone after
#: it measured the other 108 of 116. (The misspelling is the data set's.)
LEFT_OUT = frozenset(
    {
        'i_contruction',
        'i_crownnight',
        'i_dc',
        'i_pencils',
        'i_whitebuilding',
        'v_artisans',
        'v_astronautis',
        'v_talent',
    }
)
#: First letter of a folder's name to its group in reports.
GROUPS = {'v': 'viewpoint', 'i': 'illumination'}


@dataclass(frozen=True)
class ImageSequence:
    """Images of one scene with the homographies between them.

    Attributes:
        name: name of its folder.
        images: paths of image 1, 2, …
        homographies: (n - 1, 3, 3) float64, maps pixels of image 1 to image 2, 3, …, with
            H[2, 2] > 0.
    """

    name: str
    images: tuple[Path, ...]
    homographies: np.ndarray

    @property
    def group(self) -> str:
        """What changes between the images: ``viewpoint`` or ``illumination``."""
        return GROUPS[self.name[0]]


def list_sequences(root: Path, all_sequences: bool = False) -> list[Path]:
    """List the folders of a data set's sequences, sorted by name.

    Args:
        root: folder of the data set.
        all_sequences: list those too that the usual protocol leaves out (:data:`LEFT_OUT`).

    Raises:
        DataError: if there is no such folder or no sequence in it.
    """
    if not root.is_dir():
        raise DataError(f"data set '{root}': no such folder")
    folders = sorted(
        path
        for path in root.iterdir()
        if path.is_dir()
        and path.name[:2] in ('v_', 'i_')
        and (all_sequences or path.name not in LEFT_OUT)
    )
    if not folders:
        raise DataError(f"data set '{root}': expected folders v_* and i_* as in HPatches")
    return folders


def load_sequence(folder: Path) -> ImageSequence:
    """Find the images of a sequence and read its homographies.

    Raises:
        DataError: an image or homography is missing, or a homography is malformed.
    """
    images: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if not path.stem.isdecimal() or path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        number = int(path.stem)
        if number in images:
            raise DataError(
                f"sequence '{folder.name}': image {number} is there twice, as "
                f"'{images[number].name}' and '{path.name}'"
            )
        images[number] = path
    count = max(
        [*images, *(int(p.name[4:]) for p in folder.glob('H_1_*') if p.name[4:].isdecimal())],
        default=0,
    )
    if count < 2:
        raise DataError(f"sequence '{folder.name}': expected images 1, 2, … and H_1_2, …")
    for number in range(1, count + 1):
        if number not in images:
            raise DataError(f"sequence '{folder.name}': image {number} is missing")
    homographies = [read_homography(folder / f'H_1_{k}') for k in range(2, count + 1)]
    return ImageSequence(
        folder.name,
        tuple(images[number] for number in range(1, count + 1)),
        np.stack(homographies),
    )


def read_homography(path: Path) -> np.ndarray:
    """Read a homography from a text file: nine numbers, separated by spaces, tabs or commas.

    Returns:
        (3, 3) float64, scaled to H[2, 2] = 1.

    Raises:
        DataError: the file is missing, not 3x3 finite numbers, or cannot be inverted.
    """
    where = f"sequence '{path.parent.name}': {path.name}"
    try:
        text = path.read_text(encoding='utf-8-sig')
    except FileNotFoundError:
        raise DataError(f'{where} is missing') from None
    except (OSError, ValueError):
        raise DataError(f'{where}: cannot be read as text') from None
    rows = [
        line.split('#')[0].replace(',', ' ').replace(';', ' ').split()
        for line in text.splitlines()
    ]
    try:
        numbers = [[float(word) for word in row] for row in rows if row]
        matrix = np.array(numbers, np.float64, ndmin=2)
    except ValueError:
        raise DataError(f'{where}: expected three lines of three numbers each') from None
    if matrix.shape != (3, 3):
        raise DataError(f'{where}: expected a 3x3 matrix, got {"x".join(map(str, matrix.shape))}')
    if not np.isfinite(matrix).all() or matrix[2, 2] == 0 or np.linalg.matrix_rank(matrix) < 3:
        raise DataError(f'{where}: expected an invertible matrix of finite numbers')
    return matrix / matrix[2, 2]


