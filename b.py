import torch, pyro_vae as pv, warnings, numpy as np
from torch import nn
def t(name,f):
    try: print("##",name,"OK", str(f())[:500],flush=True)
    except BaseException as e: print("##",name,type(e).__name__, ":", str(e)[:600],flush=True)
v=pv.VAE(prior=pv.priors.StandardNormal(2),likelihood=pv.likelihoods.Normal((3,),pv.networks.MLP(2,[16],context=2)),posterior=pv.posteriors.DiagonalNormal(2,pv.networks.MLP(3,[16],context=2)),context=nn.Identity())
a=pv.generate(v,2,context=[.5,1.]); b=pv.generate(v,2,context=torch.tensor([[.5,1.],[.5,1.]])); print("same as shared:",torch.equal(a,b))
# parameters after fit w/ validation, trained
X=torch.randn(200,3); g=lambda: pv.VAE(prior=pv.priors.StandardNormal(2),likelihood=pv.likelihoods.Normal((3,),pv.networks.MLP(2,[16])),posterior=pv.posteriors.DiagonalNormal(2,pv.networks.MLP(3,[16])))
v=g(); s=pv.log_likelihood(v,X,num_samples=1); print(s.pareto_k[:3],s.above_threshold,s.ess[:3], s)
s=pv.log_likelihood(v,X,num_samples=100); print(s, s.above_threshold, s.ess[:3])
rng=torch.get_rng_state(); pv.generate(v,3); pv.elbo(v,X,num_samples=2); print("rng kept",torch.equal(rng,torch.get_rng_state()))
t("ds",lambda: pv.datasets.load("digits")[0].sha256)
tr,te=pv.datasets.load("digits"); t("idx",lambda:type(tr[0])); t("ds[[1,2]]",lambda: len(tr[[1,2]])); t("ds[mask]",lambda: len(tr[tr.values<3] if hasattr(tr,'values') else 0)); t("iter",lambda: next(iter(tr)))
t("x",lambda:(tr.x.shape,tr.values.shape if tr.values is not None else None, tr.context.shape)); t("loader",lambda: next(iter(torch.utils.data.DataLoader(tr,4))))
class DS(torch.utils.data.Dataset):
    def __len__(self): return 20
    def __getitem__(self,i):
        if i>=20: raise IndexError
        return X[i]
t("own ds x only",lambda: pv.elbo(v,DS(),num_samples=2)); t("TensorDataset x only",lambda: pv.elbo(v,torch.utils.data.TensorDataset(X),num_samples=2))
class DS2(DS):
    def __getitem__(self,i): return {"x":X[i]}
t("dict ds",lambda: pv.elbo(v,DS2(),num_samples=2))
class DS3(DS):
    def __getitem__(self,i): return X[i,:i%3+1]
t("ragged ds",lambda: pv.elbo(v,DS3(),num_samples=2))
class DS4(DS):
    def __getitem__(self,i): raise OSError("disk")
t("raising ds",lambda: pv.elbo(v,DS4(),num_samples=2))
class It(torch.utils.data.IterableDataset):
    def __iter__(self): return iter(X)
t("iterable ds",lambda: pv.elbo(v,It(),num_samples=2))
from PIL import Image
import torchvision
t("torchvision PIL ds",lambda: pv.elbo(v,torchvision.datasets.MNIST("/work/shared/data"),num_samples=2))
t("fake",lambda: pv.elbo(v,torchvision.datasets.FakeData(5,(3,8,8),transform=torchvision.transforms.ToTensor()),num_samples=2))
t("numpy f64 pair",lambda: pv.elbo(v,(X.numpy().astype('f8'),None),num_samples=2))
import pandas as pd
