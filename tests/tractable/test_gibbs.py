"""Gibbs sampling of the tractable families, whose exact answers are known: networks over pixels, the student, mixtures."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax import images
from gm_jax import markov_chain as mc
from gm_jax.tractable import bayesian_network as bn
from gm_jax.tractable import components, counting, mixture

SHAPE = 2, 3, 1
PARENTS = counting.neighbourhood(SHAPE, 4)
LEVELS = 3
STATES = np.array(list(itertools.product(range(LEVELS), repeat=6)), np.int32)  # all 729 images
PLACE = LEVELS ** np.arange(6)[::-1]


@pytest.fixture(scope="module")
def tables():
  """A network of six pixels of three levels, counted from noise with a pattern in it."""
  rng = np.random.default_rng(0)
  x = (rng.integers(0, 3, (200, 1)) + (rng.uniform(size=(200, 6)) < 0.3)) % 3
  batch = {"image": np.asarray(images.from_levels(jnp.int32(x.reshape(200, *SHAPE)), LEVELS))}
  model = counting.counted(PARENTS, LEVELS)
  state = model.init(jax.random.key(0), batch)
  return counting.fit(PARENTS, model.step(jax.random.key(0), state, batch)[0], levels=LEVELS)


@pytest.fixture(scope="module")
def law(tables):
  """The probability of each image, [729]."""
  probs = np.exp(np.float64(counting.log_prob(tables, STATES)))
  np.testing.assert_allclose(probs.sum(), 1, atol=1e-5)
  return probs / probs.sum()


def test_a_pixel_given_its_blanket_is_a_pixel_given_all_others(tables):
  """Its own table and its children's say as much as the whole joint does."""
  blanket = counting.full_conditional(tables, PARENTS)
  everything = mc.conditional_of(lambda x: counting.log_prob(tables, x), LEVELS)
  both = jax.jit(lambda index: [jax.nn.softmax(function(jnp.asarray(STATES), index)) for function in (blanket, everything)])
  for index in range(6):
    np.testing.assert_allclose(*both(index), atol=1e-5)


def test_a_sweep_over_pixels_leaves_the_network_as_it_is(tables, law):
  """The matrix that draws one pixel, for each of them: 729 x 729."""
  conditional = jax.jit(counting.full_conditional(tables, PARENTS))
  for index in range(6):
    probs = np.float64(jax.nn.softmax(conditional(jnp.asarray(STATES), index)))
    followed = np.zeros(729)
    for level in range(LEVELS):
      after = (STATES - np.eye(6, dtype=int)[index] * (STATES[:, [index]] - level)) @ PLACE
      np.add.at(followed, after, law * probs[:, level])
    np.testing.assert_allclose(followed, law, atol=1e-6)


def test_sweeps_from_one_image_lead_to_the_network(tables, law):
  """30,000 chains, all from the image of zeros, fifteen sweeps."""
  kernel = mc.gibbs(counting.full_conditional(tables, PARENTS), mc.in_order(6))
  draws = jax.jit(lambda x: mc.run(kernel, jax.random.key(0), x, 15, thin=15).state.position)(jnp.zeros((30_000, 6), jnp.int32))
  counts = np.bincount(np.asarray(draws) @ PLACE, minlength=729)
  often = law * 30_000 > 5
  seen, expected = [*counts[often], counts[~often].sum()], [*law[often], law[~often].sum()]
  assert stats.chisquare(seen, np.array(expected) * 30_000).pvalue > 1e-3


def test_pixels_that_no_sweep_names_are_evidence(tables, law):
  """Completion of an image: the second row given, the first drawn, against enumeration."""
  given = np.array([2, 0, 1])
  matches = np.all(STATES[:, 3:] == given, 1)
  conditional = law[matches] / law[matches].sum()  # of the 27 first rows
  kernel = mc.gibbs(counting.full_conditional(tables, PARENTS), lambda key: jnp.array([0, 1, 2]))
  start = jnp.concatenate([jnp.zeros((20_000, 3), jnp.int32), jnp.tile(jnp.int32(given), (20_000, 1))], 1)
  draws = np.asarray(jax.jit(lambda x: mc.run(kernel, jax.random.key(0), x, 20, thin=20).state.position)(start))
  np.testing.assert_array_equal(draws[:, 3:], np.tile(given, (20_000, 1)))
  counts = np.bincount(draws[:, :3] @ [9, 3, 1], minlength=27)
  assert stats.chisquare(counts, conditional * 20_000).pvalue > 1e-3


def test_the_student_network_by_sampling():
  """p(intelligence | strong letter, low score) by Gibbs and by exact elimination; nodes with two and with three levels."""
  net = bn.student()
  names, sizes = list(net.tables), jnp.array(list(bn.levels(net).values()))

  def log_prob(x):
    exists = (x < sizes[None]).all(1)
    return jnp.where(exists, bn.log_joint(net, dict(zip(names, jnp.minimum(x, sizes[None] - 1).T))), -jnp.inf)

  evidence = {"l": 1, "s": 0}
  free = jnp.array([index for index, name in enumerate(names) if name not in evidence])
  start = jnp.tile(jnp.array([evidence.get(name, 0) for name in names]), (200, 1))
  kernel = mc.gibbs(mc.conditional_of(log_prob, 3), lambda key: free)

  @jax.jit
  def sampled(start):
    draws = mc.run(kernel, jax.random.key(0), start, 400)
    return draws._replace(positions=draws.positions[50:, :, names.index("i")]).summary()

  summary = sampled(start)
  assert summary.effective_samples > 5000
  assert summary.r_hat < 1.01
  assert abs(summary.mean - bn.query(net, ("i",), evidence)[1]) < 4 * summary.stderr


def test_component_and_image_in_turn_leave_a_mixture_as_it_is():
  """A mixture of Bernoullis over six pixels: exact draws, one step each, against the 64 probabilities."""
  rng = np.random.default_rng(1)
  component = components.bernoulli(images.POINTS)
  params = jnp.log(jnp.array([0.2, 0.3, 0.5])), jnp.float32(rng.normal(size=(3, 6)) * 1.5)
  kernel = mc.mixture_gibbs(
    lambda x: mixture.log_joint(component, params, x), lambda key, which: component.sample(key, params[1], which)
  )
  states = np.float32(list(itertools.product(range(2), repeat=6)))
  law = np.exp(np.float64(jax.nn.logsumexp(mixture.log_joint(component, params, states), axis=1)))
  start = jnp.asarray(states[rng.choice(64, 40_000, p=law / law.sum())])
  state, _ = jax.jit(lambda x: kernel.step(jax.random.key(0), kernel.init((jnp.zeros(40_000, jnp.int32), x))))(start)
  which, x = state.position
  counts = np.bincount((np.asarray(x) @ 2 ** np.arange(6)[::-1]).astype(int), minlength=64)
  assert stats.chisquare(counts, law / law.sum() * 40_000).pvalue > 1e-3
  assert stats.chisquare(np.bincount(which), np.array([0.2, 0.3, 0.5]) * 40_000).pvalue > 1e-3
