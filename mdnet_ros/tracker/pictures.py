"""Draw a run: a contact sheet and a video of the tracks on the images.

Pictures are an extra: if they cannot be written, the run goes on without them.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from mdnet_ros.errors import DataError
from mdnet_ros.features.types import TrackedFrame
from mdnet_ros.files import write_bytes
from mdnet_ros.tracker.drawing import TrackDrawer

#: Columns and rows of the contact sheet.
_GRID = (4, 3)
#: Length of trails in frames; longer ones hide the picture where the camera moves fast.
_TRAIL = 3
#: Width of one picture of the contact sheet and largest width of the video, pixels.
_THUMBNAIL = 480
_VIDEO_WIDTH = 1280
#: Least and greatest rate of the video, frames a second: a time lapse is not shown in real time.
FPS_RANGE = (1.0, 120.0)


class RunPictures:
    """Draws the frames of a run; a context manager.

    Both files are written when the block ends without an error.

    Args:
        folder: where ``contact_sheet.png`` and ``tracks.mp4`` are written.
        frame_count: about how many frames will come.
        fps: frames a second of the recording. The video's rate is that, rounded to a tenth and
            limited to :data:`FPS_RANGE`: its format cannot express every rate.

    Attributes:
        problems: why pictures are missing, a line each.
    """

    def __init__(self, folder: Path, frame_count: int, fps: float) -> None:
        self.sheet_path = folder / 'contact_sheet.png'
        self.video_path = folder / 'tracks.mp4'
        self.problems: list[str] = []
        self._fps = round(min(max(fps, FPS_RANGE[0]), FPS_RANGE[1]), 1)
        wanted = min(frame_count, _GRID[0] * _GRID[1])
        # The first frame has no tracks yet: start within the run.
        self._chosen = {int((i + 0.5) * frame_count / wanted) for i in range(wanted)}
        self._drawer = TrackDrawer(_TRAIL)
        self._index = 0
        self._thumbnails: list[np.ndarray] = []
        self._video: cv2.VideoWriter | None = None
        self._without_video = False
        self._size = (0, 0)
        self._temporary = self.video_path.with_name(f'.{os.getpid()}.{self.video_path.name}')

    def __enter__(self) -> RunPictures:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._video is not None:
                self._video.release()
                if kind is None:
                    os.replace(self._temporary, self.video_path)
        except (OSError, cv2.error) as failure:
            self._give_up_video(failure)
        try:
            if kind is None and self._thumbnails:
                _, png = cv2.imencode('.png', _sheet(self._thumbnails))
                write_bytes(self.sheet_path, png.tobytes())
        except (DataError, cv2.error) as failure:
            self.problems.append(f"no contact sheet: {' '.join(str(failure).split())[:160]}")
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)

    def add(self, image: np.ndarray, frame: TrackedFrame) -> None:
        """Draw one frame.

        Args:
            image: (H, W) gray or (H, W, 3) BGR, uint8.
            frame: its tracked frame.
        """
        drawn = self._drawer(image, frame)
        height, width = drawn.shape[:2]
        if not self._without_video:
            try:
                self._add_to_video(drawn)
            except (OSError, cv2.error) as failure:
                self._give_up_video(failure)
        if self._index in self._chosen:
            # A narrow strip of an image must not become a picture of gigabytes.
            scale = min(_THUMBNAIL / width, 2 * _THUMBNAIL / height)
            small = (max(1, round(width * scale)), max(1, round(height * scale)))
            self._thumbnails.append(cv2.resize(drawn, small, interpolation=cv2.INTER_AREA))
        self._index += 1

    def _add_to_video(self, drawn: np.ndarray) -> None:
        """Append one picture.

        Raises:
            OSError: if no video can be written there.
        """
        height, width = drawn.shape[:2]
        if self._video is None:
            scale = min(1.0, _VIDEO_WIDTH / width)
            # The codec wants even sides.
            self._size = (
                max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)
            )
            self._video = cv2.VideoWriter(
                str(self._temporary), cv2.VideoWriter.fourcc(*'mp4v'), self._fps, self._size
            )
            if not self._video.isOpened():
                raise OSError(
                    f'OpenCV cannot write one of {self._size[0]}x{self._size[1]} pixels at '
                    f'{self._fps:g} frames/s'
                )
        if (width, height) != self._size:
            drawn = cv2.resize(drawn, self._size, interpolation=cv2.INTER_AREA)
        self._video.write(drawn)

    def _give_up_video(self, failure: Exception) -> None:
        self._without_video = True
        self._video = None
        reason = ' '.join(str(failure).split())[:160]
        self.problems.append(f"no video '{self.video_path}': {reason}")


def _sheet(thumbnails: list[np.ndarray]) -> np.ndarray:
    """Join pictures row by row; all get the size of the first."""
    height, width = thumbnails[0].shape[:2]
    columns = min(_GRID[0], len(thumbnails))
    rows = -(-len(thumbnails) // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for i, picture in enumerate(thumbnails):
        y, x = (i // columns) * height, (i % columns) * width
        sheet[y : y + height, x : x + width] = cv2.resize(picture, (width, height))
    return sheet
