"""Chapter 11's experiment: does unrolling keep the modes, and what else does? Rings and grids of Gaussians, and stacked MNIST; its runs, numbers and figure.

    python tools/modes.py search|second|test --data ring|grid|stacked-half|stacked-quarter [--arms K=0 K=10 ...] [--runs runs] [--jobs 1] [--missing] [--dry]
    python tools/modes.py again --data ring|stacked-half [--runs runs] [--jobs 1] [--dry]
    python tools/modes.py steps|time|floors [--runs runs] [--jobs 1] [--dry]

`search` trains every arm with each pair of learning rates and either loss, on images either norm, on a seed kept for that, and `second`, on the ring, what did best there
and smaller rates for as long as the test does (the grid takes the ring's loss and has a search of rates, a quarter takes all from a half); `steps` asks on that seed whether K = 10
on the ring is better off with rates that stay or fall less, or with twice the steps; `test` trains the arms with what was chosen, and evaluates them
on the way, with a picture of what seed 0 makes; `again` trains K = 0 once more, which on another machine is another training; `time` trains seed 0 of some arms on the ring once more, and draws its samples through time; `floors` says what the measures of stacked MNIST are worth. Numbers go to samples/runs.json, those on the
way and pictures to samples/modes/.
"""
import argparse, csv, io, json, shlex
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from disentangle_nb.cli import cpu_threads, evaluate_images, parser, plan
from disentangle_nb.data import load_data
from disentangle_nb.explore import draw, save_figure
from disentangle_nb.training import fit, load, model_class, read_jsonl, write_whole
from runs import ROOT, SAMPLES, Run, best, left, plainly, record, recorded, scores, short, train

@dataclass(frozen=True)
class Arm:
    options:str       # of `disentangle train gan`
    k:int
    ms:tuple          # CPU milliseconds a step: of points, of stacked MNIST with the larger D, with the smaller
    seeds:dict        # data -> their number in the test
    like:str=''       # the arm whose rates and loss it takes, if it has no search of its own
    longer:dict=None  # data -> times the steps of the others
    how:dict=None     # data -> its rates and loss, if they are given

    searches = property(lambda self: not self.like and not self.how)

ARMS = {
    'K=0': Arm('', 0, (4, 24, 20), {'ring': 10, 'grid': 3, 'stacked-half': 3, 'stacked-quarter': 3}),
    'K=1': Arm('', 1, (5, 31, 25), {'stacked-half': 3, 'stacked-quarter': 3}),
    'K=5': Arm('', 5, (10, 130, 100), {'ring': 10, 'stacked-half': 3, 'stacked-quarter': 3}),
    'K=10': Arm('', 10, (16, 250, 185), {'ring': 10, 'grid': 3, 'stacked-half': 3, 'stacked-quarter': 3}),
    'K=0, short search': Arm('', 0, (4, 21, 17), {'ring': 3}, how={'ring': ('1e-2', '1', 'saddle')}),
    'K=0, first choice': Arm('', 0, (4, 21, 17), {'ring': 10}, how={'ring': ('3e-3', '1', 'nonsaturating')}),
    'K=10, first choice': Arm('', 10, (16, 205, 150), {'ring': 10}, how={'ring': ('3e-3', '1', 'saddle')}),
    'look-ahead 10': Arm('--lookahead', 10, (9, 80, 60), {'ring': 10}),
    'K=0, longer': Arm('', 0, (4, 24, 20), {'ring': 6, 'stacked-half': 3, 'stacked-quarter': 3}, 'K=0', {'ring': 4, 'stacked-half': 10, 'stacked-quarter': 10}),
    'packing': Arm('--pack 2', 0, (4, 21, 17), {'ring': 10, 'grid': 3, 'stacked-half': 3}),
    'packing, longer': Arm('--pack 2', 0, (4, 21, 17), {'grid': 3}, 'packing', {'grid': 4}),
    'packing, K=10': Arm('--pack 2', 10, (17, 205, 150), {'ring': 10}, 'packing'),
    'gradient penalty': Arm('--norm none --penalty 10', 0, (5, 35, 30), {'ring': 5, 'stacked-half': 3}),
    'spectral norm': Arm('--norm spectral', 0, (5, 25, 20), {'stacked-half': 3}),
}

