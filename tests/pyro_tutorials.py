"""Programs in the style of Pyro's tutorials, as their authors write them, with small networks."""

import functools

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro import poutine
from pyro.distributions import constraints
from torch import nn


class VAE(nn.Module):
    """Of the tutorial on variational autoencoders: images are flattened by the user."""

    def __init__(self, z_dim=3, hidden_dim=8):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(16, hidden_dim), nn.Softplus())
        self.heads = nn.ModuleList([nn.Linear(hidden_dim, z_dim), nn.Linear(hidden_dim, z_dim)])
        self.decoder = nn.Sequential(
            nn.Linear(z_dim, hidden_dim), nn.Softplus(), nn.Linear(hidden_dim, 16), nn.Sigmoid()
        )
        self.z_dim = z_dim

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("images", x.shape[0]):
            z_loc = torch.zeros(x.shape[0], self.z_dim, dtype=x.dtype, device=x.device)
            z = pyro.sample("latent", dist.Normal(z_loc, torch.ones_like(z_loc)).to_event(1))
            loc_img = self.decoder(z)
            pyro.sample(
                "obs",
                dist.Bernoulli(loc_img, validate_args=False).to_event(1),
                obs=x.reshape(-1, 16),
            )
            return loc_img

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        pyro.module("heads", self.heads)
        with pyro.plate("images", x.shape[0]):
            hidden = self.encoder(x.reshape(-1, 16))
            z_loc, z_scale = self.heads[0](hidden), torch.exp(self.heads[1](hidden))
            pyro.sample("latent", dist.Normal(z_loc, z_scale).to_event(1))


class SSVAE(nn.Module):
    """Of the tutorial on semi-supervised learning: labels are one-hot, or none."""

    def __init__(self, output_size=3, z_dim=2):
        super().__init__()
        self.output_size, self.z_dim = output_size, z_dim
        self.encoder_y = nn.Sequential(nn.Linear(16, output_size), nn.Softmax(dim=-1))
        self.encoder_z = nn.Linear(16 + output_size, 2 * z_dim)
        self.decoder = nn.Sequential(nn.Linear(z_dim + output_size, 16), nn.Sigmoid())

    def joined(self, a, b):
        shape = torch.broadcast_shapes(a.shape[:-1], b.shape[:-1])
        return torch.cat([a.expand(*shape, -1), b.expand(*shape, -1)], -1)

    def model(self, xs, ys=None):
        pyro.module("ss_vae", self)
        batch_size = xs.size(0)
        options = dict(dtype=xs.dtype, device=xs.device)
        with pyro.plate("data"):
            prior_loc = torch.zeros(batch_size, self.z_dim, **options)
            prior_scale = torch.ones(batch_size, self.z_dim, **options)
            zs = pyro.sample("z", dist.Normal(prior_loc, prior_scale).to_event(1))
            alpha_prior = torch.ones(batch_size, self.output_size, **options) / self.output_size
            ys = pyro.sample("y", dist.OneHotCategorical(alpha_prior), obs=ys)
            loc = self.decoder(self.joined(zs, ys))
            pyro.sample("x", dist.Bernoulli(loc, validate_args=False).to_event(1), obs=xs)
            return loc

    def guide(self, xs, ys=None):
        with pyro.plate("data"):
            if ys is None:
                alpha = self.encoder_y(xs)
                ys = pyro.sample("y", dist.OneHotCategorical(alpha), infer=PARALLEL)
            loc, scale = self.encoder_z(self.joined(xs, ys)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))


PARALLEL = {"enumerate": "parallel"}


class CVAE(nn.Module):
    """Of the tutorial on conditional models: a baseline net guesses, y is what is observed."""

    def __init__(self, z_dim=2, hidden=8):
        super().__init__()
        self.z_dim, self.hidden = z_dim, hidden
        self.baseline_net = nn.Sequential(nn.Linear(4, 12), nn.Sigmoid())
        self.prior_net = nn.Linear(4 + 12, 2 * z_dim)
        self.recognition_net = nn.Linear(4 + 12, 2 * z_dim)
        self.generation_net = nn.Sequential(nn.Linear(z_dim, 12), nn.Sigmoid())

    def model(self, xs, ys=None):
        pyro.module("generation_net", self)
        with pyro.plate("data"):
            with torch.no_grad():
                y_hat = self.baseline_net(xs)
            loc, scale = self.prior_net(torch.cat([xs, y_hat], -1)).chunk(2, -1)
            zs = pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))
            loc = self.generation_net(zs)
            if ys is not None:
                pyro.sample("y", dist.Bernoulli(loc, validate_args=False).to_event(1), obs=ys)
            else:
                pyro.deterministic("y", loc.detach())
            return loc

    def guide(self, xs, ys=None):
        with pyro.plate("data"):
            if ys is None:
                y_hat = self.baseline_net(xs)
                loc, scale = self.prior_net(torch.cat([xs, y_hat], -1)).chunk(2, -1)
            else:
                loc, scale = self.recognition_net(torch.cat([xs, ys], -1)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))


