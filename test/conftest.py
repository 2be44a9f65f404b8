"""Fixtures that the tests of several packages use."""

import logging

import pytest
import torch

from mdnet_ros.features.network import MDNet, MDNetConfig
from mdnet_ros.features.weights import save_weights


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
