"""Chapter 12's experiment: what each ingredient of VAEInfoGAN is worth, on cartoon faces and on MNIST. Its runs, numbers, shown model and figures.

    python tools/faces.py search|ladder|mnist|shown [--runs runs] [--jobs 1] [--missing] [--dry]

`search` changes one setting at a time, on a seed kept for that; `ladder` trains VAE, VAE/GAN, VAEInfoGAN and Unrolled VAEInfoGAN on faces of 32x32,
`mnist` the same on MNIST, one seed; `shown` trains the model of the figures on faces of 64x64, keeps it and draws them. All numbers go to
samples/runs.json, model and figures to samples/vaeinfogan/.
"""
import argparse, json
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.nn import functional as F

from disentangle_nb.cli import evaluate_alignment
from disentangle_nb.data import avatars, load_data
from disentangle_nb.explore import draw, interpolate, plot_edits, plot_reconstructions, save_figure, vary
from disentangle_nb.metrics import slant, thickness
from disentangle_nb.networks import Classifier
from disentangle_nb.training import load, load_tensors, save_tensors, write_whole
from runs import ROOT, SAMPLES, Run, best, keep, overridden, plainly, record, train

@dataclass(frozen=True)
class Arm:
    options:str       # of `disentangle train vaeinfogan`, beside those found by the search
    k:int
    ms:tuple          # CPU milliseconds a step, on faces and on MNIST
    seeds:int=3       # their number on faces

ARMS = {
    'VAE': Arm('--info 0 --adversarial 0 --similarity pixels', 0, (70, 50)),
    'VAE/GAN': Arm('--info 0', 0, (110, 80)),
    'VAE/GAN, beta 4': Arm('--info 0', 0, (110, 80), 6),          # VAEInfoGAN's settings but for the information
    'VAEInfoGAN': Arm('', 0, (110, 80), 6),
    'Unrolled VAEInfoGAN': Arm('', 2, (220, 170)),
}

def faces(size, searching=False):
    "Validation and test faces; for the search, which test faces are kept from, two halves of the former."
    valid, test = (avatars(s, size) for s in ('valid', 'test'))
    n = len(valid)//2
    return tuple(replace(valid, x=valid.x[i], factors=valid.factors[i]) for i in (slice(n), slice(n, None))) if searching else (valid, test)

@cache
def judge(size, root, steps=1500):
    "A classifier of a face's factors, trained on faces drawn for training, and its accuracy on the validation faces, by factor. Kept in `root`."
    data, valid, path = avatars('train', size), avatars('valid', size), Path(root)/f'judge-{size}.safetensors'
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Classifier(data.shape, sum(data.factor_sizes))
    if path.is_file(): net.load_state_dict(load_tensors(path)[0])
    else:
        rng, opt = torch.Generator().manual_seed(0), torch.optim.Adam(net.parameters(), 2e-3)
        for step in range(steps):
            idx = torch.randint(len(data), (64,), generator=rng)
            loss = sum(F.cross_entropy(p, y) for p, y in zip(net(data.items(idx)).split(data.factor_sizes, 1), data.factors[idx].T))
            opt.zero_grad(); loss.backward(); opt.step()
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(path, net.state_dict())
    net.eval().requires_grad_(False)
    return net, read_factors(net, valid.items(slice(len(valid))), data.factor_sizes).eq(valid.factors).float().mean(0)

def read_factors(net, x, sizes): return torch.cat([torch.stack([p.argmax(1) for p in net(b).split(sizes, 1)], 1) for b in x.split(500)])

def kept(model, held, root):
    "For each factor the share of the faces `held` out whose reconstruction still shows it, as the judge sees it."
    net, _ = judge(held.shape[-1], root)
    seen = read_factors(net, torch.cat([model.reconstruct(b) for b in held.items(slice(None)).split(500)]), held.factor_sizes)
    return {f'kept_{name}': v for name, v in zip(held.factor_names, seen.eq(held.factors).float().mean(0).tolist())}