class DMM(nn.Module):
    """Of the tutorial on deep Markov models: four arguments, one of them packed, and masks."""

    def __init__(self, input_dim=3, z_dim=2, rnn_dim=4):
        super().__init__()
        self.input_dim, self.rnn_dim = input_dim, rnn_dim
        self.emitter = nn.Sequential(nn.Linear(z_dim, input_dim), nn.Sigmoid())
        self.trans = nn.Linear(z_dim, 2 * z_dim)
        self.combiner = nn.Linear(z_dim + rnn_dim, 2 * z_dim)
        self.rnn = nn.RNN(input_dim, rnn_dim, nonlinearity="relu", batch_first=True)
        self.z_0 = nn.Parameter(torch.zeros(z_dim))
        self.z_q_0 = nn.Parameter(torch.zeros(z_dim))
        self.h_0 = nn.Parameter(torch.zeros(1, 1, rnn_dim))

    def model(
        self,
        mini_batch,
        mini_batch_reversed,
        mini_batch_mask,
        mini_batch_seq_lengths,
        annealing_factor=1.0,
    ):
        T_max = mini_batch.size(1)
        pyro.module("dmm", self)
        z_prev = self.z_0.expand(mini_batch.size(0), self.z_0.size(0))
        with pyro.plate("z_minibatch", len(mini_batch)):
            for t in pyro.markov(range(1, T_max + 1)):
                z_loc, z_scale = self.trans(z_prev).chunk(2, -1)
                with poutine.scale(scale=annealing_factor):
                    z_t = pyro.sample(
                        f"z_{t}",
                        dist.Normal(z_loc, F.softplus(z_scale))
                        .mask(mini_batch_mask[:, t - 1 : t])
                        .to_event(1),
                    )
                emission_probs_t = self.emitter(z_t)
                pyro.sample(
                    f"obs_x_{t}",
                    dist.Bernoulli(emission_probs_t)
                    .mask(mini_batch_mask[:, t - 1 : t])
                    .to_event(1),
                    obs=mini_batch[:, t - 1, :],
                )
                z_prev = z_t

    def guide(
        self,
        mini_batch,
        mini_batch_reversed,
        mini_batch_mask,
        mini_batch_seq_lengths,
        annealing_factor=1.0,
    ):
        T_max = mini_batch.size(1)
        pyro.module("dmm", self)
        h_0_contig = self.h_0.expand(1, mini_batch.size(0), self.rnn.hidden_size).contiguous()
        rnn_output, _ = self.rnn(mini_batch_reversed, h_0_contig)
        rnn_output = unpacked_and_reversed(rnn_output, mini_batch_seq_lengths, T_max)
        z_prev = self.z_q_0.expand(mini_batch.size(0), self.z_q_0.size(0))
        with pyro.plate("z_minibatch", len(mini_batch)):
            for t in pyro.markov(range(1, T_max + 1)):
                hidden = rnn_output[:, t - 1, :].expand(*z_prev.shape[:-1], -1)
                loc, scale = self.combiner(torch.cat([z_prev, hidden], -1)).chunk(2, -1)
                z_dist = dist.Normal(loc, F.softplus(scale))
                with poutine.scale(scale=annealing_factor):
                    z_t = pyro.sample(
                        f"z_{t}", z_dist.mask(mini_batch_mask[:, t - 1 : t]).to_event(1)
                    )
                z_prev = z_t


def unpacked_and_reversed(rnn_output, lengths, total):
    output, _ = nn.utils.rnn.pad_packed_sequence(rnn_output, batch_first=True, total_length=total)
    return reversed_sequences(output, lengths)


def reversed_sequences(x, lengths):
    steps = torch.arange(x.shape[1])
    index = torch.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
    return x.gather(1, index[..., None].expand_as(x))


def dmm_arguments(x, context):
    """What the tutorial's loader makes of sequences (N, T, D) and their lengths (N,)."""
    backwards = nn.utils.rnn.pack_padded_sequence(
        reversed_sequences(x, context), context.cpu(), batch_first=True, enforce_sorted=False
    )
    mask = torch.arange(x.shape[1]) < context[:, None]
    return x, backwards, mask, context


class ProdLDA(nn.Module):
    """Of the tutorial on topic models: softmax over dimension 1, BatchNorm, and int(max)."""

    def __init__(self, vocab_size=6, num_topics=3, hidden=8, dropout=0.2):
        super().__init__()
        self.vocab_size, self.num_topics = vocab_size, num_topics
        self.hidden, self.dropout = hidden, dropout
        self.encoder = nn.Sequential(nn.Linear(vocab_size, hidden), nn.Softplus())
        self.fcmu, self.fclv = nn.Linear(hidden, num_topics), nn.Linear(hidden, num_topics)
        self.bnmu = nn.BatchNorm1d(num_topics, affine=False)
        self.beta = nn.Linear(num_topics, vocab_size, bias=False)
        self.bn = nn.BatchNorm1d(vocab_size, affine=False)
        self.drop = nn.Dropout(dropout)

    def decoder(self, inputs):
        return F.softmax(self.bn(self.beta(self.drop(inputs))), dim=1)

    def model(self, docs):
        pyro.module("beta", self.beta)
        with pyro.plate("documents", docs.shape[0]):
            logtheta_loc = docs.new_zeros((docs.shape[0], self.num_topics))
            logtheta_scale = docs.new_ones((docs.shape[0], self.num_topics))
            logtheta = pyro.sample(
                "logtheta", dist.Normal(logtheta_loc, logtheta_scale).to_event(1)
            )
            theta = F.softmax(logtheta, -1)
            count_param = self.decoder(theta)
            total_count = int(docs.sum(-1).max())
            pyro.sample("obs", dist.Multinomial(total_count, count_param), obs=docs)

    def guide(self, docs):
        pyro.module("encoder", self.encoder)
        with pyro.plate("documents", docs.shape[0]):
            h = self.encoder(docs)
            loc, scale = self.bnmu(self.fcmu(h)), (0.5 * self.fclv(h)).exp()
            pyro.sample("logtheta", dist.Normal(loc, scale).to_event(1))


