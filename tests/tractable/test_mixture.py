"""EM against what is known exactly: closed forms, enumeration, scipy, and its own promise never to lose likelihood."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax import images, parallel, testing
from gm_jax.tractable import mixture as mix

SHARE = 1e-3
VARIANCE = 1e-2
KINDS = {
  "full": mix.full_gaussian(VARIANCE),
  "tied": mix.tied_gaussian(VARIANCE),
  "diagonal": mix.diagonal_gaussian(VARIANCE),
  "bernoulli": mix.bernoulli(images.POINTS),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def points(num, seed=0, dims=3):
  """Four overlapping clumps of unequal size and shape, float32 [num, 1, 1, dims]."""
  rng = np.random.default_rng(seed)
  which = rng.choice(4, num, p=[0.1, 0.2, 0.3, 0.4])
  centres = rng.normal(size=(4, dims)) * 1.5
  shapes = rng.normal(size=(4, dims, dims)) * 0.6
  x = centres[which] + np.einsum("nij,nj->ni", shapes[which], rng.normal(size=(num, dims)))
  return x.astype(np.float32)[:, None, None]


def bits(num, seed=0, dims=9):
  """Noisy copies of three patterns, float32 0 / 1 [num, 1, 1, dims]."""
  rng = np.random.default_rng(seed)
  patterns = rng.uniform(0.05, 0.95, size=(3, dims))[rng.integers(0, 3, num)]
  return (rng.uniform(size=patterns.shape) < patterns).astype(np.float32)[:, None, None]


def data_for(kind, num, seed=0):
  return {"image": (bits if kind == "bernoulli" else points)(num, seed)}


def fitted(model, batch, steps, seed=0):
  state = jax.jit(model.init)(jax.random.key(seed), batch)
  step = jax.jit(model.step)
  for index in range(steps):
    state, _ = step(jax.random.key(index), state, batch)
  return state


def covariances(kind, params):
  """The components' covariances [K, D, D]."""
  if kind in ("full", "tied"):
    covariance = np.asarray(params[1] @ jnp.swapaxes(params[1], -1, -2))
    return np.broadcast_to(covariance, (len(params[0]), *covariance.shape[-2:]))
  return np.asarray(jax.vmap(jnp.diag)(jnp.exp(params[1])))


def made_up_log_prob(kind, params):
  """The expected log density, under each component, of the examples that the prior made up for it: [K]."""
  if kind == "bernoulli":
    return 0.5 * (jax.nn.log_sigmoid(params) + jax.nn.log_sigmoid(-params)).sum(1)
  covariance = covariances(kind, params)
  traces = np.trace(np.linalg.inv(covariance), axis1=1, axis2=2)
  return -0.5 * (np.linalg.slogdet(2 * np.pi * covariance)[1] + VARIANCE * traces)


def penalised(kind, params, x, share=SHARE):
  """What EM climbs: the mean log-likelihood and the log prior, in nats."""
  likelihood = jax.jit(lambda params: jax.nn.logsumexp(mix.log_joint(KINDS[kind], params, x), axis=1).mean())(params)
  return float(likelihood + share * (params[0] + made_up_log_prob(kind, params[1])).sum())


@kinds
def test_em_never_lowers_the_penalised_likelihood(kind):
  with jax.enable_x64(True):
    batch = {"image": np.asarray(data_for(kind, 200)["image"], np.float64)}
    x = batch["image"].reshape(200, -1)
    model = mix.mixture(KINDS[kind], 5, SHARE)
    state, step = fitted(model, batch, 0), jax.jit(model.step)
    values = []
    for _ in range(25):
      state, _ = step(jax.random.key(0), state, batch)
      values.append(penalised(kind, mix.fit(KINDS[kind], state, SHARE), x))
  assert values[-1] > values[0] + 1e-2
  assert np.all(np.diff(values) >= -1e-9), np.diff(values).min()


