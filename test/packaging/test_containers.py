"""What can be said of containers and CI without running them."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = sorted((ROOT / 'docker').glob('Dockerfile.*'))
DISTRIBUTIONS = ['humble', 'jazzy', 'kilted', 'rolling']


def declared(launch_file: str) -> set[str]:
    arguments = runpy.run_path(str(ROOT / 'docs' / 'launch_page.py'))['declared_arguments']
    return {name for name, _, _ in arguments(ROOT / 'launch' / launch_file)}


@pytest.mark.parametrize('path', DOCKERFILES, ids=lambda path: path.suffix[1:])
def test_dockerfiles_copy_what_is_there_and_start_what_is_declared(path: Path) -> None:
    text = re.sub(r'\\\n', ' ', path.read_text())
    lines = [line.split(None, 1) for line in text.splitlines() if line and line[0] != '#']
    steps = [(word, rest) for word, rest in lines]
    assert steps[0][0] in ('ARG', 'FROM')
    assert {word for word, _ in steps} <= {
        'ARG', 'FROM', 'RUN', 'ENV', 'COPY', 'WORKDIR', 'ENTRYPOINT', 'CMD'
    }
    for word, rest in steps:
        if word == 'COPY':
            *sources, _ = shlex.split(rest)
            for source in sources:
                assert (ROOT / source).exists(), source
    (command,) = [yaml.safe_load(rest) for word, rest in steps if word == 'CMD']
    assert command[:3] == ['ros2', 'launch', 'mdnet_ros']
    assert (ROOT / 'launch' / command[3]).is_file()
    used = set(re.findall(r'\$\{?(\w+)', text)) - {'setup', 'PATH'}
    named = set(re.findall(r'^(?:ARG|ENV)\s+(\w+)', text, re.MULTILINE))
    assert used <= named


def test_compose_starts_the_tracker_with_arguments_it_knows() -> None:
    compose = yaml.safe_load((ROOT / 'docker' / 'compose.yaml').read_text())
    services = compose['services']
    assert set(services) == {'tracker', 'player'}
    build = services['tracker']['build']
    assert ((ROOT / 'docker' / build['context']).resolve() / build['dockerfile']).is_file()
    file, *arguments = services['tracker']['command'][3:]
    assert {argument.split(':=')[0] for argument in arguments} <= declared(file)
    for variable in re.findall(r'\$\{(\w+)', (ROOT / 'docker' / 'compose.yaml').read_text()):
        assert f'`{variable}`' in (ROOT / 'docs' / 'installation.md').read_text()


def test_ci_covers_the_distributions_and_pythons() -> None:
    workflow = ROOT / '.github' / 'workflows' / 'ci.yml'
    if not workflow.is_file():
        pytest.skip('a source distribution has no workflow')
    jobs = yaml.safe_load(workflow.read_text())['jobs']
    assert jobs['ros']['strategy']['matrix']['distribution'] == DISTRIBUTIONS
    assert jobs['wheels']['strategy']['matrix']['python'] == ['3.10', '3.11', '3.12', '3.13']
    makefile = (ROOT / 'Makefile').read_text()
    for job in jobs.values():
        for step in job['steps']:
            assert {'uses', 'run'} & set(step)
            for target in re.findall(r'^make ([\w]+)', step.get('run', '')):
                assert re.search(rf'^{target}:', makefile, re.MULTILINE)
            for file in re.findall(r'-f (\S+)', step.get('run', '')):
                assert (ROOT / file).is_file()
