"""Files that mean harm: no code runs, nothing outside is read or written, nothing huge is made."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from mdnet_ros.bags.messages import BagTopics
from mdnet_ros.bags.reader import BagReader
from mdnet_ros.bags.writer import BagWriter
from mdnet_ros.errors import DataError, ImageError, MDNetError, WeightsError
from mdnet_ros.features.network import MDNet, MDNetConfig
from mdnet_ros.features.weights import load_weights, save_weights
from mdnet_ros.nodes.host import resident_memory
from mdnet_ros.training.checkpoint import load_checkpoint
from mdnet_ros.training.config import load_config
from mdnet_ros.training.images import read_images


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (open, (str(self.path), 'w'))


def test_a_checkpoint_runs_no_code(tmp_path):
    trap = tmp_path / 'trap'
    for name, content in (
        ('plain', pickle.dumps({'step': Touch(trap)})), ('torch', None),
    ):
        path = tmp_path / name
        if content is None:
            torch.save({'step': Touch(trap)}, path)
        else:
            path.write_bytes(content)
        with pytest.raises(WeightsError, match='cannot be loaded'):
            load_checkpoint(path)
        assert not trap.exists()
    pickle.loads((tmp_path / 'plain').read_bytes())['step'].close()
    assert trap.exists()  # it would have


def safetensors_file(header: bytes, length: int | None = None, body: bytes = b'') -> bytes:
    return struct.pack('<Q', len(header) if length is None else length) + header + body


def header_of(**changes) -> bytes:
    config = json.dumps(MDNetConfig(dim=8, channels=(4, 4, 4, 4, 4)).to_dict())
    metadata = {'format': 'mdnet_ros/1', 'config': config, 'training': '{}'}
    metadata |= changes.pop('metadata', {})
    return json.dumps({'__metadata__': metadata, **changes}).encode()


ABSURD = {
    'header longer than the file': safetensors_file(b'{}', 2**62),
    'header of gigabytes': safetensors_file(b'{}', 2**33),
    'tensor of terabytes': safetensors_file(
        header_of(x={'dtype': 'F32', 'shape': [2**40], 'data_offsets': [0, 2**42]})),
    'shape that overflows': safetensors_file(
        header_of(x={'dtype': 'F32', 'shape': [2**40, 2**40], 'data_offsets': [0, 16]}),
        body=bytes(16)),
    'tensors that overlap': safetensors_file(
        header_of(x={'dtype': 'F32', 'shape': [4], 'data_offsets': [0, 16]},
                  y={'dtype': 'F32', 'shape': [4], 'data_offsets': [0, 16]}), body=bytes(16)),
    'offsets before the beginning': safetensors_file(
        header_of(x={'dtype': 'F32', 'shape': [4], 'data_offsets': [-16, 0]}), body=bytes(16)),
    'deep configuration': safetensors_file(
        header_of(metadata={'config': '[' * 100000 + ']' * 100000})),
    'enormous network': safetensors_file(
        header_of(metadata={'config': json.dumps(
            {'num_sets': 8, 'dim': 10**9, 'channels': [10**9] * 4})})),
    'number without end': safetensors_file(
        header_of(metadata={'config': '{"num_sets": ' + '9' * 5000 + '}'})),
}  # fmt: skip


@pytest.mark.parametrize('name', ABSURD)
def test_absurd_weights_are_refused_and_cost_nothing(name, tmp_path):
    path = tmp_path / 'absurd.safetensors'
    path.write_bytes(ABSURD[name])
    before = resident_memory()
    with pytest.raises(WeightsError, match='not a valid weights file') as caught:
        load_weights(path)
    assert '\n' not in str(caught.value)
    assert resident_memory() < before + 200e6


def test_a_bag_cannot_name_files_outside_its_folder(tmp_path):
    with BagWriter(tmp_path / 'secret') as writer:
        BagTopics(writer).image('/secret', 1, 'camera', np.zeros((32, 32), np.uint8))
    with BagWriter(tmp_path / 'bag') as writer:
        BagTopics(writer).image('/open', 1, 'camera', np.zeros((32, 32), np.uint8))
    file = tmp_path / 'bag' / 'metadata.yaml'
    metadata = yaml.safe_load(file.read_text())
    information = metadata['rosbag2_bagfile_information']
    for outside in ('../secret/secret.db3', str(tmp_path / 'secret' / 'secret.db3')):
        assert (tmp_path / 'bag' / outside).exists()
        information['relative_file_paths'] = [outside]
        file.write_text(yaml.safe_dump(metadata))
        with BagReader(tmp_path / 'bag') as bag:  # what lies in its own folder is read instead
            assert [message.topic for message in bag.raw()] == ['/open']
    information['relative_file_paths'] = ['../secret/bag.db3']  # its own, by whatever path
    file.write_text(yaml.safe_dump(metadata))
    with BagReader(tmp_path / 'bag') as bag:
        assert list(bag.topics) == ['/open']


def test_a_tar_pack_is_read_in_memory(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (120, 160), np.uint8)
    content = cv2.imencode('.png', picture)[1].tobytes()
    (tmp_path / 'outside.png').write_bytes(content)
    pack = tmp_path / 'deep' / 'photos.tar'
    pack.parent.mkdir()
    with tarfile.open(pack, 'w') as tar:
        for name in ('../../escaped.png', '/tmp/escaped_absolutely.png', 'good.png'):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo('link.png')
        link.type, link.linkname = tarfile.SYMTYPE, '../outside.png'
        tar.addfile(link)
    names = [image.name for image in read_images(pack)]
    assert names == ['../../escaped.png', '/tmp/escaped_absolutely.png', 'good.png']
    assert not (tmp_path.parent / 'escaped.png').exists()
    assert not Path('/tmp/escaped_absolutely.png').exists()
    assert sorted(p.name for p in tmp_path.rglob('*.png')) == ['outside.png']


def test_a_tar_pack_cannot_fill_the_memory(tmp_path, monkeypatch):
    content = cv2.imencode('.png', np.zeros((120, 160), np.uint8))[1].tobytes()
    with tarfile.open(tmp_path / 'photos.tar', 'w') as tar:
        for name, padding in (('small.png', 0), ('large.png', 1000)):
            member = tarfile.TarInfo(name)
            member.size = len(content) + padding
            tar.addfile(member, io.BytesIO(content + bytes(padding)))
    monkeypatch.setattr('mdnet_ros.training.images.LARGEST_FILE', len(content))
    assert [image.name for image in read_images(tmp_path / 'photos.tar')] == ['small.png']


@pytest.mark.parametrize(
    'text',
    ['!!python/object/apply:os.system ["true"]', 'steps: !!python/name:os.system', '[' * 5000],
    ids=['call', 'name', 'deep'],
)
def test_configuration_is_data(text, tmp_path):
    path = tmp_path / 'training.yaml'
    path.write_text(text)
    with pytest.raises(DataError):
        load_config(path, {})


def test_errors_are_one_printable_line():
    error = ImageError("encoding 'a\nFATAL forged\x1b[2J\r\x00\u2028\u202e': " + 'x' * 10**6)
    text = str(error)
    assert text.isprintable()
    assert text.startswith("encoding 'a FATAL forged [2J")
    assert len(text) < 2100
    assert str(MDNetError('ünïcode “stays”')) == 'ünïcode “stays”'


def test_saved_weights_still_load(tmp_path):
    """The traps above differ from this by what they say alone."""
    path = tmp_path / 'good.safetensors'
    save_weights(MDNet(MDNetConfig(dim=8, channels=(4, 4, 4, 4, 4))), path, {})
    assert load_weights(path)[1].config.dim == 8
