"""The pool keeps photographs at their size, with their pyramids; bags are streamed into it."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from mdnet_ros.errors import DataError
from mdnet_ros.training.images import LEVELS, ImagePool, NamedImage, load_pools, read_images


def level_of(pool: ImagePool, photo: int, level: int) -> np.ndarray:
    """One level as an image."""
    width, height = pool.sizes[photo, level].tolist()
    start = int(pool.offsets[photo, level])
    return pool.pixels[start : start + width * height].reshape(height, width).numpy()


def test_every_level_lies_where_the_tables_say() -> None:
    photos = [data.camera(), data.coins(), data.camera()[:97, :131]]
    pool = ImagePool([NamedImage(str(i), photo) for i, photo in enumerate(photos)])
    for i, photo in enumerate(photos):
        np.testing.assert_array_equal(level_of(pool, i, 0), photo)
        for level in range(1, LEVELS):
            below = level_of(pool, i, level - 1)
            height, width = below.shape[0] // 2, below.shape[1] // 2
            expected = cv2.resize(
                below[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA
            )
            np.testing.assert_array_equal(level_of(pool, i, level), expected)
    total = sum(int(pool.sizes[i, level].prod()) for i in range(3) for level in range(LEVELS))
    assert pool.pixels.numel() == total  # nothing between, nothing behind


def test_large_photographs_stay_large_and_portraits_are_turned() -> None:
    rng = np.random.default_rng(0)
    shapes = [(1200, 1600), (1600, 1200), (2400, 3200), (1000, 4000)]
    pool = ImagePool([
        NamedImage(str(shape), rng.integers(0, 255, shape, np.uint8)) for shape in shapes
    ])
    assert pool.sizes[:, 0].tolist() == [[1600, 1200], [1600, 1200], [1600, 1200], [1600, 400]]


def test_a_pool_moves_as_a_whole() -> None:
    pool = ImagePool([NamedImage('camera', data.camera())])
    moved = pool.to(torch.device('meta'))
    tensors = (moved.pixels, moved.offsets, moved.sizes)
    assert {tensor.device.type for tensor in tensors} == {'meta'}


@pytest.fixture(scope='module')
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames of a camera that moves; the fourth holds too few bytes for its size."""
    pytest.importorskip('rosbags')
    from mdnet_ros.bags.writer import BagWriter

    path = tmp_path_factory.mktemp('bag') / 'one_bad'
    with BagWriter(path, 'mcap') as writer:
        types = writer.types
        for i in range(12):
            ns = 10**18 + i * 10**8
            cut = np.ascontiguousarray(data.camera()[20 * i : 20 * i + 240, 9 * i : 9 * i + 320])
            pixels = cut.reshape(-1)
            header = types['std_msgs/msg/Header'](
                types['builtin_interfaces/msg/Time'](ns // 10**9, ns % 10**9), 'cam'
            )
            message = types['sensor_msgs/msg/Image'](
                header, 240, 320, 'mono8', 0, 320, pixels[:100] if i == 3 else pixels
            )
            writer.write('/image', 'sensor_msgs/msg/Image', ns, message)
    return path


def test_a_broken_frame_is_skipped_and_named(
    bag: Path, logged: list[str]
) -> None:
    names = [image.name for image in read_images(bag)]
    assert names == [f'one_bad@{10**18 + i * 10**8}' for i in range(12) if i != 3]
    assert '1 of 12 frames' in '\n'.join(logged)
    assert 'one_bad' in '\n'.join(logged)
    assert f'frame 3 at {10**18 + 3 * 10**8} ns' in '\n'.join(logged)


def test_a_part_of_a_bag_is_cut_by_the_count_of_frames(bag: Path) -> None:
    names = [image.name for image in read_images(bag, part=(0.5, 0.75))]
    assert names == [f'one_bad@{10**18 + i * 10**8}' for i in (6, 7, 8)]


def test_frames_are_decoded_one_at_a_time(bag: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory grows with the frames that are kept: reading never runs ahead of the pool."""
    from mdnet_ros.bags import reader

    decoded: list[int] = []
    plain = reader.decode_gray
    monkeypatch.setattr(
        reader, 'decode_gray', lambda *message: decoded.append(1) or plain(*message)
    )
    frames = read_images(bag)
    next(frames)
    next(frames)
    assert len(decoded) <= 3


def test_reading_a_robot_that_stands_still_shows_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every frame that is read counts, also where only the first is kept."""
    from mdnet_ros import progress
    from mdnet_ros.bags.messages import BagTopics
    from mdnet_ros.bags.writer import BagWriter

    monkeypatch.setattr(progress, 'LINE_PERIOD', 0.0)
    with BagWriter(tmp_path / 'still') as writer:
        for i in range(20):
            BagTopics(writer).image('/image', 10**18 + i * 10**8, 'cam', data.camera())
    assert len(list(read_images(tmp_path / 'still'))) == 1
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith('read still: ') for line in lines)
    for count in range(1, 21):
        assert sum(f' {count}/20 ' in line for line in lines) >= 1


def test_a_bag_without_its_metadata_or_its_end_is_a_bag(bag: Path, tmp_path: Path) -> None:
    """And no folder without photographs: the folder lost a file, or its recorder was killed."""
    from mdnet_ros.bags.unfinished import unfinished_folder

    whole = [image.name.split('@')[1] for image in read_images(bag)]
    storage = next(bag.glob('*.mcap'))
    for name in ('no_metadata', 'killed.unfinished/killed'):
        (tmp_path / name).mkdir(parents=True)
        shutil.copy(storage, tmp_path / name)
    assert unfinished_folder(tmp_path / 'killed').is_dir()
    for name in ('no_metadata', 'killed'):
        assert [i.name.split('@')[1] for i in read_images(tmp_path / name)] == whole


def test_a_robot_that_stood_still_gives_too_few_images_and_is_told_why(tmp_path: Path) -> None:
    from mdnet_ros.bags.messages import BagTopics
    from mdnet_ros.bags.writer import BagWriter

    with BagWriter(tmp_path / 'still') as writer:
        for i in range(3):
            BagTopics(writer).image('/image', 10**18 + i * 10**8, 'cam', data.camera())
    with pytest.raises(DataError, match='got 1; frames of a bag that show the same as the one'):
        load_pools([tmp_path / 'still'], 0.0)


def test_a_bag_trains_with_its_broken_frame_left_out(bag: Path) -> None:
    pools = load_pools([bag], 0.3)
    assert len(pools.training) + pools.held_back == 11
