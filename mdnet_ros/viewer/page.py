"""One self-contained HTML page that plays the frames of a recording with their tracks."""

from __future__ import annotations

import base64
import html
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mdnet_ros.bags.reader import ImageFrame
from mdnet_ros.errors import DataError, ImageError, SettingError
from mdnet_ros.evaluation.tracks.statistics import SequenceSummary
from mdnet_ros.files import write_text
from mdnet_ros.progress import Progress
from mdnet_ros.tracker.drawing import COLOUR_BY, ColourBy, TrackDrawer, draw_tracks
from mdnet_ros.tracker.recording import Recording
from mdnet_ros.viewer.metrics import SequenceMetrics

#: Placeholders of the template for title and data.
_TITLE, _DATA = '@TITLE@', '"@DATA@"'


@dataclass(frozen=True)
class PageSettings:
    """Settings of a page.

    Attributes:
        max_frames: the most frames that are shown as pictures; the charts show all.
        every: show every n-th frame only; fewer where ``max_frames`` requires it.
        width: largest width of a picture, pixels; wider ones are shrunk.
        quality: quality of the JPEGs, 1 to 100.
        trail: length of the trails, frames.
        colour_by: meaning of a track's colour: ``age``, ``set`` or ``inlier``.

    Raises:
        SettingError: a value is out of range.
    """

    max_frames: int = 240
    every: int = 1
    width: int = 800
    quality: int = 75
    trail: int = 12
    colour_by: ColourBy = 'age'

    def __post_init__(self) -> None:
        ranges = {
            'max_frames': (1, 100_000), 'every': (1, 1_000_000), 'width': (32, 8192),
            'quality': (1, 100), 'trail': (0, 200),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise SettingError(
                    f'{name}: expected {low} to {high}, got {getattr(self, name)}'
                )
        if self.colour_by not in COLOUR_BY:
            raise SettingError(
                f"colour_by '{self.colour_by}': expected one of {', '.join(COLOUR_BY)}"
            )


@dataclass(frozen=True)
class PageContent:
    """Contents of a page.

    Attributes:
        frames: number of frames in the charts.
        pictures: number of frames shown as pictures.
        without_image: number of pictures drawn on black, because the recording has no image.
        summary: metrics of all frames.
    """

    frames: int
    pictures: int
    without_image: int
    summary: SequenceSummary


def write_page(
    recording: Recording,
    path: Path,
    settings: PageSettings | None = None,
    progress: bool = False,
) -> PageContent:
    """Write the page of a recording.

    Args:
        recording: recording to show.
        path: path of the HTML file.
        settings: settings of the page.
        progress: show a progress bar.

    Raises:
        DataError: there is nothing to show, or the file cannot be written.
    """
    settings = settings or PageSettings()
    step = max(settings.every, -(-len(recording) // settings.max_frames))
    metrics = SequenceMetrics()
    drawer = TrackDrawer(settings.trail, settings.colour_by)
    pictures: list[str] = []
    shown: list[int] = []
    without_image = 0
    frames = Progress(recording, 'drawing', len(recording), unit='frame', disable=not progress)
    for index, (frame, image) in enumerate(frames):
        metrics.add(frame)
        trails = drawer.update(frame)
        if index % step:
            continue
        pixels = _pixels(image)
        if pixels is None:
            without_image += 1
            pixels = np.zeros((*recording.image_size[::-1], 3), np.uint8)
        pictures.append(_jpeg(draw_tracks(pixels, frame, trails, settings.colour_by), settings))
        shown.append(index)
    if not pictures:
        raise DataError(f"bag '{recording.tracks.path}': holds no tracked frames")
    # mdnet track names every bag it writes 'tracks'; the folder above tells them apart.
    name = '/'.join(recording.tracks.path.resolve().parts[-2:])
    about = {
        'title': name,
        'size': list(recording.image_size),
        'topic': recording.image_topic or f'{recording.namespace}/keypoints',
        'colour': settings.colour_by,
        'shown': shown,
        'pictures': pictures,
    }
    _write(path, f'{name}: tracks', {**about, **metrics.to_json()})
    return PageContent(len(metrics.series.stamps_ns), len(pictures), without_image, metrics.summary)


def _pixels(image: ImageFrame | None) -> np.ndarray | None:
    """Decode an image as (H, W, 3) uint8 BGR; None if it cannot be decoded."""
    try:
        return None if image is None else image.bgr
    except ImageError:
        return None


def _jpeg(image: np.ndarray, settings: PageSettings) -> str:
    """Encode a picture as a data URI."""
    height, width = image.shape[:2]
    if width > settings.width:
        size = (settings.width, max(1, round(height * settings.width / width)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, settings.quality])
    return f'data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}'


def _write(path: Path, title: str, data: dict[str, Any]) -> None:
    """Fill the template and write the page."""
    template = resources.files('mdnet_ros.viewer').joinpath('page.html').read_text('utf-8')
    # Names come from the bag, so they are escaped: none may end the script.
    text = json.dumps(data, allow_nan=False, separators=(',', ':')).replace('<', '\\u003c')
    write_text(path, template.replace(_TITLE, html.escape(title)).replace(_DATA, text))