class SCANVI(nn.Module):
    """Of the tutorial on single cells: a library size, a dispersion, labels or none."""

    def __init__(self, num_genes=5, num_labels=2, latent_dim=2, alpha=0.01, scale_factor=1.0):
        super().__init__()
        self.num_genes, self.num_labels, self.latent_dim = num_genes, num_labels, latent_dim
        self.alpha, self.scale_factor = alpha, scale_factor
        self.z2_decoder = nn.Linear(latent_dim + num_labels, 2 * latent_dim)
        self.x_decoder = nn.Linear(latent_dim, 2 * num_genes)
        self.z2l_encoder = nn.Linear(num_genes, 2 * latent_dim + 2)
        self.classifier = nn.Linear(latent_dim, num_labels)
        self.z1_encoder = nn.Linear(num_labels + latent_dim, 2 * latent_dim)
        self.epsilon = 5.0e-3

    def model(self, x, y=None):
        pyro.module("scanvi", self)
        theta = pyro.param(
            "inverse_dispersion",
            10.0 * x.new_ones(self.num_genes),
            constraint=constraints.positive,
        )
        with pyro.plate("batch", len(x)), poutine.scale(scale=self.scale_factor):
            z1 = pyro.sample("z1", dist.Normal(0, x.new_ones(self.latent_dim)).to_event(1))
            y = pyro.sample("y", dist.OneHotCategorical(logits=x.new_zeros(self.num_labels)), obs=y)
            z2_loc, z2_scale = self.z2_decoder(joined(z1, y)).chunk(2, -1)
            z2 = pyro.sample("z2", dist.Normal(z2_loc, F.softplus(z2_scale)).to_event(1))
            library = pyro.sample("l", dist.LogNormal(2.0, x.new_ones(1)).to_event(1))
            gate_logits, mu = self.x_decoder(z2).chunk(2, -1)
            mu = mu.softmax(-1)
            nb_logits = (library * mu + self.epsilon).log() - (theta + self.epsilon).log()
            x_dist = dist.ZeroInflatedNegativeBinomial(
                gate_logits=gate_logits, total_count=theta, logits=nb_logits
            )
            pyro.sample("x", x_dist.to_event(1), obs=x)

    def guide(self, x, y=None):
        pyro.module("scanvi", self)
        with pyro.plate("batch", len(x)), poutine.scale(scale=self.scale_factor):
            h1, h2 = self.z2l_encoder(torch.log1p(x)).chunk(2, -1)
            pyro.sample("l", dist.LogNormal(h1[..., -1:], F.softplus(h2[..., -1:])).to_event(1))
            z2 = pyro.sample("z2", dist.Normal(h1[..., :-1], F.softplus(h2[..., :-1])).to_event(1))
            y_dist = dist.OneHotCategorical(logits=self.classifier(z2))
            if y is None:
                y = pyro.sample("y", y_dist, infer=PARALLEL)
            else:
                pyro.factor(
                    "classification_loss", -self.alpha * y_dist.log_prob(y), has_rsample=False
                )
            z1_loc, z1_scale = self.z1_encoder(joined(z2, y)).chunk(2, -1)
            pyro.sample("z1", dist.Normal(z1_loc, F.softplus(z1_scale)).to_event(1))


def joined(a, b):
    shape = torch.broadcast_shapes(a.shape[:-1], b.shape[:-1])
    return torch.cat([a.expand(*shape, -1), b.expand(*shape, -1)], -1)


def functions():
    """A model and a guide as functions, with networks and a parameter from outside."""
    encoder, decoder = nn.Linear(3, 4), nn.Linear(2, 3)

    def model(data):
        pyro.module("decoder", decoder)
        sigma = pyro.param("sigma", torch.tensor(0.7), constraint=constraints.positive)
        with pyro.plate("batch", data.shape[0]):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("data", dist.Normal(decoder(z), sigma).to_event(1), obs=data)

    def guide(data, scale=1.0):
        pyro.module("encoder", encoder)
        with pyro.plate("batch", data.shape[0]):
            loc, log_scale = encoder(data).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, scale * log_scale.exp()).to_event(1))

    return model, functools.partial(guide, scale=0.5)
