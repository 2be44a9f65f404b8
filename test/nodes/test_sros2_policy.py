"""The policy for SROS2 allows the tracker what it has, and no more."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

POLICY = Path(__file__).resolve().parents[2] / 'config' / 'sros2_policy.xml'
#: Allowed though a node that takes raw images by the system's clock has no use for it.
SOMETIMES = {'/clock', '/cam/image/compressed'}
#: Of newer distributions.
NEWER = {'/cam/tracker/get_type_description'}


def allowed(kind, action):
    """Names of a kind that the tracker's profile allows an action on, in the namespace /cam."""
    enclaves = ElementTree.parse(POLICY).getroot().find('enclaves')
    (enclave,) = (e for e in enclaves if e.get('path') == '/mdnet/tracker')
    (profile,) = enclave.iter('profile')
    assert (profile.get('ns'), profile.get('node')) == ('/', 'tracker')
    names = [
        name.text for group in profile.findall(f'{kind}s') if group.get(action) == 'ALLOW'
        for name in group.findall(kind)
    ]
    assert len(names) == len(set(names))
    return {
        name if name.startswith('/') else f'/cam/{name.replace("~", "tracker")}' for name in names
    }


@pytest.fixture(scope='module')
def graph(shared_tracker, connect):
    node = connect().connect().node
    return {
        ('topic', 'publish'): node.get_publisher_names_and_types_by_node('tracker', '/cam'),
        ('topic', 'subscribe'): node.get_subscriber_names_and_types_by_node('tracker', '/cam'),
        ('service', 'reply'): node.get_service_names_and_types_by_node('tracker', '/cam'),
    }


@pytest.mark.parametrize(
    'what', [('topic', 'publish'), ('topic', 'subscribe'), ('service', 'reply')], ids=lambda w: w[1]
)
def test_the_policy_is_what_the_node_has(graph, what):
    had = {name for name, _ in graph[what]}
    assert had - allowed(*what) == set()
    assert allowed(*what) - had - SOMETIMES - NEWER == set()


def test_only_the_operator_may_request():
    enclaves = ElementTree.parse(POLICY).getroot().find('enclaves')
    for enclave in enclaves:
        requests = [s for s in enclave.iter('services') if s.get('request') == 'ALLOW']
        assert bool(requests) == (enclave.get('path') == '/mdnet/operator')
