"""Chapter 11's experiment: does unrolling keep the modes? Ring and grid of Gaussians; its runs and numbers.

    python tools/modes.py search|test --data ring|grid [--runs runs] [--jobs 1] [--arms K=0 K=10 ...] [--missing] [--dry]

`search` trains every arm with each learning rate, on seeds kept for that; `test` trains the arms with the rates chosen there, and evaluates them ten
times on the way. Numbers go to samples/runs.json, those on the way to samples/modes/.
"""
import argparse, csv, io
from dataclasses import dataclass
from pathlib import Path

from disentangle_nb.training import read_jsonl, write_whole
from runs import ROOT, SAMPLES, Run, best, plainly, record, train

@dataclass(frozen=True)
class Arm:
    options:str       # of `disentangle train gan`
    k:int
    ms:float          # CPU milliseconds a step
    seeds:dict        # data set -> their number in the test

ARMS = {
    'K=0': Arm('', 0, 3, {'ring': 10, 'grid': 3}),
    'K=5': Arm('', 5, 8, {'ring': 10}),
    'K=10': Arm('', 10, 13, {'ring': 10, 'grid': 3}),
    'look-ahead 10': Arm('--lookahead', 10, 9, {'ring': 10}),
}
STEPS, RATES, SEARCH_SEEDS = 25_000, ('1e-4', '3e-4', '1e-3'), (100, 101)

def run(data, arm, rate, seed, search=False):
    "One run: learning rates fall to 0 over the second half, in every arm."
    a = ARMS[arm]
    options = f'--data {data} {a.options} --lr {rate} --decay {STEPS} --compile --checkpoint-every 1000 --evaluate-every {STEPS//10}'
    name = f'{arm.replace("=", "").replace(" ", "-").lower()}-lr{rate}-s{seed}'
    return Run(f'modes-{data}' + '-rates'*search, arm, a.k, seed, ' '.join(options.split()), a.ms*STEPS/1000 + 25, name, 'gan')

def arms_of(data, arms=ARMS): return [a for a in arms if data in ARMS[a].seeds]

def search_runs(data, arms=ARMS): return [run(data, a, rate, seed, True) for a in arms_of(data, arms) for rate in RATES for seed in SEARCH_SEEDS]

def chosen(data, samples=SAMPLES):
    "arm -> the learning rate with the most modes, then the most high-quality samples, if its search is complete."
    rates = {a: best({rate: [run(data, a, rate, s, True) for s in SEARCH_SEEDS] for rate in RATES}, lambda m: m['modes'] + m['high_quality'], samples) for a in arms_of(data)}
    return {a: r for a, r in rates.items() if r}

def test_runs(data, arms=ARMS, samples=SAMPLES):
    rates = chosen(data, samples)
    return [run(data, a, rates[a], seed) for a in arms_of(data, arms) if a in rates for seed in range(ARMS[a].seeds[data])]

def write_curves(runs, root, path):
    "Modes and high-quality samples on the way, a row for each evaluation; of runs whose folder is gone, what the table has."
    old, text = list(csv.DictReader(path.open())) if path.exists() else [], io.StringIO()
    w = csv.DictWriter(text, ('arm', 'seed', 'step', 'modes', 'high_quality'), lineterminator='\n')
    w.writeheader()
    for r in runs:
        rows = [{'arm': r.arm, 'seed': r.seed, **row} for row in read_jsonl(r.folder(root)/'evaluations.jsonl')]
        w.writerows(rows or [row for row in old if (row['arm'], row['seed']) == (r.arm, str(r.seed))])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda p: p.write_text(text.getvalue()))

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('what', choices=('search', 'test'))
    p.add_argument('--data', choices=('ring', 'grid'), default='ring')
    p.add_argument('--runs', type=Path, default=ROOT/'runs', help='where runs are kept')
    p.add_argument('--jobs', type=int, default=1)
    p.add_argument('--arms', nargs='+', choices=ARMS, default=list(ARMS))
    p.add_argument('--missing', action='store_true', help='train only what runs.json lacks')
    p.add_argument('--dry', action='store_true')
    o = p.parse_args()
    with plainly():
        runs = search_runs if o.what == 'search' else test_runs
        if not runs(o.data, o.arms): raise SystemExit('error: the search of these arms is not complete; run it first: python tools/modes.py search')
        train(runs(o.data, o.arms), o.runs, o.jobs, o.dry, o.missing)
        if not o.dry:
            record(runs(o.data), o.runs)
            if o.what == 'test': write_curves(runs(o.data), o.runs, SAMPLES/'modes'/f'{o.data}.csv')
