"""The model itself, on data whose best guess is known: what it loses, what it forgets, and what its samples are."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax import random, sampling
from gm_jax.score import diffusion, grids, guidance, levels, noise, parameterizations, recipes, solvers

STD = 0.5
RECIPES = {
  "ddpm": recipes.ddpm(noise.cosine()),
  "ddpm, a table": recipes.ddpm(),
  "velocity": recipes.velocity(),
  "edm": recipes.edm(STD),
  "flow matching": recipes.flow_matching(),
  "ncsn": recipes.ncsn(),
  "variational": recipes.variational(),
}
each_recipe = pytest.mark.parametrize("name", RECIPES)


class Exact(nn.Module):
  """The best F for data N(0, STD^2), by whatever it is asked for; a parameter shifts it."""

  parameterization: parameterizations.Parameterization

  @nn.compact
  def __call__(self, x, number, label, train):
    shift = self.param("shift", nn.initializers.zeros, ())
    log_snr = 20 - number / 25  # see parameterizations.level_number
    x = x / noise.like(self.parameterization.inp(log_snr), x)
    alpha, sigma = noise.alpha(log_snr), noise.sigma(log_snr)
    best_image, best_noise = (a / (alpha**2 * STD**2 + sigma**2) for a in (alpha * STD**2, sigma))
    gain = self.parameterization.of_image(log_snr) * best_image + self.parameterization.of_noise(log_snr) * best_noise
    return noise.like(gain, x) * x + shift


def exact(recipe, **options):
  sampler = diffusion.Sampler(solvers.DDIM()(grids.karras(20)))
  points = dict(image_shape=(1, 1, 2), read=jnp.asarray, write=lambda x: x)
  return diffusion.diffusion(Exact(recipe.parameterization), optax.sgd(0.0), recipe, sampler, **points, **options)


@each_recipe
def test_loss_of_the_best_guess_is_its_closed_form(name):
  """E |D - x_0|^2 = 1 / (1 / STD^2 + SNR) at each level: the mean over the levels that training visits, each at its weight."""
  recipe, num = RECIPES[name], 2**15
  model = exact(recipe)
  data = STD * np.random.default_rng(0).standard_normal((num, 1, 1, 2)).astype(np.float32)
  state = model.init(jax.random.key(0), {"image": data[:1]})
  found = model.evaluate(jax.random.key(1), state, {"image": data})
  found = {key: np.asarray(value, np.float64) for key, value in found.items()}
  visited = recipe.levels.sample(jax.random.key(2), num)
  snr = np.exp(np.asarray(visited, np.float64))
  expected = np.asarray(recipe.weight(visited), np.float64) / (1 / STD**2 + snr)
  spread = np.hypot(found["denoising"].std(), expected.std()) / np.sqrt(num)
  assert abs(found["denoising"].mean() - expected.mean()) < 4.5 * spread
  best = 1 / (1 / STD**2 + snr)
  assert abs(found["image_error"].mean() / best.mean() - 1) < 0.06


@each_recipe
def test_a_shifted_guess_costs_its_square(name):
  """At a level, the loss rises by weight out^2 shift^2, whatever the parameterization: nothing is scaled twice."""
  recipe = RECIPES[name]._replace(levels=levels.only([0.7]))
  model = exact(recipe)
  data = STD * np.random.default_rng(0).standard_normal((2**14, 1, 1, 2)).astype(np.float32)
  state = model.init(jax.random.key(0), {"image": data[:1]})
  moved = jax.tree.map(lambda _: jnp.float32(2.0), state.average.variables)  # the shift is the only one
  shifted = state._replace(average=state.average._replace(variables=moved))
  of = lambda state: np.asarray(model.evaluate(jax.random.key(1), state, {"image": data})["denoising"], np.float64).mean()
  level = noise.from_ratio(jnp.array([0.7]))
  rise = (recipe.weight(level) * recipe.parameterization.out(level) ** 2).item() * 4.0
  assert of(shifted) - of(state) == pytest.approx(rise, rel=0.05)


def test_network_hears_the_labels_that_are_left():
  """A share of the labels is hidden in training, none in evaluation, and a model without classes hears none."""
  heard = []

  class Listener(nn.Module):
    @nn.compact
    def __call__(self, x, number, label, train):
      heard.append(label)
      return x * self.param("gain", nn.initializers.zeros, ())

  recipe, sampler = recipes.edm(), diffusion.Sampler(solvers.DDIM()(grids.karras(2)))
  batch = {"image": np.zeros((4000, 1, 1, 1), np.float32), "label": np.arange(4000, dtype=np.int32) % 3}
  told = dict(image_shape=(1, 1, 1), read=jnp.asarray, write=lambda x: x, label_dropout=0.25)
  model = diffusion.diffusion(Listener(), optax.sgd(0.0), recipe, sampler, num_classes=3, **told)
  state = model.init(jax.random.key(0), batch)
  heard.clear()
  with jax.disable_jit():
    model.step(jax.random.key(1), state, batch)
    model.evaluate(jax.random.key(1), state, batch)
  (first, *_), last = heard, heard[-1]
  first = np.asarray(first)
  hidden = first == 3
  assert abs(hidden.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 4000)
  np.testing.assert_array_equal(first[~hidden], batch["label"][~hidden])
  np.testing.assert_array_equal(last, batch["label"])
  heard.clear()
  deaf = diffusion.diffusion(Listener(), optax.sgd(0.0), recipe, sampler, **told)
  deaf.init(jax.random.key(0), batch)
  assert heard == [None]


def test_image_of_a_seed_is_the_same_in_any_batch():
  """Rows 0 to 63 of one key, drawn 1, 7 or 64 at a time by a solver that adds noise and a guided network."""
  recipe = RECIPES["edm"]
  model = exact(recipe, num_classes=0)
  noisy = diffusion.Sampler(solvers.Heun(churn=10.0)(grids.karras(6)), (guidance.clipped(),))
  points = dict(image_shape=(1, 1, 2), read=jnp.asarray, write=lambda x: x)
  model = diffusion.diffusion(Exact(recipe.parameterization), optax.sgd(0.0), recipe, noisy, **points)
  state = model.init(jax.random.key(0), {"image": np.zeros((1, 1, 1, 2), np.float32)})
  drawn = [sampling.draw(model, state, seed=3, num=64, batch_size=size) for size in (1, 7, 64)]
  for other in drawn[1:]:
    np.testing.assert_allclose(drawn[0], other, atol=1e-5)
  assert len(np.unique(drawn[0].reshape(64, -1), axis=0)) > 60  # a few may meet in a corner of the range


@pytest.mark.parametrize("name", ["ddpm", "edm", "flow matching", "velocity"])
def test_samples_have_the_datas_variance(name):
  model = exact(RECIPES[name])
  state = model.init(jax.random.key(0), {"image": np.zeros((1, 1, 1, 2), np.float32)})
  x = np.asarray(jax.jit(model.sample, static_argnums=2)(jax.random.key(1), state, 20_000), np.float64)
  method = solvers.DDIM()(grids.karras(20))
  # What DDIM makes of the exact guess: a product of factors (its own oracles are in test_solvers).
  gain = STD**2 * noise.alpha(method.log_snr) / (noise.alpha(method.log_snr) ** 2 * STD**2 + noise.sigma(method.log_snr) ** 2)
  factor = np.prod(method.weights[:, 0, 0] + method.weights[:, 0, 1] * gain)
  assert x.std() == pytest.approx(abs(factor), rel=4 / np.sqrt(2 * x.size))
  assert abs(x.mean()) < 4 * abs(factor) / np.sqrt(x.size)


def test_a_network_asked_for_the_noise_cannot_start_from_nothing_but_noise():
  recipe = RECIPES["ddpm"]
  sampler = diffusion.Sampler(solvers.DDIM()(grids.in_time(noise.straight(), 5)))
  with pytest.raises(ValueError, match="nothing is left of the image"):
    diffusion.diffusion(Exact(recipe.parameterization), optax.sgd(0.0), recipe, sampler, image_shape=(1, 1, 2))


# Labels hidden in training.


def test_labels_are_hidden_one_by_one_at_the_rate_that_was_asked_for():
  label = jnp.arange(20_000) % 3
  hide = lambda key: np.asarray(diffusion.hidden(jax.random.key(key), label, 0.1, 3))
  found = hide(0)
  gone = found == 3
  np.testing.assert_array_equal(found[~gone], label[~gone])
  assert abs(gone.mean() - 0.1) < 4 * np.sqrt(0.09 / 20_000)
  blocks = gone.reshape(200, 100).sum(1)  # all of a batch alike would be 0 or 100
  assert abs(blocks.var() / 9 - 1) < 4 * np.sqrt(2 / 200)
  assert (hide(1) != found).any()
  np.testing.assert_array_equal(diffusion.hidden(jax.random.key(0), label[:7], 0.1, 3), found[:7])
  assert diffusion.hidden(jax.random.key(0), None, 0.5, 3) is None
  np.testing.assert_array_equal(diffusion.hidden(jax.random.key(0), label, 0.5, 0), label)


def test_what_is_hidden_has_nothing_to_do_with_the_noise():
  seen = {}

  class Network:
    parameterization, num_classes = parameterizations.image(), 3

    def output(self, x, log_snr, label, train):
      seen.update(x=np.asarray(x), log_snr=np.asarray(log_snr), label=np.asarray(label))
      return x

  batch = {"image": np.zeros((4000, 1, 1, 1), np.uint8), "label": np.zeros(4000, np.int32)}

  def run(share, train=True):
    objective = diffusion.denoising(recipes.edm(), label_dropout=share)
    objective(Network(), jax.random.key(5), batch, train)
    return dict(seen)

  shown, hidden = run(0.0), run(0.4)
  for name in ("x", "log_snr"):
    np.testing.assert_array_equal(shown[name], hidden[name])
  assert (shown["label"] == 0).all()
  assert (run(0.4, train=False)["label"] == 0).all()
  gone = hidden["label"] == 3
  assert abs(gone.mean() - 0.4) < 0.04
  level, eps = hidden["log_snr"], hidden["x"].ravel()
  eps = (eps + noise.alpha(level)) / noise.sigma(level)
  for value in (eps, level):
    assert abs(np.corrcoef(gone, value)[0, 1]) < 4 / np.sqrt(4000)
  # Nor with the draws of the same key elsewhere.
  assert abs(np.corrcoef(eps, np.asarray(random.normal(jax.random.key(5), 4000)))[0, 1]) < 4 / np.sqrt(4000)