@kinds
def test_a_step_is_em_as_the_textbook_has_it(kind):
  """With step size 1: weights, means and covariances of the next state against sums written out in float64."""
  batch, share = data_for(kind, 150), 1e-2
  component = KINDS[kind]
  model = mix.mixture(component, 3, share)
  state = fitted(model, batch, 2)
  x = batch["image"].reshape(150, -1).astype(np.float64)
  r = np.asarray(mix.responsibilities(component, mix.fit(component, state, share), x.astype(np.float32)), np.float64)
  log_weights, params = mix.fit(component, jax.jit(model.step)(jax.random.key(0), state, batch)[0], share)

  counts, made_up = r.sum(0), 150 * share
  np.testing.assert_allclose(np.exp(log_weights), (counts + made_up) / (150 + 3 * made_up), rtol=1e-5)
  means = r.T @ x / counts[:, None]
  if kind == "bernoulli":
    expected = (r.T @ x + made_up / 2) / (counts[:, None] + made_up)
    np.testing.assert_allclose(jax.nn.sigmoid(params), expected, rtol=1e-4)
    return
  np.testing.assert_allclose(params[0], means, rtol=1e-4, atol=1e-5)
  scatter = np.stack([(r[:, [k]] * (x - means[k])).T @ (x - means[k]) for k in range(3)])
  if kind == "tied":
    scatter, counts, made_up = scatter.sum(0, keepdims=True).repeat(3, 0), counts.sum().repeat(3), 3 * made_up
  expected = (scatter + made_up * VARIANCE * np.eye(3)) / (counts + made_up)[:, None, None]
  expected = expected * np.eye(3) if kind == "diagonal" else expected
  np.testing.assert_allclose(covariances(kind, params), expected, rtol=1e-3, atol=1e-4)


def test_one_gaussian_is_the_sample_mean_and_covariance():
  batch, share = {"image": points(500)}, 1e-9
  state = fitted(mix.mixture(KINDS["full"], 1, share), batch, 1)
  x = batch["image"].reshape(500, -1).astype(np.float64)
  (mean, *_), log_weights = mix.fit(KINDS["full"], state, share)[1], mix.fit(KINDS["full"], state, share)[0]
  np.testing.assert_allclose(log_weights, [0.0], atol=1e-7)
  np.testing.assert_allclose(mean[0], x.mean(0), atol=1e-5)
  np.testing.assert_allclose(covariances("full", mix.fit(KINDS["full"], state, share)[1])[0], np.cov(x.T, ddof=0), atol=1e-4)


@pytest.mark.parametrize("kind", ["full", "tied", "diagonal"])
def test_gaussian_density_is_scipys(kind):
  batch = {"image": points(300)}
  model = mix.mixture(KINDS[kind], 3, SHARE)
  state = fitted(model, batch, 5)
  log_weights, params = mix.fit(KINDS[kind], state, SHARE)
  x = batch["image"].reshape(300, -1)
  parts = [stats.multivariate_normal(params[0][k], c).logpdf(x) for k, c in enumerate(covariances(kind, params))]
  expected = np.logaddexp.reduce(np.asarray(log_weights)[:, None] + parts)
  np.testing.assert_allclose(-model.evaluate(jax.random.key(0), state, batch)["nll"], expected, rtol=2e-5, atol=2e-5)


def test_bernoulli_mixture_sums_to_one():
  model = mix.mixture(mix.bernoulli(), 4, SHARE)
  batch = {"image": (255 * bits(100)).astype(np.uint8).reshape(-1, 3, 3, 1)}
  state = fitted(model, batch, 3)
  log_prob = lambda x: -model.evaluate(jax.random.key(0), state, {"image": jnp.asarray(255 * x, jnp.uint8)})["nll"]
  assert testing.total_probability(log_prob, (3, 3, 1)) == pytest.approx(1, abs=1e-5)