def moved(model, held, names, root, n=500):
    """What a row of the figures changes: for each named variable, as it goes from end to end and the rest stays as encoded, the share of the first `n` faces
    `held` out in which a factor, as the judge sees it, does not stay the same; {variable: {factor: share}}."""
    net, _ = judge(held.shape[-1], root)
    latents = [{k: v[i:i+1] for k, v in read.items()} for read in [model.infer(held.items(slice(n)))] for i in range(n)]
    def changes(latent, name): seen = read_factors(net, model.generate(vary(model, latent, name)), held.factor_sizes); return (seen != seen[0]).any(0)
    return {name: dict(zip(held.factor_names, torch.stack([changes(latent, name) for latent in latents]).float().mean(0).tolist())) for name in names}

def digits(n=5000):
    "MNIST's test digits in two halves with class, and fifths of measured thickness and slant, as factors."
    data = load_data('mnist', 'test')
    x = data.items(slice(2*n))
    fifths = lambda v: np.digitize(v, np.quantile(v, (.2, .4, .6, .8)))
    factors = torch.from_numpy(np.stack([data.y[:2*n].numpy(), fifths(thickness(x).numpy()), fifths(slant(x).numpy())], 1))
    return tuple(replace(data, x=data.x[i], factors=factors[i], factor_names=('class', 'thickness', 'slant')) for i in (slice(n), slice(n, 2*n)))

DATA = {'faces': '--data avatars --image-size 32 --threads 1', 'mnist': '--data mnist --threads 1 --cats 10 --conts 4'}
STEPS = {'faces': 4000, 'mnist': 3000}
START = '--norm group --gamma 50 --cont-weight 5 --noise 32 --beta 1'
SEARCH = {        # name -> what is changed of START, in the order in which it was tried; every run is of 1,500 steps
    'as it was': '', 'batch norm in D': '--norm batch', 'continuous codes weigh 20': '--cont-weight 20', 'beta 4, continuous codes weigh 0.1': '--beta 4 --cont-weight .1',
    'categorical codes': '--cats 5,4,3,3,3 --conts 3 --cont-weight .1', 'categorical codes, information weighs 5': '--cats 5,4,3,3,3 --conts 3 --cont-weight .1 --info 5',
    'spectral norm in D, sigma 0.3': '--norm spectral --sigma-x .3', '8 noise variables': '--noise 8', 'beta 4': '--beta 4', '8 noise variables, beta 4': '--noise 8 --beta 4',
    '8 noise variables, spectral norm in D, sigma 0.3': '--noise 8 --norm spectral --sigma-x .3', 'beta 10': '--beta 10',
    'gamma 1': '--gamma 1', 'no norm in D': '--norm none',
}
BETAS = ('1', '4', '10')          # tried for the arms without information

def search_run(arm, name, options):
    a = ARMS[arm]
    return Run('faces-search', arm, a.k, 100, overridden(f'{DATA["faces"]} --steps 1500 {options}', a.options), a.ms[0]*1.5 + 40, name.replace(' ', '-').replace(',', '').lower(), 'vaeinfogan')

def score(m):
    "What the search goes by: the mean gap, if reconstructions keep four factors in nine of ten faces."
    kept = np.mean([m[f'kept_{f}'] for f in ('hair colour', 'hair length', 'eyewear', 'skin')])
    return np.mean([m[f'gap_{f}'] for f in SHOWN_FACTORS]) - (kept < .9)

def searched(arm):
    "Options -> the runs of the search, of an arm; empty for arms without information before VAEInfoGAN's is complete."
    if arm == 'VAEInfoGAN': return {overridden(START, more): [search_run(arm, name, overridden(START, more))] for name, more in SEARCH.items()}
    usual = chosen('VAEInfoGAN')
    return {o: [search_run(arm, f'{arm.replace("/", "-").lower()}-beta-{b}', o)] for b in BETAS for o in [overridden(usual, f'--beta {b}')]} if usual else {}

def chosen(arm, samples=SAMPLES):
    "The options of the best run of the arm's search; None before it is complete."
    if arm not in ('VAE', 'VAE/GAN'): arm = 'VAEInfoGAN'
    return best(searched(arm), score, samples) if searched(arm) else None

def search_runs(arm): return [r for runs in searched(arm).values() for r in runs]

