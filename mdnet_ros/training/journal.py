"""The run's log for TensorBoard."""

from __future__ import annotations

from pathlib import Path

from mdnet_ros.errors import MissingDependencyError
from mdnet_ros.features.network import MDNet
from mdnet_ros.training.pictures import draw_pair
from mdnet_ros.training.views import ViewPair


class Journal:
    """Scalars and pictures of a run.

    Args:
        folder: folder of the TensorBoard log.
        step: the last step a resumed run keeps; what was logged past it is hidden.

    Raises:
        MissingDependencyError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingDependencyError('tensorboard', 'train', 'the training log') from None
        self._writer = SummaryWriter(
            str(folder), purge_step=step + 1 if step else None, flush_secs=20
        )

    def scalars(self, group: str, values: dict[str, float], step: int) -> None:
        """Log numbers under ``group/name``."""
        for name, value in values.items():
            self._writer.add_scalar(f'{group}/{name}', value, step)

    def picture(self, network: MDNet, pairs: ViewPair, step: int) -> None:
        """Log heatmaps, keypoints and matches of three validation pairs."""
        for which in range(min(3, len(pairs.to_second))):
            self._writer.add_image(
                f'pair_{which}', draw_pair(network, pairs, which), step, dataformats='HWC'
            )

    def close(self) -> None:
        self._writer.close()
