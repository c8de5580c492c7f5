"""Images given what they have become, against the Gaussian for which every posterior is known.

Each pixel is x ~ N(0, STD^2) in [-1, 1], and is seen as c = x + BLUR n.  Given c it is Gaussian again, and so is what a
solver's table draws: its mean and its variance follow exactly.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax import images, sampling
from gm_jax.errors import UserError
from gm_jax.reconstruction import corruptions
from gm_jax.score import conditional, diffusion, grids, noise, parameterizations, recipes, solvers
from gm_jax.tasks import restoration
from tests.score import gaussian

STD, BLUR, AUGMENTATION = 0.3, 0.2, 0.6
RECIPE = recipes.edm()._replace(parameterization=parameterizations.velocity())
METHOD = solvers.Heun()(grids.karras(16, 0.02, 20.0))
CORRUPT = corruptions.gaussian(BLUR / 2)  # of x in [0, 1]
RNG = np.random.default_rng(0)


class Exact(nn.Module):
  """The best F given x, c and the noise on c; a parameter shifts it."""

  augmented: bool = False

  @nn.compact
  def __call__(self, seen, number, label, train):
    assert label is None
    shift = self.param("shift", nn.initializers.zeros, ())
    log_snr = 20 - number / 25  # see parameterizations.level_number
    x, c = seen[..., :1], seen[..., 1:2]
    a, s = noise.like(noise.alpha(log_snr), x), noise.like(noise.sigma(log_snr), x)
    on_c = seen[..., 2:3] if self.augmented else 0.0
    own = jnp.sqrt(1 - on_c**2)
    precision = own**2 / (own**2 * BLUR**2 + on_c**2)  # of x_0 by c
    guess = (a / s**2 * x + precision / own * c) / (1 / STD**2 + precision + (a / s) ** 2)
    return (a * x - guess) / s + shift  # v


def model(augmentation=0.0, **options):
  sampler = diffusion.Sampler(METHOD)
  network = Exact(augmentation > 0)
  told = dict(augmentation=augmentation, **options)
  return conditional.conditional_diffusion(network, optax.sgd(0.0), RECIPE, sampler, CORRUPT, **told)


def pictures(num, shape=(1, 1, 1)):
  return np.asarray(images.from_symmetric(STD * RNG.standard_normal((num, *shape)).astype(np.float32)))


def begun(model, num=64, shape=(1, 1, 1)):
  return jax.jit(model.init)(jax.random.key(0), {"image": pictures(num, shape)})


def posterior(c):
  """Mean and variance of x given c."""
  precision = 1 / STD**2 + 1 / BLUR**2
  return c / BLUR**2 / precision, 1 / precision


def test_samples_are_drawn_from_the_posterior():
  num, c = 20_000, np.array([-0.4, 0.0, 0.25, 0.6])
  chosen = model()
  state = begun(chosen, shape=(2, 2, 1))
  condition = np.tile(((c + 1) / 2).astype(np.float32).reshape(1, 2, 2, 1), (num, 1, 1, 1))
  drawn = jax.jit(chosen.sample, static_argnums=2)(jax.random.key(1), state, num, condition)
  assert drawn.dtype == jnp.uint8
  found = np.asarray(images.to_symmetric(drawn), np.float64).reshape(num, 4)
  for pixel, value in enumerate(c):
    mean, variance = posterior(value)
    exact_mean, exact_variance = gaussian.moments(METHOD, mean, np.sqrt(variance))[:, -1]
    assert abs(found[:, pixel].mean() - exact_mean) < 4.5 * np.sqrt(exact_variance / num)
    assert abs(found[:, pixel].var() / exact_variance - 1) < 4.5 * np.sqrt(2 / num) + 1e-3
    # And the table is close to the posterior itself.
    assert abs(exact_mean - mean) < 0.01
    assert abs(exact_variance / variance - 1) < 0.15


@pytest.mark.parametrize("augmentation", [0.0, AUGMENTATION])
def test_the_loss_of_the_best_guess_is_its_closed_form(augmentation):
  """E |D - x_0|^2 at a level of noise on x and another on c, of which the network must have been told both."""
  num, chosen = 2**15, model(augmentation)
  data = pictures(num)
  state = begun(chosen)
  score = jax.jit(chosen.evaluate)(jax.random.key(1), state, {"image": data, "label": np.zeros(num, np.int32)})
  found = np.asarray(score["denoising"], np.float64)
  visited = RECIPE.levels.sample(jax.random.key(2), num)
  on_c = augmentation * RNG.random(num)
  precision = (1 - on_c**2) / ((1 - on_c**2) * BLUR**2 + on_c**2)
  snr = np.exp(np.asarray(visited, np.float64))
  expected = np.asarray(RECIPE.weight(visited), np.float64) / (1 / STD**2 + precision + snr)
  spread = np.hypot(found.std(), expected.std()) / np.sqrt(num)
  assert abs(found.mean() - expected.mean()) < 4.5 * spread
  ignorant = np.asarray(RECIPE.weight(visited), np.float64) / (1 / STD**2 + snr)
  assert ignorant.mean() - expected.mean() > 20 * spread  # who does not look at c


def test_noise_on_what_is_given_keeps_its_variance_and_is_told():
  seen = jnp.asarray(RNG.standard_normal((30_000, 1, 1, 1)), jnp.float32)
  deviation = jnp.where(jnp.arange(30_000) % 2 == 0, 0.0, 0.8)
  given = conditional.augmented(jax.random.key(0), seen, deviation)
  np.testing.assert_array_equal(given.picture[::2], seen[::2])
  np.testing.assert_array_equal(given.noise, deviation)
  noisy, clean = np.asarray(given.picture[1::2]).ravel(), np.asarray(seen[1::2]).ravel()
  assert abs(noisy.var() - 1) < 4.5 * np.sqrt(2 / 15_000)
  assert abs(np.corrcoef(noisy, clean)[0, 1] - 0.6) < 0.03


def test_the_mean_of_several_samples_is_nearer_by_what_theory_says():
  num = 10_000
  chosen = model()
  x_0 = STD * RNG.standard_normal((num, 1, 1, 1))
  c = x_0 + BLUR * RNG.standard_normal(x_0.shape)
  state, condition = begun(chosen), jnp.asarray((c + 1) / 2, jnp.float32)
  _, least = posterior(0.0)
  table = gaussian.moments(METHOD, 0.0, np.sqrt(least))[1, -1]  # of the variance of a sample
  for num_draws in (1, 6):
    mean = jax.jit(lambda state, x, k=num_draws: conditional.mean_of(chosen, jax.random.key(3), state, x, k))
    found = np.asarray(images.to_symmetric(mean(state, condition)), np.float64)
    error, expected = np.square(found - x_0).mean(), least + table / num_draws
    assert abs(error / expected - 1) < 4.5 * np.sqrt(2 / num)


class Small(nn.Module):
  """A convolution of all that is seen."""

  features: int

  @nn.compact
  def __call__(self, seen, number, label, train):
    return nn.Conv(self.features, (3, 3))(seen) + nn.Dense(1)(number[:, None])[:, None, None] / 1000


def test_every_input_changes_the_output():
  x = jnp.asarray(RNG.standard_normal((2, 4, 4, 3)), jnp.float32)
  told = lambda picture, level: conditional.Given(picture, jnp.full(2, level))
  module = conditional.Conditional(Small(3), parameterizations.velocity(), AUGMENTATION)
  variables = jax.jit(module.init)(jax.random.key(0), x, told(x, 0.0), 0.0)
  apply = jax.jit(module.apply)  # levels are arrays: traced once
  base = apply(variables, x, told(x, 0.0), 0.0)
  for other in ((x, told(x, 0.3), 0.0), (x, told(-x, 0.0), 0.0), (-x, told(x, 0.0), 0.0), (x, told(x, 0.0), 1.0)):
    assert np.abs(apply(variables, *other) - base).max() > 1e-3
  plain = conditional.Conditional(Small(3), parameterizations.velocity())
  kernel = jax.eval_shape(plain.init, jax.random.key(0), x, told(x, 0.0), 0.0)["params"]["network"]["Conv_0"]["kernel"]
  assert (kernel.shape[2], variables["params"]["network"]["Conv_0"]["kernel"].shape[2]) == (6, 7)


CORRUPTIONS = {  # what is lost, what of it samples are held to
  "coarse": (corruptions.coarse(2), conditional.blocks_kept(2, corruptions.enlarged)),
  "grey": (corruptions.grey(), conditional.grey_kept),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_samples_become_what_they_were_given(name):
  """In floats and exactly; in bytes but for rounding.  Without a condition, kept training images are restored."""
  corrupt, keeps = CORRUPTIONS[name]
  shape = (6, 8, 3)
  x_0 = jnp.asarray(RNG.uniform(-0.3, 0.3, (5, *shape)), jnp.float32)
  seen = corrupt(None, x_0)
  guess = lambda x, log_snr, label=None: 0.5 * x
  x = jnp.asarray(RNG.standard_normal(x_0.shape), jnp.float32)
  found = jax.jit(lambda seen: keeps(seen)(guess)(x, 0.0))(seen)
  np.testing.assert_allclose(corrupt(None, found), seen, atol=1e-5)
  assert np.abs(found - x_0).max() > 0.1

  sampler = diffusion.Sampler(solvers.DDIM()(grids.karras(3)))
  chosen = conditional.conditional_diffusion(Small(3), optax.sgd(0.0), recipes.edm(), sampler, corrupt, keeps=keeps)
  middle = RNG.integers(120, 135, (7, *shape)).astype(np.uint8)
  state = jax.jit(chosen.init)(jax.random.key(0), {"image": middle})
  state = jax.tree.map(lambda leaf: 0.1 * leaf if leaf.dtype == jnp.float32 else leaf, state)  # far from black and white
  condition = np.asarray(images.from_unit(corrupt(None, images.to_unit(jnp.asarray(middle)))))
  unit = lambda array: np.asarray(images.to_unit(jnp.asarray(array)))
  drawn = sampling.draw(chosen, state, seed=0, num=7, batch_size=4, condition=condition)
  assert (drawn != middle).any()
  assert np.abs(corrupt(None, unit(drawn)) - unit(condition)).max() < 1.6 / 255

  free = sampling.draw(chosen, state, seed=0, num=5)
  apart = np.abs(corrupt(None, unit(free))[:, None] - corrupt(None, unit(middle))[None]).max((2, 3, 4))
  assert (apart.min(1) < 1.6 / 255).all()
  assert len(set(apart.argmin(1))) > 1


@pytest.mark.parametrize("condition", [np.zeros(3, np.int32), np.zeros((3, 2, 2, 1), np.float32), np.zeros((2, 1, 1, 1))])
def test_conditions_that_are_no_corrupted_images_are_refused(condition):
  chosen = model()
  with pytest.raises(UserError, match="corrupted images"):
    chosen.sample(jax.random.key(0), begun(chosen), 3, condition)


@pytest.mark.parametrize(("augmentation", "sampling_noise"), [(0.2, 0.3), (-0.1, -0.1), (1.1, 0.0)])
def test_impossible_noise_is_refused(augmentation, sampling_noise):
  with pytest.raises(UserError, match="sampling_noise"):
    model(augmentation, sampling_noise=sampling_noise)


def test_both_ways_to_restore_are_compared():
  chosen = model()
  state, originals = begun(chosen, shape=(4, 4, 1)), pictures(200, (4, 4, 1))
  one = jax.jit(lambda state, x: chosen.sample(jax.random.key(0), state, len(x), x))
  mean = jax.jit(lambda state, x: conditional.mean_of(chosen, jax.random.key(1), state, x, 8))
  task = restoration.Restoration(CORRUPT, one, {"nothing": images.from_unit}, {"mean": mean})
  compared = restoration.compare(task, state, originals, jax.random.key(0))
  assert list(compared.pictures) == ["original", "corrupted", "nothing", "model", "mean"]
  scores = {name: scores["psnr"].mean() for name, scores in compared.scores.items()}
  assert scores["mean"] > scores["model"] + 1.5
  assert scores["mean"] > scores["corrupted"] + 0.5
