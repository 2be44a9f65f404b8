"""Tracking a bag with every outgoing connection forbidden."""

import subprocess
import sys

import cv2
import numpy as np
import torch

from mdnet_ros.bags.messages import BagTopics
from mdnet_ros.bags.writer import BagWriter
from mdnet_ros.features.network import MDNet, MDNetConfig
from mdnet_ros.features.weights import save_weights

GUARD = '''
import sys

tried = []

def guard(event, arguments):
    """Python tells of every connection and every look-up of a name before it is made."""
    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.sendto', 'urllib.Request'):
        tried.append((event, str(arguments)))
        raise PermissionError(f'{event} {arguments}')

sys.addaudithook(guard)
'''
TRACK = GUARD + '''
from mdnet_ros.cli.main import main
code = main(sys.argv[1:])
assert not tried, tried
sys.exit(code)
'''
FETCH = GUARD + '''
import urllib.request
try:
    urllib.request.urlopen('http://192.0.2.1/', timeout=1)
except OSError:
    pass
assert tried
'''


def run(program, *arguments):
    return subprocess.run(
        [sys.executable, '-c', program, *map(str, arguments)], capture_output=True, text=True,
        timeout=200, check=False,
    )


def test_nothing_is_connected_to(tmp_path):
    torch.manual_seed(0)
    weights = tmp_path / 'random.safetensors'
    save_weights(MDNet(MDNetConfig(dim=8, channels=(4, 4, 4, 4, 4))), weights, {})
    picture = np.random.default_rng(0).integers(0, 256, (120, 200), np.uint8)
    picture = cv2.GaussianBlur(picture, (0, 0), 2)
    with BagWriter(tmp_path / 'bag') as writer:
        for index in range(3):
            image = np.ascontiguousarray(picture[:, 2 * index : 2 * index + 160])
            BagTopics(writer).image('/image', 10**18 + index * 10**8, 'camera', image)
    done = run(
        TRACK, 'track', '--bag', tmp_path / 'bag', '--out', tmp_path / 'out', '--weights', weights,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'out' / 'summary.json').is_file()


def test_the_guard_sees_a_connection():
    done = run(FETCH)
    assert done.returncode == 0, done.stderr
