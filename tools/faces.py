"""Chapter 12's experiment: what each ingredient of VAEInfoGAN is worth, on cartoon faces and on MNIST. Its runs, numbers, shown model and figures.

    python tools/faces.py search|ladder|mnist|shown [--runs runs] [--jobs 1] [--missing] [--dry]

`search` changes one setting at a time, on a seed kept for that; `ladder` trains VAE, VAE/GAN, VAEInfoGAN and Unrolled VAEInfoGAN on faces of 32x32,
`mnist` the same on MNIST, one seed; `shown` trains the model of the figures on faces of 64x64, keeps it and draws them. All numbers go to
samples/runs.json, model and figures to samples/vaeinfogan/.
"""
import argparse, json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.nn import functional as F

from disentangle_nb.data import avatars, load_data
from disentangle_nb.explore import codes_of, draw, interpolate, plot_edits, plot_reconstructions, plot_samples, save_figure, variables
from disentangle_nb.infogan import Categorical
from disentangle_nb.metrics import alignment, slant, thickness
from disentangle_nb.networks import Classifier
from disentangle_nb.training import load, load_tensors, save_tensors, write_whole
from runs import ROOT, SAMPLES, Run, keep, plainly, record, train

@dataclass(frozen=True)
class Arm:
    options:str       # of `disentangle train vaeinfogan`
    k:int
    ms:tuple          # CPU milliseconds a step, on faces and on MNIST

LADDER = {
    'VAE': Arm('--similarity pixels --adversarial 0 --info 0', 0, (70, 50)),
    'VAE/GAN': Arm('--info 0', 0, (110, 80)),
    'VAEInfoGAN': Arm('', 0, (110, 80)),
    'Unrolled VAEInfoGAN': Arm('', 2, (220, 170)),
}

def columns(read, model):
    "Codes and noise variables that the encoder read, (N, d), in the order of `variables`."
    return np.column_stack([*(read[n].cpu().numpy() for n in codes_of(model)), read['z'].cpu().numpy()])

def read_all(model, x, batch=500):
    "What the encoder reads off many images, (N, d)."
    return np.concatenate([columns(model.infer(b), model) for b in x.split(batch)])

def aligned(model, valid, test, names, bins=20):
    """For each factor the variable that knows most about it, chosen on validation images; on test images its normalised mutual information and
    the gap to any other. `valid` and `test` are (images, factors)."""
    discrete = [i for i, c in enumerate(model.codes) if isinstance(c, Categorical)]
    codes = [read_all(model, x) for x, _ in (valid, test)]
    chosen = alignment(codes[0], valid[1], discrete, bins=bins)['code']
    found = alignment(codes[1], test[1], discrete, chosen, bins)
    return {f'{what}_{name}': variables(model)[v] if what == 'code' else float(v) for what in ('code', 'nmi', 'gap') for name, v in zip(names, found[what])}

def faces(size, searching=False):
    "Validation and test faces with their factors, and the factors' names; for the search, which test faces are kept from, two halves of the former."
    valid, test = (avatars(s, size) for s in ('valid', 'test'))
    n = len(valid)//2
    parts = ((valid, slice(n)), (valid, slice(n, None))) if searching else ((valid, slice(None)), (test, slice(None)))
    return *((d.items(i), d.factors[i].numpy()) for d, i in parts), test.factor_names

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
    "For each factor the share of held-out faces, (images, factors), whose reconstruction still shows it, as the judge sees it."
    (x, factors), data = held, avatars('test', model.config.shape[-1])
    net, _ = judge(data.shape[-1], root)
    seen = read_factors(net, torch.cat([model.reconstruct(b) for b in x.split(500)]), data.factor_sizes)
    return {f'kept_{name}': v for name, v in zip(data.factor_names, seen.eq(torch.as_tensor(factors)).float().mean(0).tolist())}

def digits(n=5000):
    "MNIST's test digits in two halves with class, and fifths of measured thickness and slant, as factors."
    data = load_data('mnist', 'test')
    x = data.items(slice(2*n))
    fifths = lambda v: np.digitize(v, np.quantile(v, (.2, .4, .6, .8)))
    factors = np.stack([data.y[:2*n].numpy(), fifths(thickness(x).numpy()), fifths(slant(x).numpy())], 1)
    return (x[:n], factors[:n]), (x[n:], factors[n:]), ('class', 'thickness', 'slant')

