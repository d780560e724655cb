"""The gradient through K steps against a naive float64 unroll: every optimiser, normalisation, K, mode, form of input and state.

Textbook updates in a plain `create_graph` loop are the reference; a second call must give the same bits.
"""
import torch
from torch import nn

from disentangle_nb.unroll import adam, adamw, rmsprop, sgd, state_of, stateless, unroll

spectral=nn.utils.parametrizations.spectral_norm
def network(norm):
    torch.manual_seed(1)
    wrap = spectral if norm=='spectral' else lambda m:m
    mid={'batch':nn.BatchNorm1d(6),'group':nn.GroupNorm(2,6),'layer':nn.LayerNorm(6),'instance':nn.Sequential(nn.Unflatten(1,(2,3)),nn.InstanceNorm1d(2),nn.Flatten()),'dropout':nn.Dropout(.3)}.get(norm,nn.Identity())
    return nn.Sequential(wrap(nn.Linear(3,6)),mid,nn.Softplus(),wrap(nn.Linear(6,1))).double()
def loss_of(call): return lambda p,x,fake: nn.functional.softplus(-call(p,x)).mean()+nn.functional.softplus(call(p,fake)).mean()
O=torch.optim
kinds={
 'sgd':(lambda:sgd(.1),lambda ps:O.SGD(ps,.1)),
 'momentum':(lambda:sgd(.1,.9,.2),lambda ps:O.SGD(ps,.1,.9,.2)),
 'nesterov':(lambda:sgd(.1,.9,nesterov=True,weight_decay=.1),lambda ps:O.SGD(ps,.1,.9,nesterov=True,weight_decay=.1)),
 'adam':(lambda:adam(.01,(.5,.9),weight_decay=.1),lambda ps:O.Adam(ps,.01,(.5,.9),weight_decay=.1)),
 'adamw':(lambda:adamw(.01,(.5,.9)),lambda ps:O.AdamW(ps,.01,(.5,.9))),
 'rmsprop':(lambda:rmsprop(.01,.9),lambda ps:O.RMSprop(ps,.01,.9)),
 'rmsprop centred':(lambda:rmsprop(.01,.9,momentum=.5,centered=True),lambda ps:O.RMSprop(ps,.01,.9,momentum=.5,centered=True))}
def textbook(kind,p,g,s,first):
    root=lambda v:(v+1e-24).sqrt()
    if kind=='sgd': return p-.1*g,s
    if kind in('momentum','nesterov'):
        if kind=='nesterov': g=g+.1*p
        d=.2 if kind=='momentum' else 0
        b=g if first else .9*s['momentum_buffer']+(1-d)*g
        return p-.1*(b if kind=='momentum' else g+.9*b),{'momentum_buffer':b,'step':1}
    if kind in('adam','adamw'):
        if kind=='adam': g=g+.1*p
        else: p=p*(1-.01*.01)
        t=s['step']+1; m=.5*s['exp_avg']+.5*g; v=.9*s['exp_avg_sq']+.1*g*g
        return p-.01*(m/(1-.5**t))/(root(v/(1-.9**t))+1e-8),{'exp_avg':m,'exp_avg_sq':v,'step':t}
    v=.9*s['square_avg']+.1*g*g
    if kind=='rmsprop': return p-.01*g/(root(v)+1e-8),{'square_avg':v}
    a=.9*s['grad_avg']+.1*g; u=g/(root(v-a*a)+1e-8); b=.5*s['momentum_buffer']+u
    return p-.01*b,{'square_avg':v,'grad_avg':a,'momentum_buffer':b}
def naive(f,params,each,K,kind,state):
    for k in range(K):
        g=torch.autograd.grad(f(params,*each[k]),list(params.values()),create_graph=True)
        new={n:textbook(kind,p,gg,state[n],not state[n].get('step')) for (n,p),gg in zip(params.items(),g)}
        params,state={n:a for n,(a,_) in new.items()},{n:b for n,(_,b) in new.items()}
    return params


def test_every_case():
    threads, worst, n = torch.get_num_threads(), {}, 0
    torch.set_num_threads(1)
    for norm in ('none','batch','group','layer','instance','spectral','dropout'):
        for kind,(mine,live) in kinds.items():
            D=network(norm); call=stateless(D); f=loss_of(call); params=dict(D.named_parameters())
            rng=torch.Generator().manual_seed(0); d=lambda: torch.randn(8,3,generator=rng).double()
            data=[(d(),d().requires_grad_()) for _ in range(10)]
            for warm in (0,2):
                opt=live(D.parameters())
                for _ in range(warm): opt.zero_grad(); f(params,*data[0]).backward(); opt.step()
                theta={k:p.detach().clone().requires_grad_() for k,p in params.items()}
                state=state_of(opt,params); full={k:state[k] or mine().init(theta[k]) for k in theta}
                for K in (0,1,3,10):
                    for many in (0,1):
                        inputs=data[:K] if many else data[0]; each=inputs if many else [data[0]]*K
                        wrt=[x[1] for x in (data[:max(K,1)] if many else data[:1])]+list(theta.values())
                        def grad(end): return torch.autograd.grad(f(end,*data[0]),wrt,allow_unused=True)
                        torch.manual_seed(7); ref=grad(naive(f,theta,each,K,kind,full))
                        for remat in (True,False):
                            for again in range(2):
                                torch.manual_seed(7); got=grad(unroll(f,theta,inputs,K,mine(),state,remat=remat))
                                if again: assert all(torch.equal(a,b) for a,b in zip(got,last))
                                last=got
                            e=max(((a-b).norm()/b.norm()).item() for a,b in [(torch.cat([t.flatten() for t in got]),torch.cat([t.flatten() for t in ref]))])
                            worst[norm,kind]=max(worst.get((norm,kind),0),e); n+=1
    torch.set_num_threads(threads)
    assert n == 7*7*2*4*2*2
    assert max(worst.values()) < 1e-10, worst
