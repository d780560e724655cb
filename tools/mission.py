"""The mission's first table on MNIST: Unrolled InfoGAN at K = 0, 5, 7, 10 by the held-out game, beside the original algorithm.

    python tools/mission.py search|original|test [--arms NAME ...] [--runs runs] [--jobs 1] [--missing] [--dry]

`search` tries settings on seeds kept for that, `original` runs the original algorithm and its controls, `test` the arms of the
table. Numbers go to samples/runs.json.
"""
import argparse, sys
from pathlib import Path

from runs import ROOT, Run, plainly, record, train

MNIST = '--data mnist --threads 1'
CONSISTENT = '--consistency 1 --stretch .25'
ORIGINAL = ('--game original --spread --loss nonsaturating --lr 2e-4 --lr-ratio 5 --q-ratio 5 --cont-weight .1 '
            '--width 32 --d-width 32 --steps 18760')
KS = (0, 5, 7, 10)
SECONDS = {0: .12, 5: .62, 7: .82, 10: 1.14}       # of CPU a step, on a core without AVX-512

def named(text): return text.lower().replace('=', '').replace(',', '').replace('.', '').replace(' ', '-')

def run(experiment, arm, k, seed, options, steps, seconds=None):
    "One run; `seconds` of CPU a step."
    cost = (SECONDS[k] if seconds is None else seconds)*steps
    return Run(experiment, arm, k, seed, f'{MNIST} {options}'.strip(), cost, f'{named(arm)}-s{seed}')

SEARCHED = {      # arm -> (K, options); seeds 103 and 104, 4,000 steps
    'K=0': (0, CONSISTENT),
    'K=10': (10, CONSISTENT),
    'K=10, all of the rate': (10, f'{CONSISTENT} --unroll-ratio 1'),
    'K=10, nonsaturating': (10, f'{CONSISTENT} --loss nonsaturating'),
    'K=10, saddle': (10, f'{CONSISTENT} --loss saddle'),
    'K=0, head alone consistent': (0, f'{CONSISTENT} --consistent-head'),
    'K=0, information in the trunk': (0, f'{CONSISTENT} --info-in-trunk'),
    'K=0, simultaneous': (0, f'{CONSISTENT} --simultaneous'),
    'K=0, unstretched': (0, '--consistency 1'),
    'K=0, published Q': (0, ''),
}

def search_runs():
    return [run('mission-search', arm, k, seed, options, 4000) for arm, (k, options) in SEARCHED.items() for seed in (103, 104)]

def original_runs():
    "The original algorithm (three seeds of K = 0 and 10, one of 5 and 7), and the code of K > 0 with K = 0."
    seconds, seeds = {0: .15, 5: .6, 7: .75, 10: 1.}, {0: 3, 5: 1, 7: 1, 10: 3}
    def one(arm, k, seed, step): return run('original', arm, k, seed, f'{ORIGINAL} --info-step {step}', 18_760, seconds[k])
    arms = [one(f'original, K={k}', k, s, 'separate' if k else 'added') for k in KS for s in range(seeds[k])]
    return arms + [one('original, K=0, separate', 0, s, 'separate') for s in range(3)]

def test_runs(steps=3000):
    "Both kinds of Q at every K, six seeds; the look-ahead, three."
    kinds = {'': CONSISTENT, ', published Q': ''}
    arms = [run('mission', f'K={k}{name}', k, s, f'{options} --steps {steps}', steps) for name, options in kinds.items() for k in KS for s in range(6)]
    return arms + [run('mission', f'look-ahead {k}', k, s, f'{CONSISTENT} --lookahead --steps {steps}', steps, .15 + .035*k) for k in (5, 10) for s in range(3)]

RUNS = {'search': search_runs, 'original': original_runs, 'test': test_runs}

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('what', choices=RUNS)
    p.add_argument('--arms', nargs='+', help='only these')
    p.add_argument('--runs', type=Path, default=ROOT/'runs', help='where runs are kept')
    p.add_argument('--jobs', type=int, default=1, help='runs at a time')
    p.add_argument('--missing', action='store_true', help='train only what runs.json lacks')
    p.add_argument('--dry', action='store_true', help='only say what is left to do')
    o = p.parse_args()
    runs = [r for r in RUNS[o.what]() if not o.arms or r.arm in o.arms]
    if not runs: sys.exit('error: there are no such arms: ' + ', '.join(dict.fromkeys(r.arm for r in RUNS[o.what]())))
    with plainly():
        train(runs, o.runs, o.jobs, o.dry, o.missing)
        if not o.dry: record(runs, o.runs)
