"""The map between two views is exact, and what is marked valid is the photograph."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from mdnet_ros.training.images import ImagePool, NamedImage
from mdnet_ros.training.photometric import PhotometricRanges, change_light, quantise_blocks
from mdnet_ros.training.views import make_pairs, render_views
from mdnet_ros.training.warps import (
    WarpRanges,
    apply_homography,
    area_scale,
    draw_motion,
    pixel_grid,
    place_views,
)

SIDE = 128


def pool() -> ImagePool:
    return ImagePool([NamedImage('camera', data.camera()), NamedImage('coins', data.coins())])


def pairs(difficulty: float, seed: int = 1, ranges: WarpRanges = WarpRanges()):  # type: ignore[no-untyped-def]  # noqa: B008 (frozen)
    return make_pairs(
        pool(), torch.tensor([0, 1, 0, 1]), SIDE, ranges, difficulty,
        torch.Generator().manual_seed(seed),
    )


def test_many_views_are_each_what_they_are_alone() -> None:
    """A CPU renders a few at once; nothing of that is seen in them."""
    photos, count = pool(), 19
    index = torch.arange(count) % 2
    generator = torch.Generator().manual_seed(3)
    sizes = photos.sizes[index, 0]
    motion = draw_motion(sizes, SIDE, WarpRanges(), 1.0, generator)
    to_photo, _ = place_views(sizes, SIDE, WarpRanges().minimum_scale, motion, generator)
    together = render_views(photos, index, to_photo, SIDE)
    for i in range(count):
        alone = render_views(photos, index[i : i + 1], to_photo[i : i + 1], SIDE)
        for whole, part in zip(together, alone, strict=True):
            torch.testing.assert_close(whole[i : i + 1], part, rtol=0, atol=1e-6)


def test_homography_equals_opencv() -> None:
    rng = np.random.default_rng(0)
    h = np.eye(3) + rng.normal(0, 0.05, (3, 3)) * [[1, 1, 100], [1, 1, 100], [1e-3, 1e-3, 0]]
    points = rng.uniform(0, 100, (1, 50, 2)).astype(np.float32)
    expected = cv2.perspectiveTransform(points, h)
    got = apply_homography(torch.from_numpy(h)[None].float(), torch.from_numpy(points))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-4, atol=1e-3)


def test_views_show_the_same_thing_where_the_map_says() -> None:
    pair = pairs(0.5)
    first, second = pair.images[:4], pair.images[4:]
    grid = pixel_grid(SIDE, first.device)[None].expand(4, -1, -1, -1)
    there = apply_homography(pair.to_second, grid)
    seen = ((there >= 1) & (there <= SIDE - 2)).all(-1)[:, None] & pair.valid[:4]
    resampled = torch.nn.functional.grid_sample(
        second, (there + 0.5) * 2 / SIDE - 1, align_corners=False
    )
    assert seen.float().mean() > 0.2
    difference = (first - resampled).abs()[seen]
    assert difference.mean() < 0.03  # two interpolations apart
    # a map off by two pixels is clearly worse: the test can see an error
    off = torch.nn.functional.grid_sample(
        second, (there + 2.5) * 2 / SIDE - 1, align_corners=False
    )
    assert (first - off).abs()[seen].mean() > 1.5 * difference.mean()


def test_no_difficulty_is_no_change() -> None:
    pair = pairs(0.0, ranges=WarpRanges(small_motion=0.0, minimum_scale=0.7))
    torch.testing.assert_close(pair.images[:4], pair.images[4:], atol=1e-4, rtol=0)
    eye = torch.eye(3).expand(4, 3, 3)
    torch.testing.assert_close(pair.to_second / pair.to_second[:, 2:, 2:], eye, atol=1e-3, rtol=0)


def placed(
    sizes: torch.Tensor, ranges: WarpRanges, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both views of each photograph: crop pixels to photo pixels."""
    generator = torch.Generator().manual_seed(seed)
    motion = draw_motion(sizes, SIDE, ranges, 1.0, generator)
    return place_views(sizes, SIDE, ranges.minimum_scale, motion, generator)


