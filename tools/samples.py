"""Train the models that the pages show, and gather their numbers in samples/runs.json.

    python tools/samples.py [--runs runs] [--jobs 1] [--dry]
    python tools/samples.py --quick           a small version of everything, into runs/quick/, in under ten minutes

Runs are resumed if they were interrupted; finished ones are not trained again. --dry says what is left to do, and how long it takes.
"""
import argparse, time
from pathlib import Path

import faces, modes, unrolling
from runs import ROOT, SAMPLES, Run, keep, plainly, record, train

DIGITS = [Run('digits', f'unroll {k}', k, s, '--data digits --game one-batch --loss nonsaturating --lr 1e-3 --lr-ratio 1 --cont-weight .1', (36, 178)[k > 0], f'k{k}-s{s}') for k in (0, 5) for s in range(5)]

def digits(root, jobs, dry):
    "The models of `make demo`, five seeds of each K."
    train(DIGITS, root, jobs, dry)
    if dry: return
    record(DIGITS, root)
    shown = next(r for r in DIGITS if (r.k, r.seed) == (5, 0))
    keep(shown, root, SAMPLES/'digits'/shown.name)

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--runs', type=Path, default=ROOT/'runs', help='where runs are kept')
    p.add_argument('--jobs', type=int, default=1, help='runs at a time, each on its share of the cores')
    p.add_argument('--dry', action='store_true', help='only say what is left to do')
    p.add_argument('--quick', action='store_true', help='a small version of everything')
    o, start = p.parse_args(), time.time()
    with plainly():
        if o.quick:
            unrolling.quick(o.runs/'quick', o.jobs)
            print(f'{time.time() - start:.0f} s: the figures are in {o.runs}/quick')
        else:
            digits(o.runs, o.jobs, o.dry)
            unrolling.everything(o.runs, o.jobs, o.dry)
            faces.everything(o.runs, o.jobs, o.dry)
            modes.everything(o.runs, o.jobs, o.dry)
