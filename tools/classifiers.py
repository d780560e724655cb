"""Train the classifiers of digits that the package brings along, and say how they do on test images.

    python tools/classifiers.py [mnist] [digits]

Six minutes on one core for MNIST (its files: `disentangle data mnist`), half a minute for the 8x8 digits.
"""
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from disentangle_nb.data import InputError, load_data
from disentangle_nb.networks import Classifier
from disentangle_nb.training import fit

ASSETS = Path(__file__).resolve().parent.parent/'disentangle_nb'/'assets'
BATCH, RATE, STEPS = 128, 4e-3, {'mnist': 5000, 'digits': 3000}
SHIFT, TURN, STRETCH = .1, .2, .15       # of half the image's side, radians, share


def warped(x, rng):
    "Images shifted, turned, stretched and slanted a little, each in its own way."
    def noise(*shape): return 2*torch.rand(len(x), *shape, generator=rng) - 1
    turn = TURN*noise()
    matrix = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], 1).view(-1, 2, 2)
    theta = torch.cat([matrix + STRETCH*noise(2, 2), SHIFT*noise(2, 1)], 2)
    return F.grid_sample(x, F.affine_grid(theta, x.shape, align_corners=False), padding_mode='border', align_corners=False)


def train(name, seed=0):
    "A classifier of the training images."
    data = load_data(name)
    torch.manual_seed(seed)
    net = Classifier(data.shape)
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS[name])

    def batches(rng):
        idx = torch.randint(len(data), (BATCH,), generator=rng)
        return warped(data.items(idx), rng), data.y[idx]

    def step(state, batch, rng):
        x, y = batch
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad(); loss.backward(); optimizer.step(); schedule.step()
        return state, {'loss': loss.detach()}

    fit(step, {}, batches, steps=STEPS[name], rng=torch.Generator().manual_seed(seed), progress=None)
    return net.eval()


@torch.no_grad()
def accuracy(net, data):
    labels = [net(data.items(slice(i, i+1000))).argmax(1) for i in range(0, len(data), 1000)]
    return (torch.cat(labels) == data.y).float().mean().item()


if __name__ == '__main__':
    for name in sys.argv[1:] or STEPS:
        try: test = load_data(name, 'test')
        except InputError as e: sys.exit(f'error: {e}')
        net = train(name)
        ASSETS.mkdir(exist_ok=True)
        save_file(net.state_dict(), file := ASSETS/f'{name}.safetensors')
        print(f'{name}: {accuracy(net, test):.2%} of {len(test):,} test images; {file.stat().st_size/1e3:.0f} kB')