@dataclass(frozen=True)
class Setting:
    options:str       # of every run
    steps:int
    search_steps:int  # 0 without a search
    how:tuple         # (Adam's rate of D, G's as a multiple of it, loss; of images D's norm) that are searched; in the place of the loss, or of all, the data whose choice is taken
    column:int        # of `Arm.ms`

SEARCH_SEED = 100
def either(*rates): return tuple((rate, '1', loss) for rate in rates for loss in ('saddle', 'nonsaturating'))
FURTHER = {('ring', 'K=0'): either('3e-2'), ('ring', 'look-ahead 10'): either('1e-4'), ('grid', 'K=0'): (('1e-2', '1', 'ring'),), ('grid', 'K=10'): (('1e-2', '1', 'ring'),)}       # (data, arm) -> what is searched besides, because the best so far was the first or the last
SETTINGS = {
    'ring': Setting('--data ring --compile --checkpoint-every 1000', 50_000, 15_000, either('3e-4', '1e-3', '3e-3', '1e-2'), 0),
    'grid': Setting('--data grid --compile --checkpoint-every 1000', 50_000, 50_000, tuple((rate, '1', 'ring') for rate in ('3e-4', '1e-3', '3e-3')), 0),
    'stacked-half': Setting('--data stacked_mnist --width 16 --d-width 8 --threads 1', 5000, 3000, tuple((*rates, 'nonsaturating', norm) for norm in ('batch', 'none') for rates in (('5e-4', '3'), ('1e-3', '1'))), 1),
    'stacked-quarter': Setting('--data stacked_mnist --width 16 --d-width 4 --threads 1', 5000, 0, 'stacked-half', 2),
}

def decay(steps):
    "For `--decay`: learning rates fall over the second half, to a tenth, so that unrolled steps stay long enough to look ahead (see `steps_runs`)."
    return round(steps/.95)

def run(data, arm, how, seed, search=False):
    "One run. In a search that is shorter than the test rates fall to 0."
    a, s, (lr, ratio, loss, *norm) = ARMS[arm], SETTINGS[data], how
    steps = s.search_steps if search else s.steps*(a.longer or {}).get(data, 1)
    norms = f'--norm {norm[0]}' if norm and '--norm' not in a.options else ''
    options = f'{s.options} {norms} {a.options} --loss {loss} --lr {lr} --lr-ratio {ratio} --steps {steps} --decay {steps if steps < s.steps else decay(steps)}' + f' --evaluate-every {steps//(5 if "stacked" in data else 10)}'*(not search)
    name = f'{arm.replace("=", "").replace(", ", "-").replace(" ", "-").lower()}-{loss}-lr{lr}-r{ratio}{"-no-norm"*("--norm none" in norms)}-s{seed}'
    return Run(f'modes-{data}' + '-rates'*search, arm, a.k, seed, ' '.join(options.split()), a.ms[s.column]*steps/1000 + (60, 60 if search else 150)['stacked' in data], name, 'gan')

def arms_of(data, arms=ARMS): return [a for a in arms if data in ARMS[a].seeds]

def searched(data, arm):
    """Rates, loss and norm -> the run of the search, of an arm. One whose options name a norm has no choice there. Nothing before the data whose loss
    is taken has a choice."""
    own, hows = '--norm' in ARMS[arm].options, (*SETTINGS[data].how, *FURTHER.get((data, arm), ()))
    if (other := hows[0][2]) in SETTINGS:
        if not (theirs := chosen(other, arms=[arm])): return {}
        hows = [(rate, ratio, theirs[arm][2]) for rate, ratio, _ in hows]
    return {how: [run(data, arm, how, SEARCH_SEED, True)] for how in hows if not own or how[3:] != ('none',)}

SECOND, NEAR = 'ring', .01      # the data with a second round of the search; what counts as near the best
LADDER = ('3e-2', '1e-2', '3e-3', '1e-3', '3e-4', '1e-4', '3e-5')

