"""Time and memory of one unrolled generator gradient against K, ours and the peers'. Writes samples/benchmarks/.

    python tools/bench.py                                  # everything: about two hours (--resume: go on where it stopped)
    python tools/bench.py --nets ring --steps 1 10         # a part, printed but not saved

Measured is the gradient of the non-saturating generator loss after K inner steps with respect to the generated batch.
Every configuration (network, optimiser, K, implementation) runs in a process of its own, on one thread. Those of a group
(network, optimiser, K) take turns, round by round, so that a slow minute of the machine hits all of them alike.
The time of a call is the median of the rounds' CPU seconds. A turn is one call, or as many as take 0.3 s, their mean taken.
The first call is not counted (first_s is its wall time, with that of compiling).
Memory is the process's peak resident size. `error` is the relative distance of the gradient from that of a naive float64 loop.
"""
import argparse, ctypes, json, multiprocessing as mp, os, platform, resource, statistics, sys, time, warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
OUT = HERE/'samples'/'benchmarks'
IMPLEMENTATIONS = ['naive', 'higher', 'torchopt', 'graph', 'replay', 'compiled', 'graph bf16', 'replay bf16', 'compiled bf16']
NETS = {
    'ring': 'MLP 2-128-1, batch 512',
    'conv28': '1x28x28: conv 32, 64; linear 128, 1; batch 64',
    'conv64': '3x64x64: conv 32, 64, 128, 256; linear 1; batch 64',
}

def network(name):
    import torch
    from torch import nn
    torch.manual_seed(0)
    if name == 'ring': return nn.Sequential(nn.Linear(2, 128), nn.ReLU(), nn.Linear(128, 1)), (512, 2)
    conv = lambda i, o: (nn.Conv2d(i, o, 4, 2, 1), nn.LeakyReLU(.1))
    if name == 'conv28':
        return nn.Sequential(*conv(1, 32), *conv(32, 64), nn.Flatten(), nn.Linear(64*49, 128), nn.LeakyReLU(.1), nn.Linear(128, 1)), (64, 1, 28, 28)
    return nn.Sequential(*conv(3, 32), *conv(32, 64), *conv(64, 128), *conv(128, 256), nn.Flatten(), nn.Linear(256*16, 1)), (64, 3, 64, 64)

def d_loss(D, x, fake):
    from torch.nn.functional import softplus
    return softplus(-D(x)).mean() + softplus(D(fake)).mean()

def g_loss(D, fake):
    from torch.nn.functional import softplus
    return softplus(-D(fake)).mean()

def naive(D, x, fake, K, optimizer):
    "What a careful reader would write: a plain loop with create_graph=True, textbook updates."
    import torch
    from torch.func import functional_call
    p = {n: q.detach().requires_grad_() for n, q in D.named_parameters()}
    m = v = {n: torch.zeros_like(q) for n, q in p.items()}
    call = lambda p: lambda x: functional_call(D, p, (x,))
    for t in range(1, K+1):
        g = dict(zip(p, torch.autograd.grad(d_loss(call(p), x, fake), list(p.values()), create_graph=True)))
        if optimizer == 'sgd': p = {n: p[n] - .1*g[n] for n in p}; continue
        m = {n: .5*m[n] + .5*g[n] for n in p}
        v = {n: .999*v[n] + .001*g[n]**2 for n in p}
        p = {n: p[n] - 1e-3*(m[n]/(1-.5**t))/((v[n]/(1-.999**t) + 1e-24).sqrt() + 1e-8) for n in p}
    return torch.autograd.grad(g_loss(call(p), fake), fake)[0]

def with_higher(D, x, fake, K, optimizer):
    import higher, torch
    opt = torch.optim.SGD(D.parameters(), .1) if optimizer == 'sgd' else torch.optim.Adam(D.parameters(), 1e-3, betas=(.5, .999))
    with higher.innerloop_ctx(D, opt) as (f, step):
        for _ in range(K): step.step(d_loss(f, x, fake))
        return torch.autograd.grad(g_loss(f, fake), fake)[0]

def with_torchopt(D, x, fake, K, optimizer):
    import torch, torchopt
    saved = torchopt.extract_state_dict(D, by='reference')
    opt = torchopt.MetaSGD(D, lr=.1) if optimizer == 'sgd' else torchopt.MetaAdam(D, lr=1e-3, betas=(.5, .999), eps_root=1e-24)
    for _ in range(K): opt.step(d_loss(D, x, fake))
    gradient = torch.autograd.grad(g_loss(D, fake), fake)[0]
    torchopt.recover_state_dict(D, saved)
    return gradient

def ours(mode):
    from disentangle_nb.unroll import adam, sgd, stateless, unroll
    import torch
    how = {'graph': dict(remat=False), 'replay': dict(), 'compiled': dict(compile=True)}[mode.split()[0]]
    def f(D, x, fake, K, optimizer, made={}):
        if not made: made.update(call=stateless(D), opt=sgd(.1) if optimizer == 'sgd' else adam(1e-3, (.5, .999)))
        call = lambda p: lambda x: made['call'](p, x)
        with torch.autocast('cpu', torch.bfloat16, enabled='bf16' in mode):
            theta_K = unroll(lambda p, x, fake: d_loss(call(p), x, fake), dict(D.named_parameters()), (x, fake), K, made['opt'], **how)
            loss = g_loss(call(theta_K), fake)
        return torch.autograd.grad(loss, fake)[0]
    return f

def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/(2**20 if sys.platform == 'darwin' else 2**10)