DATA = {'faces': '--data avatars --image-size 32 --threads 1', 'mnist': '--data mnist --threads 1 --cats 10 --conts 4'}
STEPS = {'faces': 10_000, 'mnist': 6000}
SEARCH = {        # one setting changed (sigma is not among them: for an encoder under Adam only beta*sigma**2 matters)
    'as it is': '', 'beta 0.25': '--beta .25', 'beta 4': '--beta 4', 'gamma 10': '--gamma 10', 'gamma 100': '--gamma 100',
    'categorical codes': '--cats 5,3,3 --conts 7', 'all layers': '--similarity layers', 'information weighs 0.1': '--info .1', 'continuous codes weigh 1': '--cont-weight 1',
    'spectral norm in D': '--norm spectral', 'no norm in D': '--norm none', 'twice the rates': '--lr 2e-3', 'half the rates': '--lr 5e-4',
}

def search_runs(steps=3000):
    ms = LADDER['VAEInfoGAN'].ms[0]
    return [Run('faces-search', name, 0, 100, f'{DATA["faces"]} --steps {steps} {more}'.strip(), ms*steps/1000 + 40, name.replace(' ', '-'), 'vaeinfogan') for name, more in SEARCH.items()]

def ladder_runs(data, seeds):
    return [Run(f'{data}-ladder', name, a.k, seed, f'{DATA[data]} --steps {STEPS[data]} {a.options}'.strip(), a.ms[data == 'mnist']*STEPS[data]/1000 + 40,
                f'{name.replace("/", "-").replace(" ", "-").lower()}-s{seed}', 'vaeinfogan') for seed in seeds for name, a in LADDER.items()]

SHOWN_FACTORS = ('age cue', 'gender cue', 'hair colour', 'hair length', 'eyewear')
SHOWN = '--data avatars --image-size 64 --threads 1'

def shown_runs(steps=12_000): return [Run('faces-shown', 'Unrolled VAEInfoGAN', 2, 0, f'{SHOWN} --steps {steps}', .4*steps + 60, 'unrolled-vaeinfogan-s0', 'vaeinfogan')]

def shown(root, folder):
    run, = shown_runs()
    keep(run, root, folder/'best')
    valid, test, names = faces(64)
    model = load(folder/'best')
    found = {**aligned(model, valid, test, names), **kept(model, test, root)}
    write_whole(folder/'aligned.json', lambda p: p.write_text(json.dumps(found, indent=1) + '\n'))
    figures(folder)

def figures(folder):
    """The shown model's figures: the first test faces and their reconstructions; the first one with, row by row, the variables that go best with the
    mission's factors; the same for the next three; lines between faces; samples from the prior."""
    model, found = load(folder/'best'), json.loads((folder/'aligned.json').read_text())
    test = avatars('test', model.config.shape[-1])
    names = [found[f'code_{f}'] for f in SHOWN_FACTORS]
    labels = [f'{"sunglasses" if f == "eyewear" else f} ({n})' for f, n in zip(SHOWN_FACTORS, names)]
    x = test.items(slice(32))
    drawn = {'reconstructions': plot_reconstructions(model, x[:24], 12), 'traversals': plot_edits(model, x[:1], names, labels=labels), 'samples': plot_samples(model)}
    for name, figure in drawn.items(): save_figure(figure, folder/f'{name}.png')
    for i in (1, 2, 3): save_figure(plot_edits(model, x[i:i+1], names, labels=labels), folder/f'edits-{i}.png')
    fig, ax = plt.subplots(figsize=(9, 3.2))
    save_figure(draw(ax, torch.cat([interpolate(model, x[i:i+1], x[i+1:i+2]) for i in (4, 6, 8)]), 9).figure, folder/'interpolations.png')

LISTS = {'shown': shown_runs, 'search': search_runs, 'ladder': lambda: ladder_runs('faces', range(3)), 'mnist': lambda: ladder_runs('mnist', [0])}

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('what', choices=LISTS)
    p.add_argument('--runs', type=Path, default=ROOT/'runs', help='where runs are kept')
    p.add_argument('--jobs', type=int, default=1)
    p.add_argument('--missing', action='store_true', help='train only what runs.json lacks')
    p.add_argument('--dry', action='store_true')
    o = p.parse_args()
    with plainly():
        runs = LISTS[o.what]()
        train(runs, o.runs, o.jobs, o.dry, o.missing)
        if not o.dry:
            held = digits() if o.what == 'mnist' else faces(64 if o.what == 'shown' else 32, o.what == 'search')
            more = lambda model: {**aligned(model, *held), **(kept(model, held[1], o.runs) if o.what != 'mnist' else {})}
            record(runs, o.runs, more=lambda folder: more(load(folder)))
            if o.what == 'shown': shown(o.runs, SAMPLES/'vaeinfogan')