def test_uniform_cube_is_eight_bits_per_dimension():
  """A Gaussian so wide that it is flat over the cube: 8 bits, and as many more as the cube is a small part of it."""
  component = mix.diagonal_gaussian(pixels=images.DEQUANTIZED)
  model = mix.mixture(component, 1)
  scale = 1e4
  state = mix.State(jnp.ones(1), jnp.zeros((1, 2, 2, 1)), jnp.full((1, 4), scale**2), jnp.zeros((), jnp.int32))
  batch = {"image": np.random.default_rng(0).integers(0, 256, (5, 2, 2, 1)).astype(np.uint8)}
  nll = model.evaluate(jax.random.key(0), state, batch)["nll"]
  width_in_bits = np.log2(scale * np.sqrt(2 * np.pi)) + np.log2(1 / 1.001) / 2  # what the made-up share adds to the variance
  np.testing.assert_allclose(images.bits_per_dim(nll, 4) - width_in_bits, 8.0, atol=1e-4)


def test_em_finds_the_mixture_that_made_the_data():
  centres = np.array([[-4, 0], [4, 0], [0, 5]])
  shapes = np.array([[[1, 0.5], [0.5, 1]], [[0.5, 0], [0, 2]], [[1, -0.3], [-0.3, 0.4]]])
  weights = np.array([0.2, 0.3, 0.5])
  rng = np.random.default_rng(0)
  which = rng.choice(3, 6000, p=weights)
  x = np.stack([rng.multivariate_normal(centres[k], shapes[k]) for k in which]).astype(np.float32)
  state = fitted(mix.mixture(KINDS["full"], 3, 1e-6), {"image": x[:, None, None]}, 30)
  log_weights, params = mix.fit(KINDS["full"], state, 1e-6)
  order = [int(np.argmin(((np.asarray(params[0]) - centre) ** 2).sum(1))) for centre in centres]
  assert sorted(order) == [0, 1, 2]
  np.testing.assert_allclose(np.exp(log_weights)[order], weights, atol=4 * 0.5 / np.sqrt(6000))
  np.testing.assert_allclose(np.asarray(params[0])[order], centres, atol=4 * np.sqrt(2 / 1200))
  np.testing.assert_allclose(covariances("full", params)[order], shapes, atol=4 * 2 * np.sqrt(2 / 1200))


@kinds
def test_duplicated_points_are_no_singularity(kind):
  """All examples at one or two places, more components than places: everything stays finite."""
  x = np.array([[0, 0, 1], [1, 1, 0]], np.float32)[[0] * 30 + [1] * 2][:, None, None]
  model = mix.mixture(KINDS[kind], 6, SHARE)
  state = fitted(model, {"image": x}, 50)
  assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state))
  assert bool(jnp.isfinite(model.evaluate(jax.random.key(0), state, {"image": x})["nll"]).all())


@kinds
def test_a_component_that_nothing_belongs_to_stays_finite(kind):
  batch = data_for(kind, 50)
  model = mix.mixture(KINDS[kind], 3, SHARE)
  state = fitted(model, batch, 0)
  state = state._replace(mass=jnp.array([0.0, 0.5, 0.5]), mean=state.mean.at[0].set(1e4 if kind != "bernoulli" else 0.5))
  after, metrics = jax.jit(model.step)(jax.random.key(0), state, batch)
  assert np.isfinite(metrics["nll"])
  assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((after, mix.fit(KINDS[kind], after, SHARE))))


def test_a_pixel_never_seen_on_costs_a_finite_amount():
  """With N examples and share 2 / N the rule is Laplace's: (count + 1) / (N + 2)."""
  x = np.zeros((20, 1, 1, 2), np.uint8)
  x[::2, ..., 1] = 255
  model = mix.mixture(mix.bernoulli(), 1, share=2 / 20)
  state = fitted(model, {"image": x}, 2)
  surprise = np.full((1, 1, 1, 2), 255, np.uint8)
  nll = model.evaluate(jax.random.key(0), state, {"image": surprise})["nll"]
  np.testing.assert_allclose(nll, [-np.log(1 / 22) - np.log(11 / 22)], rtol=1e-5)


