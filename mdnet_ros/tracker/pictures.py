"""Contact sheet and video of a run, with the tracks drawn on the images."""

from __future__ import annotations

import os
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


class RunPictures:
    """Draws the frames of a run; a context manager.

    Both files are written when the block ends without an error.

    Args:
        folder: folder of ``contact_sheet.png`` and ``tracks.mp4``.
        frame_count: about how many frames there will be.
        fps: frames per second of the video.

    Raises:
        DataError: if the files cannot be written.
    """

    def __init__(self, folder: Path, frame_count: int, fps: float) -> None:
        self.sheet_path = folder / 'contact_sheet.png'
        self.video_path = folder / 'tracks.mp4'
        self._fps = fps
        wanted = min(frame_count, _GRID[0] * _GRID[1])
        # The first frame has no tracks yet: start within the run.
        self._chosen = {int((i + 0.5) * frame_count / wanted) for i in range(wanted)}
        self._drawer = TrackDrawer(_TRAIL)
        self._index = 0
        self._thumbnails: list[np.ndarray] = []
        self._video: cv2.VideoWriter | None = None
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
            if kind is None and self._thumbnails:
                _, png = cv2.imencode('.png', _sheet(self._thumbnails))
                write_bytes(self.sheet_path, png.tobytes())
                os.replace(self._temporary, self.video_path)
        except OSError as failure:
            raise DataError(f"output '{self.video_path}': {failure.strerror}") from None
        finally:
            self._temporary.unlink(missing_ok=True)

    def add(self, image: np.ndarray, frame: TrackedFrame) -> None:
        """Draw one frame.

        Args:
            image: (H, W) gray or (H, W, 3) BGR, uint8.
            frame: its tracked frame.
        """
        drawn = self._drawer(image, frame)
        height, width = drawn.shape[:2]
        if self._video is None:
            scale = min(1.0, _VIDEO_WIDTH / width)
            # The codec requires even sides.
            self._size = (round(width * scale / 2) * 2, round(height * scale / 2) * 2)
            self._video = cv2.VideoWriter(
                str(self._temporary), cv2.VideoWriter.fourcc(*'mp4v'), self._fps, self._size
            )
            if not self._video.isOpened():
                raise DataError(f"output '{self.video_path}': OpenCV cannot write a video there")
        if (width, height) != self._size:
            self._video.write(cv2.resize(drawn, self._size, interpolation=cv2.INTER_AREA))
        else:
            self._video.write(drawn)
        if self._index in self._chosen:
            small = (_THUMBNAIL, round(height * _THUMBNAIL / width))
            self._thumbnails.append(cv2.resize(drawn, small, interpolation=cv2.INTER_AREA))
        self._index += 1


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
