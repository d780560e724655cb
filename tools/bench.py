"""Time and memory of one unrolled gradient against K, with the replay and with an ordinary graph.

    python tools/bench.py [--steps 0 1 5 10 20] [--repeats 5]

The 28x28 discriminator of width 16 at batch 64, Adam, on one thread. Each configuration runs in a process of its own, so that peak memory is its own.
"""
import argparse, resource, subprocess, sys, time

def measure(K, remat, repeats):
    "Median CPU seconds of a generator step, and peak resident MB."
    import torch
    from disentangle_nb.data import load_data
    from disentangle_nb.infogan import InfoGAN, InfoGANConfig
    torch.set_num_threads(1)
    model, rng = InfoGAN(InfoGANConfig(shape=(1, 28, 28), d_width=16, unroll=K, remat=remat)), torch.Generator()
    state, times = model.init(), []
    for _ in range(repeats+1):
        start = time.process_time()
        state, _ = model.step(state, torch.rand(64, 1, 28, 28, generator=rng)*2 - 1, rng)
        times.append(time.process_time() - start)
    scale = 2**20 if sys.platform == 'darwin' else 2**10
    return sorted(times[1:])[repeats//2], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/scale

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--steps', type=int, nargs='+', default=[0, 1, 5, 10, 20])
    p.add_argument('--repeats', type=int, default=5)
    p.add_argument('--one', nargs=2, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.one:
        print(*measure(int(args.one[0]), args.one[1] == 'replay', args.repeats))
        sys.exit()
    print(f'{"K":>3}{"graph s":>10}{"MB":>7}{"replay s":>10}{"MB":>7}')
    for K in args.steps:
        row = [subprocess.run([sys.executable, __file__, '--repeats', str(args.repeats), '--one', str(K), mode], check=True, capture_output=True, text=True).stdout.split() for mode in ('graph', 'replay')]
        print(f'{K:>3}' + ''.join(f'{float(s):>10.3f}{float(mb):>7.0f}' for s, mb in row), flush=True)