def second(data, arm, samples=SAMPLES):
    """Rates and loss -> the run of the second round, as long as the test's: of either loss the search's best, what came near it, and the next smaller rate;
    the next again while the smallest is best. Nothing before the search is complete."""
    found, again = scores(searched(data, arm), score, samples) or {}, {}
    def longer(how): return [replace(run(data, arm, how, SEARCH_SEED), experiment=f'modes-{data}-second')]
    for loss in dict.fromkeys(loss for *_, loss in found):
        top = max(s for (*_, l), s in found.items() if l == loss)
        mine = {how: longer(how) for how, s in found.items() if how[2] == loss and s > -inf and s >= top - NEAR}
        for rate in LADDER[max((LADDER.index(r) + 1 for r, *_ in mine), default=len(LADDER)):]:
            smaller = rate, '1', loss
            mine[smaller] = longer(smaller)
            if best(mine, score, samples) != smaller: break
        again |= mine
    return again

def second_runs(data, arms=ARMS):
    return [r for a in arms_of(data, arms) if data == SECOND and ARMS[a].searches for each in second(data, a).values() for r in each]

def search_runs(data, arms=ARMS):
    if isinstance(SETTINGS[data].how, str): return []
    return [r for a in arms_of(data, arms) if ARMS[a].searches for each in searched(data, a).values() for r in each]

def score(m):
    "What the search goes by: high-quality samples, of each mode no more than its share; on stacked MNIST modes, and where these are equal a small divergence from equal shares."
    return m['balanced'] if 'balanced' in m else m['modes'] - m['kl']/10

def chosen(data, samples=SAMPLES, arms=ARMS):
    "arm -> its learning rates and its loss, if its search is complete, on the ring by the second round."
    other, found = SETTINGS[data].how, {}
    if isinstance(other, str): return chosen(other, samples, arms)
    for a in arms_of(data, arms):
        if ARMS[a].searches: found[a] = best(second(data, a, samples) if data == SECOND else searched(data, a), score, samples)
        else: found[a] = ARMS[a].how[data] if ARMS[a].how else found.get(ARMS[a].like)
    return {a: how for a, how in found.items() if how}

def test_runs(data, arms=ARMS, samples=SAMPLES):
    how = chosen(data, samples)
    return [run(data, a, how[a], seed) for a in arms_of(data, arms) if a in how for seed in range(ARMS[a].seeds[data])]

def steps_runs():
    """K = 10 on the ring with what was best in the search, on its seed: with rates that fall to 0, that stay, that fall to a tenth, and to either over
    twice the steps; the last again with what was best in the second round."""
    if not (how := best(searched('ring', 'K=10'), score)): return []
    n = SETTINGS['ring'].steps
    def tenth(how): return run('ring', 'K=10', how, SEARCH_SEED)
    def changed(r, new, times=1): return replace(r, options=r.options.replace(f'--steps {n} --decay {decay(n)}', new), seconds=times*r.seconds)
    twice = f'--steps {2*n} --decay {decay(2*n)}'
    variants = {'fall': changed(tenth(how), f'--steps {n} --decay {n}'), 'stay': changed(tenth(how), f'--steps {n}'), 'fall to a tenth': tenth(how),
                'fall over twice the steps': changed(tenth(how), f'--steps {2*n} --decay {2*n}', 2), 'fall to a tenth over twice the steps': changed(tenth(how), twice, 2)}
    if (final := chosen('ring').get('K=10', how)) != how: variants[f'fall from {final[0]} to a tenth over twice the steps'] = changed(tenth(final), twice, 2)
    return [replace(r, experiment='modes-ring-steps', arm=f'K=10, rates {what}', name=f'{what}-{r.name}'.replace(' ', '-')) for what, r in variants.items()]

AGAIN = 'ring', 'stacked-half'

def again_runs(data):
    "The test of K = 0 once more: rounding differs from processor to processor, and training amplifies it; and what it costs there, other arms of that processor are compared with."
    return [replace(r, experiment=f'modes-{data}-again') for r in test_runs(data, ('K=0',))] if data in AGAIN else []

CURVES = ('arm', 'seed', 'step', 'modes', 'high_quality', 'balanced', 'kl')

