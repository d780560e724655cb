"""Time and memory of a training step on a GPU, and on the CPU beside it, against K. Writes samples/benchmarks/gpu.json.

    python tools/gpu.py                    # a few minutes
    python tools/gpu.py --nets "InfoGAN, 28x28" --steps 5 --out .

Measured is `step` of the model, with everything in it, on a batch of noise that is there already: wall time of as many steps
as take a second or more, three at least, divided by their number, after two that are not counted. Memory is the largest that
PyTorch has had allocated on the GPU. A way that takes longer than --limit seconds for its first two steps is not timed.
"""
import argparse, json, os, platform, time, warnings
from pathlib import Path

import torch

from disentangle_nb.training import _repeatable, autocast, map_tensors, model_class
from disentangle_nb.unroll import _graphs
from runs import SAMPLES

NETS = {       # name -> model, its config, batch size
    'InfoGAN, 28x28': ('infogan', dict(shape=(1, 28, 28), width=32, d_width=16, norm='batch'), 64),
    'InfoGAN, 28x28, wide': ('infogan', dict(shape=(1, 28, 28), width=64, d_width=64, norm='batch'), 128),
    'VAEInfoGAN, 64x64': ('vaeinfogan', dict(shape=(3, 64, 64), width=64, d_width=32, e_width=32), 64),
}
WAYS = {'GPU': ('cuda', 'fp32', False), 'GPU, bf16': ('cuda', 'bf16', False), 'GPU, recorded': ('cuda', 'fp32', True), 'GPU, recorded, bf16': ('cuda', 'bf16', True), 'CPU': ('cpu', 'fp32', False)}

def timed(net, K, way, limit, seconds=1.):
    "A row: milliseconds a step, MB, and how long the first two took."
    (model, config, batch), (device, precision, compile) = NETS[net], WAYS[way]
    device, cls, rng = torch.device(device), model_class(model), torch.Generator().manual_seed(0)
    net_ = cls(cls.Config(**config, unroll=K, compile=compile))
    state = map_tensors(lambda t: t.to(device), net_.init())
    x = (2*torch.rand(batch*net_.batches, *config['shape'], generator=rng) - 1).to(device)
    _graphs.clear()                     # what other rows recorded
    if device.type == 'cuda': torch.cuda.empty_cache(); torch.cuda.reset_peak_memory_stats()
    def steps(n):
        nonlocal state
        start = time.perf_counter()
        for _ in range(n):
            with _repeatable(), autocast(device, precision): state, metrics = net_.step(state, x, rng)
        assert all(v.isfinite() for v in metrics.values())          # waits for the GPU
        return time.perf_counter() - start
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        first = steps(2)
    row = dict(net=net, K=K, way=way, first_s=round(first, 2))
    if why := next((str(w.message) for w in told if 'runs uncompiled' in str(w.message)), ''): row['fell_back'] = why
    if first > limit: return row
    n = max(3, round(seconds/steps(1)))
    row |= dict(ms=round(1000*steps(n)/n, 2), timed_steps=n)
    if device.type == 'cuda': row['mb'] = round(torch.cuda.max_memory_allocated()/2**20, 1)
    return row

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--nets', nargs='+', default=list(NETS), choices=NETS)
    p.add_argument('--steps', type=int, nargs='+', default=[0, 5, 10], help='values of K')
    p.add_argument('--ways', nargs='+', default=list(WAYS), choices=WAYS)
    p.add_argument('--limit', type=float, default=120, help='seconds')
    p.add_argument('--out', type=Path, default=SAMPLES/'benchmarks')
    args = p.parse_args()
    cuda = torch.cuda.is_available()
    ways = [w for w in args.ways if cuda or WAYS[w][0] == 'cpu']
    about = dict(command='python tools/gpu.py', gpu=torch.cuda.get_device_name() if cuda else '', torch=torch.__version__, threads=torch.get_num_threads(), cpus=os.cpu_count(),
                 processor=platform.processor() or platform.machine(), networks={n: f'{m}, {c}, batch {b}' for n, (m, c, b) in NETS.items()})
    rows = []
    for way in ways:
        for net in args.nets:
            for K in args.steps:
                rows.append(timed(net, K, way, args.limit))
                print(rows[-1], flush=True)
                args.out.mkdir(parents=True, exist_ok=True)
                (args.out/'gpu.json').write_text(json.dumps(dict(about=about, rows=rows), indent=1) + '\n')
