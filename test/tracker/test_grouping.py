"""Images of several cameras brought together by their stamps."""

import pytest

from mdnet_ros.tracker.grouping import StampGrouper


def feed(grouper, items, max_difference_ns=0):
    """(groups, left over) after adding (camera, stamp) items; an item's content is itself."""
    groups, left_over = [], []
    for camera, stamp in items:
        got = grouper.add(camera, stamp, (camera, stamp), max_difference_ns)
        left_over += [item for _, item in got.left_over]
        assert all(number == item[0] for number, item in got.left_over)
        if got.group is not None:
            groups.append(got.group)
    return groups, left_over


def test_one_camera_waits_for_nobody():
    groups, left_over = feed(StampGrouper(1), [(0, 5), (0, 3), (0, 3)])
    assert groups == [((0, 5),), ((0, 3),), ((0, 3),)]
    assert not left_over


@pytest.mark.parametrize('order', [[0, 1, 2], [2, 0, 1]])
def test_equal_stamps_belong_together_whoever_comes_first(order):
    items = [(camera, stamp) for stamp in (10, 20) for camera in order]
    groups, left_over = feed(StampGrouper(3), items)
    assert groups == [((0, s), (1, s), (2, s)) for s in (10, 20)]
    assert not left_over


def test_a_missing_partner_is_left_over_with_the_next_group():
    grouper = StampGrouper(2)
    groups, left_over = feed(grouper, [(0, 1), (1, 1), (0, 2), (0, 3), (1, 3)])
    assert groups == [((0, 1), (1, 1)), ((0, 3), (1, 3))]
    assert left_over == [(0, 2)]
    assert grouper.clear() == ()


def test_stamps_within_the_difference_belong_together():
    grouper = StampGrouper(2)
    items = [(0, 0), (1, 8), (0, 100), (1, 111), (0, 200), (1, 210)]
    groups, left_over = feed(grouper, items, 10)
    assert groups == [((0, 0), (1, 8)), ((0, 200), (1, 210))]
    assert left_over == [(0, 100), (1, 111)]


def test_the_nearest_is_taken_and_of_equals_the_newest():
    grouper = StampGrouper(2)
    groups, left_over = feed(grouper, [(0, 0), (0, 8), (0, 8), (1, 9)], 10)
    assert groups == [((0, 8), (1, 9))]
    assert left_over == [(0, 0), (0, 8)]
    # All of a group lie within the difference, not only each within that of the newest.
    groups, left_over = feed(StampGrouper(3), [(0, 0), (1, 16), (2, 8)], 10)
    assert not groups
    assert not left_over


def test_a_bag_that_begins_again_blocks_nothing():
    grouper = StampGrouper(2)
    first = [(0, 1000), (1, 1000), (0, 1010)]
    again = [(0, 0), (1, 0), (1, 10), (0, 10)]
    groups, left_over = feed(grouper, first + again)
    assert groups[1:] == [((0, 0), (1, 0)), ((0, 10), (1, 10))]
    assert left_over == [(0, 1010)]


def test_a_dead_camera_holds_a_bounded_number_up():
    grouper = StampGrouper(2)
    groups, left_over = feed(grouper, [(0, stamp) for stamp in range(100)])
    assert not groups
    assert left_over == [(0, stamp) for stamp in range(len(left_over))]  # the oldest first
    waiting = grouper.clear()
    assert 0 < len(waiting) < 20
    assert len(waiting) + len(left_over) == 100
    groups, _ = feed(grouper, [(1, 99), (0, 99)])  # what was cleared is gone
    assert groups == [((0, 99), (1, 99))]
