"What the experiments share: a run that diverges is a result, and is never chosen; and what goes into a second round of the search."
import sys
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent/'tools'))
import faces, modes, runs

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

def test_second_round(monkeypatch):
    "The best of either loss, what is near it, and the next smaller rate, as long as the test; and on while the smallest is best."
    found = {('1e-3', '1', 'saddle'): .5, ('3e-3', '1', 'saddle'): .505, ('1e-2', '1', 'saddle'): .48, ('1e-3', '1', 'nonsaturating'): .1, ('3e-3', '1', 'nonsaturating'): -inf}
    later = {}                                                  # what the second round has measured
    def scores(candidates, *_):
        if '-second' not in next(iter(candidates.values()))[0].experiment: return found
        return {how: later[how] for how in candidates} if candidates.keys() <= later.keys() else None
    for module in (modes, runs): monkeypatch.setattr(module, 'scores', scores)
    first = {('1e-3', '1', 'saddle'), ('3e-3', '1', 'saddle'), ('3e-4', '1', 'saddle'), ('1e-3', '1', 'nonsaturating'), ('3e-4', '1', 'nonsaturating')}
    again = modes.second('ring', 'K=5')
    assert set(again) == first
    for how, (r,) in again.items(): assert r.command == modes.run('ring', 'K=5', how, 100).command and '--steps 50000 --decay 52632' in r.command
    later |= {('1e-3', '1', 'saddle'): .6, ('3e-3', '1', 'saddle'): .5, ('3e-4', '1', 'saddle'): .5, ('1e-3', '1', 'nonsaturating'): .1, ('3e-4', '1', 'nonsaturating'): .7}
    assert set(modes.second('ring', 'K=5')) == first | {('1e-4', '1', 'nonsaturating')}
    later[('1e-4', '1', 'nonsaturating')] = .65
    assert set(modes.second('ring', 'K=5')) == first | {('1e-4', '1', 'nonsaturating')}
    found[('1e-3', '1', 'nonsaturating')] = -inf
    assert {loss for *_, loss in modes.second('ring', 'K=5')} == {'saddle'}
    monkeypatch.setattr(modes, 'scores', lambda *_: None)
    assert modes.second('ring', 'K=5') == {}

def test_curves_stay(trained, monkeypatch, tmp_path):
    "Those of recorded arms that are not asked for stay; those of arms that are no longer recorded go."
    root, (bad, good) = trained
    path, head = tmp_path/'curves.csv', ','.join(modes.CURVES)
    path.write_text(f'{head}\n' + ''.join(f'{arm},0,10,1,.5,.5,\n' for arm in ('elsewhere', 'dropped', 'arm')))
    monkeypatch.setattr(modes, 'recorded', lambda *_: [{'command': 'x', 'arm': 'elsewhere'}])
    modes.write_curves([good], root, path)
    assert path.read_text().splitlines() == [head, 'elsewhere,0,10,1,.5,.5,']

def test_picture_of_all_arms_or_none(trained, monkeypatch, tmp_path):
    "A picture is drawn of runs that did not diverge; one that would lack a recorded arm of its own does not take the place of a whole one."
    root, (bad, good) = trained
    gone = replace(good, arm='gone', name='nowhere')
    for shown, arms, drawn in (([bad, good, gone], ('arm', 'gone'), False), ([bad, good, gone], ('arm', 'of another picture'), True), ([bad, good], ('arm', 'gone'), True)):
        path = tmp_path/f'{len(list(tmp_path.iterdir()))}.png'
        monkeypatch.setattr(modes, 'recorded', lambda *_: [{'arm': a} for a in arms])
        modes.draw_samples(shown, root, path)
        assert path.exists() == drawn
    for data in modes.SETTINGS:
        assert sorted(a for shown in modes.pictures(data).values() for a in shown) == sorted(modes.arms_of(data))