@kinds
def test_stepwise_em_on_batches_comes_near_em_on_the_whole_set(kind):
  batch = data_for(kind, 1024)
  whole, stepwise = mix.mixture(KINDS[kind], 4), mix.mixture(KINDS[kind], 4, step_size=mix.decreasing(0.7))
  nll = lambda state: float(whole.evaluate(jax.random.key(0), state, batch)["nll"].mean())
  start = jax.jit(whole.init)(jax.random.key(0), batch)
  state, step, order = start, jax.jit(stepwise.step), np.random.default_rng(0)
  for _ in range(30):
    for piece in np.split(order.permutation(1024), 16):
      state, _ = step(jax.random.key(0), state, {"image": batch["image"][piece]})
  gap = nll(state) - nll(fitted(whole, batch, 100))
  assert gap < 0.02, gap
  assert nll(start) - nll(state) > 0.1


def test_a_stepwise_step_is_the_running_average_of_statistics():
  """One step of size s: sufficient statistics (r, r x, r x x^T) become (1 - s) old + s new, as Cappe & Moulines write it."""
  first, second = points(100, 0), points(100, 1)
  component = KINDS["full"]
  state = fitted(mix.mixture(component, 3, SHARE), {"image": first}, 3)
  step_size = 0.3
  stepwise = mix.mixture(component, 3, SHARE, lambda updates: step_size)
  after, _ = jax.jit(stepwise.step)(jax.random.key(0), state, {"image": second})

  def statistics(mass, mean, covariance):
    mean = np.asarray(mean, np.float64).reshape(3, -1)
    return mass, mass[:, None] * mean, mass[:, None, None] * (covariance + mean[:, :, None] * mean[:, None])

  x = second.reshape(100, -1)
  r = np.asarray(mix.responsibilities(component, mix.fit(component, state, SHARE), x))
  new = r.mean(0), r.T @ x / 100, np.einsum("nk,ni,nj->kij", r, x, x) / 100
  old = statistics(np.asarray(state.mass), state.mean, np.asarray(state.spread))
  got = statistics(np.asarray(after.mass), after.mean, np.asarray(after.spread))
  for one, past, present in zip(got, old, new):
    np.testing.assert_allclose(one, (1 - step_size) * past + step_size * present, rtol=1e-4, atol=1e-5)


@kinds
def test_samples_have_the_moments_of_the_mixture(kind):
  model = mix.mixture(KINDS[kind], 3, SHARE)
  state = fitted(model, data_for(kind, 300), 10)
  log_weights, params = mix.fit(KINDS[kind], state, SHARE)
  num = 20_000
  x = np.asarray(jax.jit(model.sample, static_argnums=2)(jax.random.key(1), state, num), np.float64).reshape(num, -1)
  weights = np.exp(np.asarray(log_weights, np.float64))
  means = np.asarray(jax.nn.sigmoid(params) if kind == "bernoulli" else params[0], np.float64)
  inside = np.stack([np.diag(p * (1 - p)) for p in means]) if kind == "bernoulli" else covariances(kind, params)
  mean = weights @ means
  covariance = np.einsum("k,kij->ij", weights, inside + means[:, :, None] * means[:, None]) - np.outer(mean, mean)
  deviation = x - mean
  products = deviation[:, :, None] * deviation[:, None]
  assert np.all(np.abs(deviation.mean(0)) < 4.5 * deviation.std(0) / np.sqrt(num))
  assert np.all(np.abs(products.mean(0) - covariance) < 4.5 * products.std(0) / np.sqrt(num))


@kinds
def test_responsibilities_sum_to_one_and_are_bayes(kind):
  batch = data_for(kind, 64)
  component = KINDS[kind]
  params = mix.fit(component, fitted(mix.mixture(component, 4), batch, 3), 1e-3)
  x = batch["image"].reshape(64, -1)
  r = np.asarray(mix.responsibilities(component, params, x))
  np.testing.assert_allclose(r.sum(1), 1, rtol=1e-5)
  joint = np.exp(np.asarray(params[0])[None] + np.asarray(component.log_prob(params[1], x), np.float64))
  np.testing.assert_allclose(r, joint / joint.sum(1, keepdims=True), atol=1e-5)


@kinds
def test_the_made_up_examples_are_scored_as_they_are_described(kind):
  """`made_up` against the expectation written out: with it, the log prior is the one whose mode EM finds."""
  batch = data_for(kind, 200)
  params = mix.fit(KINDS[kind], fitted(mix.mixture(KINDS[kind], 3, SHARE), batch, 5), SHARE)
  expected = SHARE * (params[0] + made_up_log_prob(kind, params[1])).sum()
  np.testing.assert_allclose(mix.log_prior(KINDS[kind], params, SHARE), expected, rtol=1e-4)


