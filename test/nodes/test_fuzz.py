"""Some hundred random messages; ``fuzz_messages.py`` runs any number of them."""

import pytest

pytest.importorskip('rclpy')

from fuzz_messages import Target, run  # noqa: E402


def test_no_message_stops_the_node_and_none_leaks(tmp_path):
    target = Target(tmp_path)
    memory = run(target, 600, step=150)
    outcomes = target.outcomes
    assert sum(outcomes.values()) >= 600
    # All kinds were among them, and for each both ends were reached.
    for outcome in ('Image served', 'Image refused', 'CompressedImage served',
                    'CompressedImage refused', 'CameraInfo taken', 'CameraInfo refused'):
        assert outcomes[outcome] > 0, outcomes
    assert memory[-1] < 1.05 * memory[1]