def turns_and_scales(small_motion: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Between 500 pairs of views: degrees, ratios."""
    sizes = torch.tensor([[600, 400]] * 500)
    ranges = WarpRanges(
        rotation=30, small_motion=small_motion, scale=1.5, tilt=1.0, perspective=0.0,
        translation=0.0,
    )
    first, second = placed(sizes, ranges, 0)
    relative = torch.linalg.solve(second, first)
    relative = relative / relative[:, 2:, 2:]
    angle = torch.rad2deg(torch.atan2(relative[:, 1, 0], relative[:, 0, 0]))
    return angle, torch.linalg.det(relative[:, :2, :2]).sqrt()


def test_ranges_are_kept() -> None:
    angle, scale = turns_and_scales(0.0)
    assert angle.abs().max() <= 30.01
    assert angle.std() > 10
    assert scale.max() <= 1.51
    assert scale.min() >= 1 / 1.51


def test_a_share_of_the_pairs_moves_little() -> None:
    angle, scale = turns_and_scales(1.0)
    assert angle.abs().max() <= 3.01
    assert scale.log().abs().max() <= 0.1 * 1.51
    angle, _ = turns_and_scales(0.4)
    share = float((angle.abs() <= 3).float().mean())
    assert 0.4 < share < 0.55  # and a tenth of the others by chance


def shifted_and_scaled(scale: float, x: float, y: float) -> torch.Tensor:
    """(1, 3, 3): crop pixels to photo pixels, so that crop pixel 0 begins at (x, y)."""
    centre = (scale - 1) / 2
    return torch.tensor([[[scale, 0.0, x + centre], [0.0, scale, y + centre], [0.0, 0.0, 1.0]]])


def area_mean(photo: np.ndarray, x: int, y: int, scale: float, side: int) -> np.ndarray:
    """OpenCV's area averaging; halves of pixels by doubling the photograph first."""
    cut = photo[y : y + round(side * scale), x : x + round(side * scale)].astype(np.float32)
    twice = cv2.resize(cut, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    return cv2.resize(twice, (side, side), interpolation=cv2.INTER_AREA)


def test_at_its_own_size_a_crop_is_the_photograph() -> None:
    crop, inside = render_views(pool(), torch.tensor([0]), shifted_and_scaled(1.0, 64, 128), 24)
    assert inside.all()
    np.testing.assert_allclose(crop[0, 0].numpy() * 255, data.camera()[128:152, 64:88], atol=1e-3)


@pytest.mark.parametrize('scale', [1.5, 2.0, 2.5, 3.0, 4.0, 6.0])
def test_reductions_are_near_the_mean_over_the_area(scale: float) -> None:
    """Nearer than single samples, which alias, and than a level too coarse, which blurs."""
    side, photo = 40, data.camera()
    crop, _ = render_views(pool(), torch.tensor([0]), shifted_and_scaled(scale, 60, 90), side)
    expected = area_mean(photo, 60, 90, scale, side)
    at = np.round((np.arange(side) + 0.5) * scale - 0.5).astype(int)
    single = photo[np.ix_(90 + at, 60 + at)].astype(float)
    error = np.abs(crop[0, 0].numpy() * 255 - expected).mean()
    assert error < 0.5 * np.abs(single - expected).mean()


def test_a_pattern_finer_than_the_pixels_becomes_its_mean() -> None:
    fine = np.tile(np.array([[40, 200], [200, 40]], np.uint8), (256, 256))
    checks = ImagePool([NamedImage('checks', fine)])
    for scale in (3.0, 5.3):
        crop, _ = render_views(checks, torch.tensor([0]), shifted_and_scaled(scale, 10, 10), 32)
        assert float(crop.mean()) * 255 == pytest.approx(120, abs=1)
        assert float(crop.std()) * 255 < 1.0  # single samples: 80


@pytest.mark.parametrize('size', [(1600, 1200), (640, 480), (300, 220), (140, 130)])
def test_views_are_never_enlarged(size: tuple[int, int]) -> None:
    """But for perspective, in every direction: least singular value of the map to the photo."""
    sizes = torch.tensor([size] * 400)
    ranges = WarpRanges(perspective=0.0, scale=3.0, tilt=3.0, minimum_scale=1.0)
    for view in placed(sizes, ranges, 3):
        axes = torch.linalg.svdvals(view[:, :2, :2])
        assert axes[:, 1].min() >= 1 - 1e-3
        if min(size) > SIDE:
            assert axes[:, 1].max() <= min(size) / SIDE + 1e-3


def test_large_photographs_give_large_changes() -> None:
    sizes = torch.tensor([(1600, 1200)] * 400)
    ranges = WarpRanges(perspective=0.0, small_motion=0.0)
    first, second = placed(sizes, ranges, 3)
    relative = torch.linalg.svdvals(torch.linalg.solve(second, first)[:, :2, :2])
    ratio = relative.prod(1).sqrt()
    tilt = relative[:, 0] / relative[:, 1]
    assert ratio.max() > 2.8
    assert ratio.min() < 1 / 2.8
    assert 2.7 < tilt.max() < 3.01


def test_area_scale_is_that_of_a_small_square() -> None:
    h = torch.tensor([[[1.5, 0.2, 3.0], [-0.1, 0.8, 2.0], [1e-3, -2e-3, 1.0]]])
    points = torch.tensor([[[20.0, 30.0], [100.0, 60.0]]])
    step = 0.5
    corners = [apply_homography(h, points + torch.tensor(d) * step)[0].double()
               for d in ((-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0))]
    x, y = corners[1] - corners[0], corners[3] - corners[2]
    expected = (x[:, 0] * y[:, 1] - x[:, 1] * y[:, 0]).abs() / (2 * step) ** 2
    torch.testing.assert_close(area_scale(h, points)[0].double(), expected, rtol=1e-3, atol=0)


def test_same_seed_same_pairs() -> None:
    a, b, c = pairs(1.0, 5), pairs(1.0, 5), pairs(1.0, 6)
    assert torch.equal(a.images, b.images)
    assert not torch.equal(a.images, c.images)


def test_light_stays_in_range_and_varies_per_image() -> None:
    pair = pairs(0.5)
    changed = change_light(
        pair.images, PhotometricRanges(), 1.0, torch.Generator().manual_seed(2)
    )
    assert changed.min() >= 0
    assert changed.max() <= 1
    levels = changed * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    assert ((changed - pair.images).mean((1, 2, 3)).std()) > 0.01


def test_quantised_blocks_equal_jpeg_in_kind() -> None:
    image = torch.from_numpy(data.camera()[:SIDE, :SIDE].copy()).float()[None, None] / 255
    fine = quantise_blocks(image, torch.tensor([1e-3]))
    torch.testing.assert_close(fine, image, atol=1e-3, rtol=0)
    coarse = quantise_blocks(image, torch.tensor([200.0]))
    # so coarse that only the block means can be left
    blocks = coarse.reshape(1, 1, SIDE // 8, 8, SIDE // 8, 8)
    assert blocks.std((3, 5)).max() < 1e-3
    assert coarse.std() > 0.05
