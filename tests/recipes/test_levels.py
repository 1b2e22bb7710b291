"""Levels in a recipe: one line each, of any kind, and grids in a hierarchy without a path."""

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

import pyro_vae as pv
from pyro_vae.recipes.build import build_program
from pyro_vae.recipes.parser import RecipeParser
from pyro_vae.recipes.recipe import read_recipe
from pyro_vae.testing import check_program
from pyro_vae.validation import InvalidInput

RECIPE = """
program: LadderVAE
levels:
  - {shape: [2, 4, 4], cells: 2, times: 2}
  - shape: [3, 2, 2]
    posterior: Mixture
    level_prior: {class_path: Mixture, init_args: {components: 2}}
  - {shape: [6]}
level_network:
  class_path: Cells
  init_args: {kind: {class_path: Plain, init_args: {kernel_size: 1}}}
posterior: RelativeNormal
encoder: {class_path: Cells, init_args: {size: [4, 4], width: 5}}
decoder: {class_path: Cells, init_args: {width: 4}}
"""
X = pv.datasets.Dataset(
    torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)).round(),
    torch.arange(6) % 3,
    binarize="none",
)


def parsed(tmp_path, text, *flags):
    (tmp_path / "recipe.yaml").write_text(text)
    parser = RecipeParser(ArgumentParser(exit_on_error=False))
    return parser, parser.parse(flags, read_recipe(tmp_path / "recipe.yaml"))


def built(tmp_path, text, *flags):
    parser, options = parsed(tmp_path, text, *flags)
    return build_program(parser.recipe(options), X)


def test_a_recipe_of_levels(tmp_path):
    program = built(tmp_path, RECIPE)
    assert program.path.latents == [(2, 4, 4), (2, 4, 4), (3, 2, 2), (6,)]
    assert program.path.states == [(5, 4, 4), (5, 4, 4), (5, 2, 2), (5, 1, 1)]
    assert [type(part).__name__ for part in program.posteriors] == [
        "RelativeNormal", "RelativeNormal", "Mixture", "RelativeNormal",
    ]  # fmt: skip
    assert program.priors[2].components == 2
    assert [up.cells for up in program.path.ups] == [2, 2, 1, 1]
    assert program.path.ups[0].body[0].bent[1].kernel_size == (1, 1)
    check_program(program, X.x)


def test_a_level_is_one_line_and_one_flag(tmp_path):
    more = RECIPE.replace("  - {shape: [6]}", "  - {shape: [4, 1, 1]}\n  - {shape: [6]}")
    deeper = built(tmp_path, more)
    assert len(deeper.priors) == 5 and deeper.path.latents[3] == (4, 1, 1)
    flag = built(tmp_path, RECIPE, "--levels", "[{shape: [2, 4, 4]}, {shape: [2, 2, 2], times: 3}]")
    assert flag.path.latents == [(2, 4, 4), *[(2, 2, 2)] * 3]


def test_a_recipe_that_was_written_builds_the_same_program(tmp_path):
    parser, options = parsed(tmp_path, RECIPE)
    again = built(tmp_path, parser.dump(options))
    first = built(tmp_path, RECIPE)
    for p, q in zip(first.parameters(), again.parameters()):
        assert torch.equal(p, q)


CODES = """
program: LadderVAE
levels:
  - {shape: [3, 4, 4]}
  - {shape: [2, 2, 2], level_prior: {class_path: PixelCNN, init_args: {width: 4, layers: 1}}}
  - {shape: [5], posterior: DiagonalNormal}
posterior: {class_path: Codebook, init_args: {codes: 7}}
level_prior: UniformCodes
encoder: {class_path: Cells, init_args: {size: [4, 4], width: 5}}
decoder: {class_path: Cells, init_args: {width: 4}}
"""


def test_levels_of_codes_and_the_networks_that_stand_where_none_is_named(tmp_path):
    program = built(tmp_path, CODES)
    assert [type(part).__name__ for part in program.priors] == [
        "UniformCodes", "PixelCNN", "StandardNormal",
    ]  # fmt: skip
    assert [type(part).__name__ for part in program.posteriors] == [
        "Codebook", "Codebook", "DiagonalNormal",
    ]  # fmt: skip
    assert program.priors[1].width == 4 and program.posteriors[0].codes == 7
    assert type(program.priors[1].network) is type(program.path.ups[0]) is pv.networks.Cells
    pv.fit(program, X.x, epochs=1, compile="off", progress=False)
    assert all(program.posteriors[level].initialized for level in (0, 1))
    parts = pv.evaluation.decompose(program, X.x, 2)
    nats = 16 * torch.tensor(7.0).log().item()
    assert parts["kl/z1"].mean == pytest.approx(nats, rel=1e-5)
    flags = ("--prior", "UniformCodes", "--level_prior", "PixelCNN", "--level_prior.width", "3")
    uniform = built(tmp_path, CODES, *flags, "--levels", "[{shape: [3, 4, 4]}, {shape: [4]}]")
    assert uniform.priors[0].width == 3 and type(uniform.priors[1]) is pv.priors.UniformCodes


