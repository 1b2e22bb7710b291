"""Other people's codes as a step of training each; none of their code is in this project.

A function runs in a checkout of its code, which comes first on the path. It builds that code's own
model, loss and optimiser with its own published options, and returns a step of training on a batch
of zeros and ones (N, 1, 28, 28), the model, and, where `published_codes.py` trains the code, the
log-weights log p(x, z) - log q(z | x) of one draw a datum. What a step cannot do without a GPU, or
under a newer torch, is replaced here.
"""

import copy
import math
import sys
import types
from argparse import Namespace
from configparser import ConfigParser
from functools import partial
from importlib import import_module

import torch
from torch.nn import functional as F

import pyro_vae as pv


def batches(size: int):
    """Yield batches of training images for ever, each pixel drawn anew from its grey level."""
    grey = pv.datasets.load("mnist", binarize="none")[0].x
    while True:
        for few in torch.randperm(len(grey)).split(size)[: len(grey) // size]:
            yield torch.bernoulli(grey[few])


def exemplar(model_name: str, prior: str, warmup: int = 100):
    from density_estimation import parser
    from utils.optimizer import AdamNormGrad
    from utils.utils import importing_model

    options = f"--model_name {model_name} --prior {prior} --number_components 500"
    args = parser.parse_args([*options.split(), "--dataset_name", "dynamic_mnist"])
    args.device = "cpu"
    model, done = importing_model(args)(args), 0
    optimizer = AdamNormGrad(model.parameters(), lr=args.lr)

    def loss(x, beta, average):
        rows = torch.arange(len(x))[:, None]
        return model.calculate_loss((x.flatten(1), rows), beta, average=average)[0]

    def step(x):
        nonlocal done
        done += 1
        optimizer.zero_grad()
        loss(x, min(1.0, math.ceil(done * len(x) / 50_000) / warmup), True).backward()
        optimizer.step()

    return step, model, lambda x: -loss(x, 1.0, False)


def vampprior(name: str):
    import scipy

    scipy.misc = sys.modules["scipy.misc"] = types.ModuleType("scipy.misc")
    scipy.misc.logsumexp = None  # former, and used for scores alone
    sys.path.append("models")
    from utils.optimizer import AdamNormGrad

    args = Namespace(z1_size=40, z2_size=40, input_size=[1, 28, 28], number_components=500)
    args.pseudoinputs_mean, args.pseudoinputs_std, args.use_training_data_init = 0.05, 0.01, False
    args.cuda, args.input_type, args.prior, args.dataset_name = (
        False,
        "binary",
        "vampprior",
        "mnist",
    )
    args.model_name = name.lower()
    model = import_module(f"models.{name}").VAE(args)
    optimizer = AdamNormGrad(model.parameters(), lr=5e-4)

    def step(x):
        optimizer.zero_grad()
        model.calculate_loss(x.flatten(1), 1.0, average=True)[0].backward()
        optimizer.step()

    return step, model


def ladder(layers: int):
    from boilr.nn.init import data_dependent_init
    from models.lvae import LadderVAE

    downsample = {3: [1] * 3, 12: [0, 0, 0, 1] * 3}[layers]
    blocks = dict(blocks_per_layer=4, n_filters=64, dropout=0.2, gated=True)
    merges = dict(merge_type="residual", stochastic_skip=True, res_block_type="bacdbacd")
    prior = dict(learn_top_prior=True, free_bits=0.5 if layers <= 6 else 1.0)
    image = dict(img_shape=(28, 28), likelihood_form="bernoulli", downsample=downsample)
    model = LadderVAE(1, [32] * layers, **blocks, **merges, **prior, **image)
    with torch.no_grad():
        data_dependent_init(model, {"x": next(batches(64))})
    optimizer = torch.optim.Adamax(model.parameters(), lr=3e-4)

    def step(x):
        optimizer.zero_grad()
        out = model(x)
        (out["kl_loss"] - out["ll"].mean()).backward()
        optimizer.step()

    return step, model


def biva():
    from biva.evaluation import VariationalInference
    from biva.model import BivaStage, DeepVae, get_deep_vae_mnist
    from biva.utils import LowerBoundedExponentialLR, training_step
    from booster.utils import EMA

    stages, latents = get_deep_vae_mnist()
    nets = dict(stages=stages, latents=latents, q_dropout=0.5, p_dropout=0.5, type="biva")
    ends = dict(features_out=1, no_skip=False, log_var_act=torch.nn.Softplus)
    model = DeepVae(BivaStage, (-1, 1, 28, 28), **nets, **ends)
    average = EMA(model, 0.9995)
    with torch.no_grad():
        model(next(batches(48)))
    bound = VariationalInference(torch.distributions.Bernoulli, iw_samples=1)
    optimizer = torch.optim.Adamax(model.parameters(), lr=2e-3)
    schedule = LowerBoundedExponentialLR(optimizer, 0.999999, 0.0001)
    bits = [2.0] * (2 * len(latents) - 1)

    def step(x):
        training_step(x, model, bound, optimizer, schedule, beta=1.0, freebits=bits)
        average.update()

    return step, model


def nvae():
    torch.autograd.function.FunctionCtx.saved_variables = property(lambda ctx: ctx.saved_tensors)
    torch.Tensor.cuda = lambda tensor, *_: tensor
    import utils
    from model import AutoEncoder
    from thirdparty.adamax import Adamax
    from thirdparty.inplaced_sync_batchnorm import SyncBatchNormSwish

    def on_cpu(layer, x):
        where = (layer.running_mean, layer.running_var, layer.weight, layer.bias, layer.training)
        return F.silu(F.batch_norm(x, *where, layer.momentum, layer.eps))

    SyncBatchNormSwish.forward = on_cpu
    args = Namespace(dataset="mnist", use_se=True, res_dist=True, num_x_bits=8, num_nf=0)
    args.num_latent_scales, args.num_groups_per_scale, args.num_latent_per_group = 2, 10, 20
    args.ada_groups, args.min_groups_per_scale, args.num_mixture_dec = True, 1, 10
    args.num_channels_enc = args.num_channels_dec = 32
    args.num_preprocess_blocks = args.num_postprocess_blocks = 2
    args.num_preprocess_cells = args.num_postprocess_cells = 3
    args.num_cell_per_cond_enc = args.num_cell_per_cond_dec = 2
    model = AutoEncoder(args, None, utils.get_arch_cells("res_mbconv"))
    optimizer = Adamax(model.parameters(), 1e-3, weight_decay=3e-4, eps=1e-3)
    alpha = utils.kl_balancer_coeff(2, model.groups_per_scale, fun="square")

    def step(x):
        x = F.pad(x, (2, 2, 2, 2))
        optimizer.zero_grad()
        logits, _, _, kl, _ = model(x)
        nll = utils.reconstruction_loss(model.decoder_output(logits), x, crop=True)
        balanced = utils.kl_balancer(kl, 0.5, kl_balance=True, alpha_i=alpha)[0]
        norms = model.spectral_norm_parallel() + model.batchnorm_loss()
        ((nll + balanced).mean() + 1e-2 * norms).backward()
        optimizer.step()

    return step, model


def on_this_device(make, *args, device=None, **options):
    return make(*args, **options)


class Words(dict):
    """Take a name for itself."""

    def __missing__(self, key):
        return key


def efficient_vdvae():
    torch.Tensor.cuda = lambda tensor, *_: tensor
    torch.zeros = partial(on_this_device, torch.zeros)
    sys.path.insert(0, "efficient_vdvae_torch")
    file, options = ConfigParser(), Namespace()
    file.read("egs/binarized_mnist_baseline.cfg")
    for part in file.sections():  # of Python expressions, and of words
        values = {key: eval(value, {}, Words()) for key, value in file[part].items()}
        setattr(options, part, Namespace(**values))
    reader = Namespace(get_hparams_by_name=lambda _: options)
    for name, stub in {
        "hparams": "HParams",
        "torch_optimizer": "",
        "prettytable": "PrettyTable",
    }.items():
        sys.modules[name] = types.ModuleType(name)
        setattr(sys.modules[name], stub, reader)
    from model import latent_layers
    from model.adamax import Adamax
    from model.def_model import UniversalAutoEncoder
    from model.model import train_step

    latent_layers.calculate_z = lambda mean, std: (torch.randn_like(mean) * std + mean, mean, std)
    model, done = UniversalAutoEncoder(), 0
    with torch.no_grad():
        model(torch.ones(1, 1, 32, 32))
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer, whole = Adamax(model.parameters(), lr=1e-3), torch.nn.DataParallel(model)

    def step(x):
        nonlocal done
        done += 1
        train_step(whole, average, optimizer, F.pad(x, (2, 2, 2, 2)), torch.tensor(float(done)))

    return step, model