def test_seconds_of_a_slower_processor():
    "are brought to the faster one's by the arms that ran on both, there or once more; other experiments keep theirs."
    e = lambda arm, seconds, cpu=None, experiment='ring': {'experiment': experiment, 'arm': arm, 'cpu_seconds': seconds, **({'cpu': cpu} if cpu else {})}
    found = [e('both', 10), e('both', 14, 'AVX512'), e('both', 30, 'AVX2'), e('slow', 60, 'AVX2'), e('fast', 7), e('both', 99, 'AVX2', 'grid'), e('fast', 24.5, 'AVX2', 'ring-again'), e('fast, longer', 49, 'AVX2')]
    assert runs.at_one_speed(found, 'ring') == 'The CPU seconds of runs on a slower processor (all of slow and fast, longer; some of both) are divided by how many times as long they took there: both 2.5, fast 3.5; other arms by the mean, 3.0.'
    assert [r['cpu_seconds'] for r in found] == [10, 14, 12, 20, 7, 99, 24.5, 14]
    for none in (found[4:7], found[:2], found[3:4]): assert runs.at_one_speed(none, 'ring') == ''          # nothing slow; nothing to go by

def test_grid_takes_the_loss_of_the_ring(monkeypatch):
    "and searches rates of its own, as long as the test and with its schedule; nothing before the ring's search is complete."
    theirs = {'packing': ('3e-4', '1', 'nonsaturating'), 'K=0': ('3e-3', '1', 'saddle')}
    monkeypatch.setattr(modes, 'chosen', lambda data, samples=None, arms=(): {a: theirs[a] for a in arms if a in theirs})
    for arm, (*_, loss) in theirs.items():
        found = modes.searched('grid', arm)
        assert {how[2] for how in found} == {loss} and len({how[0] for how in found}) == 3 + len(modes.FURTHER.get(('grid', arm), ()))
        for how, (r,) in found.items(): assert r.command == modes.run('grid', arm, how, 100).command.replace(' --evaluate-every 5000', '')
    assert modes.searched('grid', 'K=10') == {}

def test_norm_on_images():
    "Every arm is offered batch norm and none; one whose options name a norm has that, once; a quarter takes a half's choice."
    for arm in modes.arms_of('stacked-half'):
        a = modes.ARMS[arm]
        if not a.searches: continue
        commands = [r.command for (r,) in modes.searched('stacked-half', arm).values()]
        own = '--norm' in a.options
        assert len(set(commands)) == len(commands) == (2 if own else 4) and all(c.count('--norm') == 1 for c in commands)
        assert own or sum('--norm none' in c for c in commands) == 2
    for (how, r) in ((how, modes.run('stacked-quarter', 'K=10', how, 0)) for how in modes.SETTINGS['stacked-half'].how):
        assert f'--norm {how[3]}' in r.command and '--d-width 4' in r.command
    assert '--norm' not in modes.run('ring', 'K=10', ('1e-3', '1', 'saddle'), 0).command

def test_what_a_row_changes(monkeypatch):
    "Of two codes that are seen through two thresholds, the first one crosses its own, and the other's in one face of six."
    from disentangle_nb.data import Dataset
    from disentangle_nb.vaeinfogan import VAEInfoGAN, VAEInfoGANConfig
    class Codes(VAEInfoGAN):
        def infer(self, x): return {'z': torch.zeros(len(x), 1), 'c_cont1': torch.zeros(len(x)), 'c_cont2': x[:, 0, 0, 0]}
        def generate(self, latent): return torch.stack([latent['c_cont1'], latent['c_cont1'] + 5*latent['c_cont2']], 1)
    def judge(x): return torch.stack([0*x[:, 0], x[:, 0], 0*x[:, 1], x[:, 1] - 2], 1)      # logits of two factors with two values
    monkeypatch.setattr(faces, 'judge', lambda size, root: (judge, None))
    x = torch.zeros(6, 1, 8, 8); x[3:] = -1; x[5] = .3
    held = Dataset('faces', x, factors=torch.zeros(6, 2).long(), factor_names=('a', 'b'), factor_sizes=(2, 2))
    model = Codes(VAEInfoGANConfig(shape=(1, 8, 8), noise=1, conts=2, width=8, d_width=8, e_width=8))
    found = faces.moved(model, held, ['c_cont1', 'c_cont2'], None, n=6)
    assert found == {'c_cont1': {'a': 1, 'b': pytest.approx(1/6)}, 'c_cont2': {'a': 0, 'b': 1}}