@kinds
def test_many_components_of_large_images_fit_into_memory(kind):
  """A step never holds an array of examples x components x pixels, which would be 2 GB here."""
  num, num_components, side = 8192, 128, 22
  model = mix.mixture(KINDS[kind]._replace(pixels=images.BINARY), num_components)
  batch = {"image": jax.ShapeDtypeStruct((num, side, side, 1), jnp.uint8)}
  key = jax.random.key(0)
  state = jax.eval_shape(model.init, key, batch)
  held = lambda function, *args: jax.jit(function).lower(key, *args).compile().memory_analysis().temp_size_in_bytes
  own = 3 * sum(leaf.size * 4 for leaf in jax.tree.leaves(state))  # a few copies of the moments themselves
  product = 4 * num * num_components * side**2
  assert held(model.step, state, batch) < product / 5 + 3 * own
  assert held(model.evaluate, state, batch) < product / 5 + own
  assert held(model.init, batch) < product / 5 + own


@kinds
def test_devices_do_not_matter(kind):
  model = mix.mixture(KINDS[kind], 4, step_size=mix.decreasing())
  batches = [data_for(kind, 64, seed) for seed in range(3)]
  # fsdp with a limit that cuts even these small arrays.
  testing.check_strategies_agree(model, batches, [parallel.single(), parallel.dp(), parallel.fsdp(16), parallel.pmap()])


def test_first_centres_are_examples_far_apart():
  """Three tight clumps: the three centres fall into three different ones for every key."""
  rng = np.random.default_rng(0)
  clumps = np.repeat(np.array([[0.0, 0], [100, 0], [0, 100]]), 20, 0) + 1e-2 * rng.normal(size=(60, 2))
  batch = {"image": clumps.astype(np.float32)[:, None, None]}
  init = jax.jit(mix.mixture(KINDS["full"], 3).init)
  for seed in range(20):
    mean = np.asarray(init(jax.random.key(seed), batch).mean).reshape(3, 2)
    assert {tuple(row) for row in np.round(mean / 100)} == {(0, 0), (1, 0), (0, 1)}
    assert all((batch["image"].reshape(-1, 2) == row).all(1).any() for row in mean)


@kinds
def test_components_start_as_wide_as_clusters_are(kind):
  """The first spread is that of examples about the centre nearest to them, the same for all components."""
  batch = data_for(kind, 100)
  state = jax.jit(mix.mixture(KINDS[kind], 5).init)(jax.random.key(0), batch)
  x, centres = (np.asarray(a, np.float64).reshape(len(a), -1) for a in (batch["image"], state.mean))
  distances = ((x[:, None] - centres) ** 2).sum(2)
  deviation = x - centres[distances.argmin(1)]
  expected = {"bernoulli": (), "diagonal": (deviation**2).mean(0)}.get(kind, deviation.T @ deviation / len(x))
  for leaf in jax.tree.leaves(state.spread):
    np.testing.assert_allclose(leaf, np.broadcast_to(expected, leaf.shape), rtol=1e-5, atol=1e-6)
  assert jax.tree.leaves(state.spread) or kind == "bernoulli"


def test_far_from_the_origin_small_variances_survive():
  """Moments about the origin would lose a variance of 1e-4 at 100 in float32; EM must not."""
  rng = np.random.default_rng(0)
  x = (100 + 1e-2 * rng.normal(size=(400, 1))).astype(np.float32)
  state = fitted(mix.mixture(mix.full_gaussian(1e-4), 1, 1e-6), {"image": x[:, None, None]}, 3)
  np.testing.assert_allclose(state.spread[0, 0, 0], x.astype(np.float64).var(), rtol=1e-2)


def test_a_share_of_nothing_is_refused():
  with pytest.raises(ValueError, match="share"):
    mix.mixture(KINDS["full"], 2, share=0.0)