def worker(pipe, net, optimizer, K, implementation):
    "Answer every message with the CPU seconds of one call, the last one (None) with what else was measured."
    warnings.simplefilter('ignore')
    import torch
    torch.set_num_threads(1)
    D, shape = network(net)
    rng = torch.Generator().manual_seed(0)
    x, fake = torch.randn(shape, generator=rng), torch.randn(shape, generator=rng)
    if implementation == 'float64': D, x, fake = D.double(), x.double(), fake.double()
    fake.requires_grad_()
    f = {'naive': naive, 'float64': naive, 'higher': with_higher, 'torchopt': with_torchopt}.get(implementation) or ours(implementation)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        start = time.time()
        gradient = f(D, x, fake, K, optimizer)
        first = time.time() - start
    fell_back = any('runs uncompiled' in str(w.message) for w in told)
    pipe.send({'first_s': first, 'gradient': gradient.double().numpy(), 'fell_back': fell_back})
    def turn(calls):
        start = time.process_time()
        for _ in range(calls): f(D, x, fake, K, optimizer)
        took = time.process_time() - start
        # glibc holds on to what was freed: too much for nine processes
        if peak() > 2000 and sys.platform == 'linux': ctypes.CDLL(None).malloc_trim(0)
        return took/max(1, calls)
    turn(0)
    calls = 1 if first > 1 and 'compiled' not in implementation else None
    while pipe.recv() is not None:
        calls = calls or max(1, round(.3/turn(1)))
        pipe.send(turn(calls))
    pipe.send(peak())

def group(net, optimizer, K, rounds, implementations, reference):
    "The rows of one group."
    import numpy as np
    ctx, started = mp.get_context('forkserver'), {}
    for name in implementations + ['float64']*reference:
        here, there = ctx.Pipe()
        p = ctx.Process(target=worker, args=(there, net, optimizer, K, name), daemon=True)
        p.start(); there.close()
        started[name] = p, here
        told = here.recv()                       # one after the other: first calls do not disturb each other
        started[name] += (told,)
    truth = started['float64'][2]['gradient'] if reference else None
    names, seconds = implementations, {n: [] for n in implementations}
    for _ in range(rounds):
        for n in names:
            started[n][1].send('go')
            seconds[n].append(started[n][1].recv())
    rows = []
    for n in names:
        p, pipe, told = started[n]
        pipe.send(None)
        row = dict(net=net, optimizer=optimizer, K=K, implementation=n, cpu_s=statistics.median(seconds[n]), rounds=rounds,
                   peak_mb=round(pipe.recv()), first_s=round(told['first_s'], 2))
        if reference: row['error'] = float(np.linalg.norm(told['gradient'] - truth)/np.linalg.norm(truth))
        if told['fell_back']: row['fell_back'] = True
        rows.append(row)
        p.join()
    if reference: started['float64'][0].kill()
    return rows

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--nets', nargs='+', default=list(NETS), choices=NETS)
    p.add_argument('--optimizers', nargs='+', default=['sgd', 'adam'], choices=['sgd', 'adam'])
    p.add_argument('--steps', type=int, nargs='+', default=[1, 2, 5, 10, 20, 50], help='values of K')
    p.add_argument('--rounds', type=int, default=None, help='rounds of every group (default 7 at K=10, else 3; for conv64 3 and 1)')
    p.add_argument('--implementations', nargs='+', default=IMPLEMENTATIONS, choices=IMPLEMENTATIONS)
    p.add_argument('--out', type=Path, default=None, help='folder for benchmarks.json (default samples/benchmarks if everything is run)')
    p.add_argument('--resume', action='store_true', help='keep the groups that benchmarks.json has')
    args = p.parse_args()
    os.environ['OMP_NUM_THREADS'] = os.environ['TORCHINDUCTOR_COMPILE_THREADS'] = '1'
    # the first compilation of a configuration is timed: never from a cache
    os.environ['TORCHINDUCTOR_FORCE_DISABLE_CACHES'] = '1'
    sys.path.insert(0, str(HERE))
    mp.set_forkserver_preload(['torch', 'torch._inductor.compile_fx', 'disentangle_nb.unroll'])
    whole = all(getattr(args, a) == p.get_default(a) for a in ('nets', 'optimizers', 'steps', 'implementations', 'rounds'))
    out = args.out or (OUT if whole else None)
    kept = out/'benchmarks.json' if args.resume and out else None
    rows = json.loads(kept.read_text())['rows'] if kept and kept.exists() else []
    for net in args.nets:
        for optimizer in args.optimizers:
            for K in args.steps:
                if any(all(r[k] == v for k, v in dict(net=net, optimizer=optimizer, K=K).items()) for r in rows): continue
                rounds = args.rounds or ((7 if K == 10 else 3) if net != 'conv64' else 3 if K == 10 else 1)
                got = group(net, optimizer, K, rounds, args.implementations, reference=K <= 10)
                base = next((r['cpu_s'] for r in got if r['implementation'] == 'naive'), got[0]['cpu_s'])
                for r in got:
                    print(f"{net:7}{optimizer:5} K={K:<3} {r['implementation']:14}{r['cpu_s']*1e3:9.1f} ms  x{r['cpu_s']/base:5.2f}  {r['peak_mb']:6} MB"
                          f"  error {r.get('error', float('nan')):.0e}  first call {r['first_s']:6.1f} s{'  (uncompiled)' if r.get('fell_back') else ''}", flush=True)
                rows += got
                if out:
                    out.mkdir(parents=True, exist_ok=True)
                    import higher, torchopt  # noqa: F401  (only for their versions)
                    from importlib.metadata import version
                    about = dict(command='make bench', processor=platform.processor() or platform.machine(), threads=1,
                                 versions={n: version(n) for n in ('torch', 'higher', 'torchopt')}, networks=NETS)
                    (out/'benchmarks.json').write_text(json.dumps(dict(about=about, rows=rows), indent=1) + '\n')