def ladder_runs(data, seeds):
    return [Run(f'{data}-ladder', name, a.k, seed, overridden(f'{usual} {DATA[data]} --steps {STEPS[data]} --decay {STEPS[data]}', a.options), a.ms[data == 'mnist']*STEPS[data]/1000 + 40,
                f'{name.replace("/", "-").replace(", ", "-").replace(" ", "-").lower()}-s{seed}', 'vaeinfogan') for seed in seeds for name, a in ARMS.items() if seed < a.seeds and (usual := chosen(name))]

SHOWN_FACTORS = ('age cue', 'gender cue', 'hair colour', 'hair length', 'eyewear')
SHOWN = '--data avatars --image-size 64 --threads 1 --width 20'      # with which the model stays under 6 MB

def shown_runs(steps=4000):
    usual = chosen('VAEInfoGAN')
    return [Run('faces-shown', 'VAEInfoGAN', 0, 0, overridden(f'{usual} {SHOWN} --steps {steps}', f'--decay {steps}'), .5*steps + 60, 'vaeinfogan-s0', 'vaeinfogan')] if usual else []

def shown(root, folder):
    run, = shown_runs()
    keep(run, root, folder/'best')
    model, (valid, test) = load(folder/'best'), faces(64)
    found = {**evaluate_alignment(model, valid, test), **kept(model, test, root)}
    found['moved'] = moved(model, test, [found[f'code_{f}'] for f in SHOWN_FACTORS], root)
    write_whole(folder/'aligned.json', lambda p: p.write_text(json.dumps(found, indent=1) + '\n'))
    figures(folder)

def figures(folder):
    """The shown model's figures: the first test faces and their reconstructions; the first one with, row by row, the variables that go best with the
    five factors; the same for the next three; lines between faces."""
    model, found = load(folder/'best'), json.loads((folder/'aligned.json').read_text())
    test = avatars('test', model.config.shape[-1])
    names = [found[f'code_{f}'] for f in SHOWN_FACTORS]
    labels = [f'{"sunglasses" if f == "eyewear" else f} ({n})' for f, n in zip(SHOWN_FACTORS, names)]
    x = test.items(slice(32))
    drawn = {'reconstructions': plot_reconstructions(model, x[:24], 12), 'traversals': plot_edits(model, x[:1], names, labels=labels)}
    for name, figure in drawn.items(): save_figure(figure, folder/f'{name}.png')
    for i in (1, 2, 3): save_figure(plot_edits(model, x[i:i+1], names, labels=labels), folder/f'edits-{i}.png')
    fig, ax = plt.subplots(figsize=(9, 3.2))
    save_figure(draw(ax, torch.cat([interpolate(model, x[i:i+1], x[i+1:i+2]) for i in (4, 6, 8)]), 9).figure, folder/'interpolations.png')

LISTS = {       # verb -> lists of runs; a list that builds on another's results is empty before these are there
    'search': [partial(search_runs, a) for a in ('VAEInfoGAN', 'VAE/GAN', 'VAE')], 'ladder': [partial(ladder_runs, 'faces', range(6))],
    'mnist': [partial(ladder_runs, 'mnist', [0])], 'shown': [shown_runs],
}

def go(what, root, jobs=1, dry=False, missing=False):
    "Train and record what a verb stands for."
    for make in LISTS[what]:
        if not (runs := make()):
            print(f'{what}: which runs are next is known after the search')
            return
        train(runs, root, jobs, dry, missing)
        if dry: continue
        held = digits() if what == 'mnist' else faces(64 if what == 'shown' else 32, what == 'search')
        def more(model): return {**evaluate_alignment(model, *held), **(kept(model, held[1], root) if what != 'mnist' else {})}
        record(runs, root, more=lambda folder: more(load(folder)))
    if what == 'shown' and not dry: shown(root, SAMPLES/'vaeinfogan')

def everything(root, jobs, dry):
    for what in LISTS: go(what, root, jobs, dry)

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('what', choices=LISTS)
    p.add_argument('--runs', type=Path, default=ROOT/'runs', help='where runs are kept')
    p.add_argument('--jobs', type=int, default=1)
    p.add_argument('--missing', action='store_true', help='train only what runs.json lacks')
    p.add_argument('--dry', action='store_true')
    o = p.parse_args()
    with plainly(): go(o.what, o.runs, o.jobs, o.dry, o.missing)
