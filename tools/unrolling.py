"""Chapter 10's experiment: does unrolling disentangle?

    python tools/unrolling.py search [--runs FOLDER] [--jobs 2] [--dry]
    python tools/unrolling.py test   [--runs FOLDER] [--jobs 2] [--dry] [--arms K=0 K=10 ...]

`search` trains every arm with each pair of learning rates, on two seeds kept for that, and writes samples/unrolled_infogan/rates.csv;
`test` trains the arms with the rates chosen there and writes samples/unrolled_infogan/digits.csv, a row for each run.
Runs are those of `disentangle sweep`: interrupted ones are resumed, finished ones are not trained again. --dry says what is left to do, and how long it takes.
"""
import argparse, csv, json, subprocess, sys
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT/'samples'/'unrolled_infogan'
STEPS = 2500
RATES = [(lr, ratio) for lr in ('5e-4', '1e-3', '2e-3') for ratio in ('1', '3')]
SEARCH_SEEDS = range(100, 102)

# arm: (its runs' prefix, options, K, CPU seconds a step as measured, seeds of the test)
ARMS = {
    **{f'K={k}': ('', '', k, s, n) for k, s, n in ((0, .012, 20), (1, .016, 10), (5, .061, 10), (7, .077, 10), (10, .111, 20))},
    'look-ahead 5': ('la-', '--lookahead', 5, .029, 10), 'look-ahead 10': ('la-', '--lookahead', 10, .048, 20),
    'extra-D 5': ('d5-', '--d-steps 5', 0, .031, 10), 'extra-D 10': ('d10-', '--d-steps 10', 0, .053, 10),
    'matched': ('long-', '--steps 23000', 0, .012*23_000/STEPS, 10),
}

def run_of(arm, lr, ratio, seed, out):
    "A run's folder, and the options of the sweep that trains it."
    prefix, options, k, *_ = ARMS[arm]
    name = f'{prefix}lr{lr}-r{ratio}'
    return out/f'{name}-k{k}-s{seed}', (name, f'{options} --lr {lr} --lr-ratio {ratio}'.strip(), k)

def done(folder): return (folder/'evaluation.json').exists()

def train(wanted, out, jobs, dry):
    "Train what is missing; `wanted` are (arm, lr, ratio, seed)."
    left = [w for w in wanted if not done(run_of(*w, out)[0])]
    hours = sum(ARMS[arm][3] for arm, *_ in left)*STEPS/3600
    print(f'{len(wanted)} runs, {len(left)} to do: about {hours:.1f} core-hours', flush=True)
    sweeps = {}
    for w in left: sweeps.setdefault(run_of(*w, out)[1], []).append(w[3])
    for (name, options, k), seeds in sweeps.items():
        if dry: continue
        command = ['sweep', 'infogan', '--data', 'digits', '--unroll', k, '--seeds', ','.join(map(str, seeds)), '--arm', f'{name}={options}', '--jobs', jobs, '--out', out]
        subprocess.run([sys.executable, '-m', 'disentangle_nb.cli', *map(str, command)], cwd=ROOT, check=True)

def evaluated(folder):
    "A run's evaluation, made again if it is older than the metrics."
    found = json.loads((folder/'evaluation.json').read_text())
    if 'category_error_train' not in found:
        subprocess.run([sys.executable, '-m', 'disentangle_nb.cli', 'evaluate', str(folder)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        found = json.loads((folder/'evaluation.json').read_text())
    last = [json.loads((folder/f'{name}.jsonl').read_text().splitlines()[-1]) for name in ('metrics', 'timings')]
    return {**{k: v for k, v in found.items() if k != 'category_match'}, **last[0], 'cpu_seconds': round(last[1]['cpu_seconds'], 1)}

def write(name, rows):
    if not rows: return print(f'no run is finished: {name} is left as it is')
    SAMPLES.mkdir(exist_ok=True)
    with (SAMPLES/name).open('w', newline='') as f:
        w = csv.DictWriter(f, list(dict.fromkeys(k for r in rows for k in r)), lineterminator='\n')
        w.writeheader(); w.writerows(rows)
    print(f'samples/unrolled_infogan/{name}: {len(rows)} rows')

def search(out, jobs, dry, arms):
    arms = [a for a in arms if a != 'matched']
    wanted = [(a, *r, s) for a in arms for r in RATES for s in SEARCH_SEEDS]
    train(wanted, out, jobs, dry)
    rows = [{'arm': a, 'lr': lr, 'lr_ratio': r, 'seed': s, 'match_train': round(1 - evaluated(f)['category_error_train'], 4)}
            for a, lr, r, s in wanted if done(f := run_of(a, lr, r, s, out)[0])]
    write('rates.csv', rows)

def chosen():
    "arm -> (lr, ratio): the best mean match on training labels."
    rows = list(csv.DictReader((SAMPLES/'rates.csv').open()))
    def score(arm, rate): return mean(float(r['match_train']) for r in rows if (r['arm'], r['lr'], r['lr_ratio']) == (arm, *rate))
    best = {}
    for arm in dict.fromkeys(r['arm'] for r in rows):
        if sum(r['arm'] == arm for r in rows) == len(RATES)*len(SEARCH_SEEDS): best[arm] = max(RATES, key=lambda rate: score(arm, rate))
    return {**best, **({'matched': best['K=0']} if 'K=0' in best else {})}

def test(out, jobs, dry, arms):
    rates = chosen()
    for a in [a for a in arms if a not in rates]: print(f'{a}: its search is not finished; left out')
    wanted = [(a, *rates[a], s) for a in arms if a in rates for s in range(ARMS[a][4])]
    train(wanted, out, jobs, dry)
    write('digits.csv', [{'arm': a, 'lr': lr, 'lr_ratio': r, 'seed': s, **evaluated(f)} for a, lr, r, s in wanted if done(f := run_of(a, lr, r, s, out)[0])])

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('what', choices=('search', 'test'))
    p.add_argument('--runs', type=Path, default=ROOT/'runs'/'unrolling', help='where runs are kept')
    p.add_argument('--jobs', type=int, default=2)
    p.add_argument('--arms', nargs='+', choices=ARMS, default=list(ARMS))
    p.add_argument('--dry', action='store_true')
    o = p.parse_args()
    {'search': search, 'test': test}[o.what](o.runs/f'{o.what}-digits', o.jobs, o.dry, o.arms)