def test_codes_in_a_hierarchy_without_a_path(tmp_path):
    recipe = """
    program: {class_path: HierarchicalVAE, init_args: {inference: top_down, skip: true}}
    latent: [[2, 3], [2, 2], [4]]
    prior: UniformCodes
    level_prior: %s
    posterior: {class_path: Codebook, init_args: {codes: 5}}
    """
    for name in ("UniformCodes", "PixelCNN"):
        program = built(tmp_path, recipe % name)
        assert type(program.priors[0]).__name__ == name
        program.initialize(X.x)
        assert all(posterior.initialized for posterior in program.posteriors)
        assert pv.elbo(program, X.x, 1).values.isfinite().all()


INNER = {
    "ladder": "{program: LadderVAE, levels: [{shape: [2, 4, 4]}, {shape: [3, 2, 2]}], "
    "posterior: DiagonalNormal, encoder: {class_path: Cells, init_args: {width: 4}}}",
    "vectors": "{program: HierarchicalVAE, latent: [4, 2], context: labels}",
}


@pytest.mark.parametrize("kind", INNER)
@pytest.mark.parametrize(
    "name, option, value",
    [
        ("StandardNormal", None, None),
        ("GaussianMixture", "components", 3),
        ("StudentT", "df", 4.0),
        ("pyro_vae.priors.Flow", "transforms", 1),
    ],
)
def test_priors_below_the_top_that_take_no_input(kind, name, option, value, tmp_path):
    flags = (f"--level_prior.{option}", str(value)) if option else ()
    program = built(tmp_path, INNER[kind], "--level_prior", name, *flags)
    assert type(program.priors[0]) is getattr(pv.priors, name.rpartition(".")[2])
    assert option is None or vars(program.priors[0])[option] == value
    check_program(program, X.x, context=X.context if kind == "vectors" else None)


def test_labels_go_to_the_path_and_the_likelihood(tmp_path):
    program = built(tmp_path, f"context: labels\n{RECIPE}")
    check_program(program, X.x, context=X.context)
    one, other = (pv.generate(program, 1, context=label) for label in (0, 1))
    assert not torch.equal(one, other)


def test_grids_of_a_hierarchy_without_a_path(tmp_path):
    recipe = yaml.safe_load("{program: HierarchicalVAE, latent: [[2, 4, 4], [3, 2, 2], 5]}")
    for options in ({}, {"inference": "top_down", "skip": True}):
        recipe["program"] = {"class_path": "HierarchicalVAE", "init_args": options}
        program = built(tmp_path, yaml.safe_dump(recipe))
        z = pv.encode(program, X.x)
        assert {name: tuple(value.shape[1:]) for name, value in z.items()} == {
            "z1": (2, 4, 4), "z2": (3, 2, 2), "z3": (5,),
        }  # fmt: skip
        assert pv.elbo(program, X.x, 2).values.isfinite().all()


def test_vector_levels_are_what_they_were(tmp_path):
    """The weights of a recipe from before there were grids, in the order of their drawing."""
    program = built(
        tmp_path,
        """
        program: {class_path: HierarchicalVAE, init_args: {inference: top_down, skip: true}}
        latent: [3, 2]
        encoder: {class_path: GatedMLP, init_args: {hidden: [4]}}
        decoder: {class_path: GatedMLP, init_args: {hidden: [4]}}
        level_network: {class_path: GatedMLP, init_args: {hidden: [5]}}
        """,
    )
    net, q = pv.networks.GatedMLP, pv.posteriors.DiagonalNormal
    with torch.random.fork_rng():
        torch.manual_seed(0)
        by_hand = [
            q(3, net(2, [5])),
            q(3, net((1, 8, 8), [4], context=2)),
            q(2, net((1, 8, 8), [4])),
            pv.likelihoods.Bernoulli((1, 8, 8), net(3, [4], context=2)),
        ]
    ours = [program.priors[0], *program.posteriors, program.likelihood]
    for part, again in zip(ours, by_hand):
        for p, r in zip(part.parameters(), again.parameters(), strict=True):
            assert torch.equal(p, r)


@pytest.mark.parametrize(
    "before, after, message",
    [
        ("program: LadderVAE", "program: VAE", "levels: got levels for VAE"),
        (RECIPE[RECIPE.index("levels:") : RECIPE.index("level_network")], "", "levels: got 0"),
        ("{class_path: Cells, init_args: {size: [4, 4], width: 5}}", "MLP", "--encoder Cells"),
        ("times: 2", "times: 0", "levels.times: got 0"),
        ("[2, 4, 4]", "[2, 4]", r"levels.shape: got \(2, 4\)"),
        ("context: labels", "context: labels\ncontext_to: [prior]", "context_to: got"),
    ],
)
def test_levels_that_cannot_be_are_named(tmp_path, before, after, message):
    recipe = f"context: labels\n{RECIPE}"
    assert before in recipe
    with pytest.raises(InvalidInput, match=message):
        built(tmp_path, recipe.replace(before, after))