def write_curves(runs, root, path):
    """What was measured on the way, a row for each evaluation of a finished run; of recorded runs whose folder is gone, and of recorded arms
    that are not among the runs, what the table has."""
    entries, arms = recorded(runs[0].experiment), {r.arm for r in runs}
    known, others = {e['command'] for e in entries}, {e['arm'] for e in entries} - arms
    unfinished, old, text = left(runs, root), list(csv.DictReader(path.open())) if path.exists() else [], io.StringIO()
    w = csv.DictWriter(text, CURVES, lineterminator='\n', extrasaction='ignore')
    w.writeheader()
    for r in runs:
        rows = [{'arm': r.arm, 'seed': r.seed, **{k: f'{v:.5g}' if isinstance(v, float) else v for k, v in row.items()}} for row in ([] if r in unfinished else read_jsonl(r.folder(root)/'evaluations.jsonl'))]
        w.writerows(rows or [row for row in old if r.command in known and (row['arm'], row['seed']) == (r.arm, str(r.seed))])
    w.writerows(row for row in old if row['arm'] in others)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda p: p.write_text(text.getvalue()))

THROUGH_TIME, FRAMES = ('K=0', 'look-ahead 10', 'K=10'), (1000, 2000, 5000, 10_000, 20_000, 30_000, 40_000, 50_000)

def through_time(r, frames=FRAMES):
    "The ring's centres, and `[(step, points), ...]`: what a run makes of the same 1,000 latents as it goes on."
    options = {k: v for k, v in vars(parser().parse_args(shlex.split(r.command)[1:])).items() if v is not None and k not in ('command', 'device', 'evaluate_every')}
    _, asked, config, (data, _) = plan(**options)
    net, steps, rng = model_class(asked['model'])(config, r.seed), asked['steps'], torch.Generator().manual_seed(r.seed)
    latent, drawn = net.sample_latent(1000, torch.Generator().manual_seed(123)), []
    def snap(state, step):
        if step in frames: drawn.append((step, net.put(state).generate(latent)))
    with cpu_threads(asked['threads']): fit(net.step, net.init(), partial(data.batch, asked['batch_size']), steps=steps, rng=rng, picture=snap, picture_every=frames[0])
    return data.centres, drawn

def scatter(ax, points, centres, name):
    ax.scatter(*centres.T, s=30, facecolors='none', edgecolors='tab:orange')
    ax.scatter(*points.T, s=1, alpha=.4)
    lim = 1.5*float(centres.abs().max())
    ax.set(xlim=(-lim, lim), ylim=(-lim, lim), xticks=[], yticks=[], title=name, aspect='equal')

def draw_time(runs, path):
    "A row of scatter plots for each run."
    rows = [(r, *through_time(r)) for r in runs]
    fig, axs = plt.subplots(len(rows), len(rows[0][2]), figsize=(1.5*len(rows[0][2]), 1.65*len(rows)), squeeze=False)
    for axes, (r, centres, drawn) in zip(axs, rows):
        for ax, (step, points) in zip(axes, drawn): scatter(ax, points, centres, f'step {step:,}')
        axes[0].set_ylabel(r.arm)
    fig.tight_layout()
    save_figure(fig, path)

LATER = {'ring': ('K=0, longer', 'K=5', 'packing, K=10', 'gradient penalty'), 'stacked-half': ('K=0, longer', 'packing', 'gradient penalty', 'spectral norm')}     # data -> arms in a picture of their own

def pictures(data):
    "name -> the arms that a picture shows."
    later = LATER.get(data, ())
    return {data: [a for a in arms_of(data) if a not in later], **({f'{data}-later': later} if later else {})}

