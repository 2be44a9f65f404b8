"""Fixtures that the tests of several packages use."""

import logging
import os

import pytest
import torch

from mdnet_ros.features.network import MDNet, MDNetConfig
from mdnet_ros.features.weights import save_weights


def pytest_configure(config):
    """Share the cores between the processes that run the tests.

    The threads of OpenMP wait by spinning: more of them than cores slow everything down many times.
    """
    if 'PYTEST_XDIST_WORKER' in os.environ:
        processes = int(os.environ['PYTEST_XDIST_WORKER_COUNT'])
        threads = max(1, (os.cpu_count() or 1) // processes)
        os.environ.setdefault('OMP_NUM_THREADS', str(threads))  # of the processes that tests start
        torch.set_num_threads(threads)


@pytest.fixture(scope='session')
def weights(tmp_path_factory):
    """A small network with random weights: enough to track a sliding picture."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('weights') / 'random.safetensors'
    save_weights(MDNet(MDNetConfig(dim=32, channels=(4, 8, 8, 16, 16))), path, {})
    return path


@pytest.fixture(autouse=True)
def _package_logs():
    """Let the package's loggers speak, whatever a library has done to those that existed."""
    logging.disable(logging.NOTSET)
    logging.getLogger('mdnet_ros').setLevel(logging.WARNING)
    for name, logger in logging.Logger.manager.loggerDict.items():
        if name.startswith('mdnet_ros') and isinstance(logger, logging.Logger):
            logger.disabled = False
            logger.propagate = True


@pytest.fixture
def logged():
    """Messages that the package logs, seen at its own logger whatever the root logger does."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger('mdnet_ros')
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)
