"What the experiments share: a run that diverges is a result, and is never chosen."
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent/'tools'))
import runs

def run(lr): return runs.Run('points', 'arm', 2, 0, f'--data ring --loss saddle --lr {lr} --lr-ratio 1 --steps 40', 1, f'lr{lr}', 'gan')

@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    root, both = tmp_path_factory.mktemp('runs'), [run('1e12'), run('1e-3')]
    runs.train(both, root, jobs=1)
    runs.record(both, root, root)
    return root, both

def test_recorded_and_not_trained_again(trained):
    root, both = trained
    assert not runs.FAILED and runs.left(both, root) == []
    bad, good = runs.recorded('points', root)
    assert bad['metrics'] == {'diverged': 1} and bad['command'] == both[0].command
    assert 'diverged' not in good['metrics'] and 'balanced' in good['metrics']

def test_never_the_best(trained):
    root, both = trained
    assert runs.best({r.name: [r] for r in both}, lambda m: m['balanced'] - 1, root) == both[1].name