def draw_samples(runs, root, path, n=16, columns=5):
    "What the first seed of each arm makes in the end, of the same latents: points in a plot, images in a row. Nothing if an arm is recorded and its folder gone."
    unfinished, first = left(runs, root), {}
    for r in runs:
        if r not in unfinished and (r.folder(root)/'model.safetensors').exists(): first.setdefault(r.arm, load(r.folder(root)))
    if not first or {r.arm for r in runs} & {e['arm'] for e in recorded(runs[0].experiment)} - set(first): return
    def made(model, n): return model.generate(model.sample_latent(n, torch.Generator().manual_seed(123)))
    if len(next(iter(first.values())).config.shape) == 3:
        fig, axs = plt.subplots(len(first), figsize=(.55*n, .85*len(first)), squeeze=False)
        for (ax,), (arm, model) in zip(axs, first.items()): draw(ax, made(model, n), n).set_title(arm, loc='left', size=9)
    else:
        columns = min(columns, len(first))
        rows, centres = -(-len(first)//columns), load_data(runs[0].options.split()[1]).centres
        fig, axs = plt.subplots(rows, columns, figsize=(2*columns, 2.2*rows), squeeze=False)
        for ax in axs.flat[len(first):]: ax.axis('off')
        for ax, (arm, model) in zip(axs.flat, first.items()): scatter(ax, made(model, 1000), centres, arm)
    fig.tight_layout()
    save_figure(fig, path)

def time():
    runs = {r.arm: r for r in test_runs('ring') if r.seed == 0}
    if not set(THROUGH_TIME) <= set(runs): return print('time: the rates are known after the search on the ring')
    (SAMPLES/'modes').mkdir(parents=True, exist_ok=True)
    draw_time([runs[a] for a in THROUGH_TIME], SAMPLES/'modes'/'time.png')

class Drawn:
    "Images that no model makes, in the place of one: `draw(n, rng)`."
    def __init__(self, draw): self.draw = draw
    def sample_latent(self, n, rng): return n, rng
    def generate(self, latent): return self.draw(*latent)

def floors(path=SAMPLES/'modes'/'floors.json', seed=0):
    """The measures of stacked MNIST for what is no GAN's: real images (of the test set), those whose pixels are Gaussian with the digits' mean and
    covariance in each channel, and noise."""
    (train, test), digits = (load_data('stacked_mnist', split) for split in ('train', 'test')), load_data('mnist', 'train')
    x = digits.items(digits.some(20_000, seed)).flatten(1).double()
    mean, root = x.mean(0), torch.linalg.cholesky(torch.cov(x.T) + 1e-5*torch.eye(x.shape[1]))
    def gaussian(n, rng): return (mean + torch.randn(3*n, len(mean), generator=rng).double() @ root.T).clamp(-1, 1).float().view(n, 3, *digits.shape[1:])
    drawn = {'real images': lambda n, rng: test.items(torch.randint(len(test), (n,), generator=rng)), 'Gaussian pixels': gaussian,
             'noise': lambda n, rng: 2*torch.rand(n, 3, *digits.shape[1:], generator=rng) - 1}
    measured = {name: {k: short(v) for k, v in evaluate_images(Drawn(draw), train, seed).items()} for name, draw in drawn.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda p: p.write_text(json.dumps(measured, indent=1) + '\n'))

def go(what, data, root, arms=ARMS, jobs=1, dry=False, missing=False):
    "Train and record what a verb stands for."
    make = {'search': search_runs, 'second': second_runs, 'test': test_runs, 'steps': lambda *_: steps_runs(), 'again': lambda data, arms: again_runs(data)}[what]
    if not (runs := make(data, arms)): return print(f'{what} of {data}: nothing to train, or not before the search')
    train(runs, root, jobs, dry, missing)
    if dry: return
    record(make(data), root)
    if make(data, arms) != runs: return go(what, data, root, arms, jobs, dry, missing)      # the second round goes on
    if what == 'test':
        write_curves(make(data), root, SAMPLES/'modes'/f'{data}.csv')
        for name, shown in pictures(data).items(): draw_samples(make(data, shown), root, SAMPLES/'modes'/f'{name}.png')

ONCE = {'time': time, 'floors': floors}

def everything(root, jobs, dry):
    for data in SETTINGS:
        for what in ('search', *['second', 'steps']*(data == SECOND), 'test', *['again']*(data in AGAIN)): go(what, data, root, ARMS, jobs, dry)
    for name, make in ONCE.items():
        if not dry and not list((SAMPLES/'modes').glob(f'{name}.*')): make()

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('what', choices=('search', 'second', 'steps', 'test', 'again', *ONCE))
    p.add_argument('--data', choices=SETTINGS, default='ring')
    p.add_argument('--runs', type=Path, default=ROOT/'runs', help='where runs are kept')
    p.add_argument('--jobs', type=int, default=1)
    p.add_argument('--arms', nargs='+', choices=ARMS, default=list(ARMS))
    p.add_argument('--missing', action='store_true', help='train only what runs.json lacks')
    p.add_argument('--dry', action='store_true')
    o = p.parse_args()
    with plainly(): ONCE[o.what]() if o.what in ONCE else go(o.what, o.data, o.runs, o.arms, o.jobs, o.dry, o.missing)
