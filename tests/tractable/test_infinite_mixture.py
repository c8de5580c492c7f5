"""Quadrature against integrals known in closed form, and the bound of the variational autoencoder as a theorem."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from gm_jax import distributions, images
from gm_jax.approximate import vae
from gm_jax.networks.mlp import MLP
from gm_jax.tractable import infinite_mixture as inf


def line(slope, offset, scale):
  """z -> N(slope z + offset, scale^2), in one dimension."""
  return lambda z: (slope * z[:, :1] + offset, jnp.full((len(z), 1), 2 * np.log(scale), jnp.float32))


def curve(z):
  """A bent tube in the plane: what no single Gaussian is."""
  t = z.sum(1, keepdims=True)
  return jnp.concatenate([jnp.sin(2 * t), t**2 / 2 - 1], 1), jnp.concatenate([-2 + 0.5 * t, -2 - 0.3 * t], 1)


def gentle(z):
  """A wider tube, not so bent, for a z that may lie anywhere: Gauss-Hermite's nodes are not as close as Gauss-Legendre's."""
  t = z.sum(1, keepdims=True) / z.shape[1]
  return jnp.concatenate([jnp.sin(t), t / 2], 1), jnp.concatenate([-0.7 + 0.2 * jnp.sin(t), -1 + 0 * t], 1)


def made(latent, decoder, shape, pixels=images.POINTS):
  """(module, model, state) of a mixture whose decoder may have parameters."""
  module = inf.InfiniteMixture(latent, decoder, shape, pixels)
  model = inf.infinite_mixture(module, optax.adam(1e-2))
  dtype = np.float32 if pixels is images.POINTS else np.uint8
  return module, model, jax.jit(model.init)(jax.random.key(0), {"image": np.zeros((4, *shape), dtype)})


def log_prob(latent, decoder, x):
  """log p at x [N, D], [N]."""
  x = np.asarray(x, np.float32).reshape(len(x), 1, 1, -1)
  _, model, state = made(latent, decoder, x.shape[1:])
  return -np.asarray(model.evaluate(jax.random.key(0), state, {"image": x})["nll"], np.float64)


def grid(reach, size):
  ticks = (np.arange(size) + 0.5) / size * 2 * reach - reach
  return np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2), (2 * reach / size) ** 2


def test_normal_latent_on_a_line_is_a_normal():
  """x = a z + b + s noise is N(b, a^2 + s^2)."""
  x = np.linspace(-6, 10, 41)[:, None]
  found = log_prob(inf.normal(64), line(1.5, 2.0, 0.8), x)
  np.testing.assert_allclose(found, stats.norm(2.0, np.hypot(1.5, 0.8)).logpdf(x[:, 0]), atol=2e-4)


def test_uniform_latent_on_a_line_is_a_difference_of_normal_tails():
  """Z uniform on [0, 1], x = z + s noise: Phi(x / s) - Phi((x - 1) / s)."""
  x = np.linspace(-0.5, 1.5, 41)[:, None]
  found = log_prob(inf.uniform(64), line(1.0, 0.0, 0.1), x)
  expected = stats.norm.cdf(x[:, 0] / 0.1) - stats.norm.cdf((x[:, 0] - 1) / 0.1)
  np.testing.assert_allclose(found, np.log(expected), atol=2e-4)


def test_two_latent_dimensions_are_a_full_covariance():
  """x = A z + s noise with z in the plane is N(0, A A^T + s^2 I)."""
  factor = np.array([[1.0, 0.4], [-0.3, 0.7]])
  decoder = lambda z: (z @ jnp.asarray(factor.T, jnp.float32), jnp.full((len(z), 2), np.log(0.25), jnp.float32))
  x = np.random.default_rng(0).normal(size=(50, 2)) * 1.5
  expected = stats.multivariate_normal(np.zeros(2), factor @ factor.T + 0.25 * np.eye(2)).logpdf(x)
  np.testing.assert_allclose(log_prob(inf.normal(40, 2), decoder, x), expected, atol=2e-4)


LATENTS = {
  "uniform line": inf.uniform(60),
  "uniform square": inf.uniform(30, 2),
  "normal line": inf.normal(60),
  "normal plane": inf.normal(30, 2),
}
latents = pytest.mark.parametrize("name", LATENTS)


@latents
def test_the_density_integrates_to_one(name):
  points, cell = grid(6, 240)
  decoder = curve if name.startswith("uniform") else gentle
  assert np.exp(log_prob(LATENTS[name], decoder, points)).sum() * cell == pytest.approx(1, abs=1e-4)


@latents
def test_the_rule_is_exact_for_polynomials_and_its_weights_are_a_law(name):
  latent = LATENTS[name]
  nodes, weights = latent.nodes.astype(np.float64), np.exp(latent.log_weights.astype(np.float64))
  assert weights.sum() == pytest.approx(1, abs=1e-5)
  moment = {"uniform": lambda n: 1 / (n + 1), "normal": lambda n: stats.norm.moment(n) if n else 1.0}[name.split()[0]]
  for powers in ((1, 0), (2, 1), (2, 2), (4, 2), (6, 4)):
    powers = powers[: nodes.shape[1]]
    expected = np.prod([moment(n) for n in powers])
    assert (weights * np.prod(nodes**powers, 1)).sum() == pytest.approx(expected, rel=1e-4, abs=1e-4)


@latents
def test_twice_the_nodes_change_nothing(name):
  """Spectral convergence: an error already far below 1e-4 nats, and a poor rule far above it."""
  kind, dims = (inf.uniform if "uniform" in name else inf.normal), LATENTS[name].nodes.shape[1]
  x = np.random.default_rng(0).normal(size=(100, 2)) * [0.5, 0.3] - [0, 0.7]
  decoder = curve if "uniform" in name else gentle
  few, some, many = (log_prob(kind(num, dims), decoder, x) for num in (3, 40, 80))
  assert np.abs(some - many).max() < 1e-4
  assert np.abs(few - many).max() > 1e-2


def test_the_density_is_that_of_the_samples():
  """A histogram of draws against the integral of the density over its bins: chi-square."""
  for latent in (inf.uniform(80), inf.normal(80)):
    _, model, state = made(latent, line(1.0, 0.5, 0.5), (1, 1, 1))
    num = 20_000
    x = np.asarray(jax.jit(model.sample, static_argnums=2)(jax.random.key(1), state, num)).reshape(-1)
    edges = np.linspace(-2, 4, 25)
    counts = np.histogram(x, edges)[0]
    fine = edges[:-1, None] + (np.arange(20) + 0.5)[None] * 0.25 / 20
    masses = np.exp(log_prob(latent, line(1.0, 0.5, 0.5), fine.reshape(-1, 1))).reshape(fine.shape).mean(1) * 0.25
    expected = num * masses
    large = expected > 10
    assert (((counts - expected) ** 2 / expected)[large]).sum() < stats.chi2.isf(1e-6, large.sum())


def network(out):
  return inf.MeanAndVariance(MLP((16, 2 * out), nn.tanh), min_log_var=-4.0)


def test_learning_reaches_the_entropy_of_the_law():
  """Data from N(1, 2^2): no model has a lower mean nll than the entropy, and this one comes near it."""
  x = (1 + 2 * np.random.default_rng(0).normal(size=(2000, 1, 1, 1))).astype(np.float32)
  _, model, state = made(inf.normal(32), network(1), (1, 1, 1))
  nll = lambda state: float(model.evaluate(jax.random.key(0), state, {"image": x})["nll"].mean())
  before = nll(state)
  one = lambda index, state: model.step(jax.random.key(0), state, {"image": x})[0]
  state = jax.jit(lambda state: jax.lax.fori_loop(0, 400, one, state))(state)
  best = stats.norm.fit(x.reshape(-1))
  floor = -stats.norm(*best).logpdf(x.reshape(-1)).mean()
  assert before > floor + 0.1
  assert floor - 0.01 < nll(state) < floor + 0.02


def test_images_are_scored_in_nats_of_the_image():
  """A density that is constant over the cube of grey levels is 8 bits per dimension: the pixels' own units are counted."""
  flat = lambda z: (0 * z[:, :1] + jnp.zeros((1, 4)), jnp.full((len(z), 4), 2 * np.log(1e4), jnp.float32))
  _, model, state = made(inf.uniform(8), flat, (2, 2, 1), images.DEQUANTIZED)
  batch = {"image": np.random.default_rng(0).integers(0, 256, (5, 2, 2, 1)).astype(np.uint8)}
  nll = np.asarray(model.evaluate(jax.random.key(0), state, batch)["nll"])
  np.testing.assert_allclose(images.bits_per_dim(nll, 4) - np.log2(1e4 * np.sqrt(2 * np.pi)), 8, atol=1e-4)


def test_the_gradient_does_not_remember_every_node():
  """A step on images holds no array of examples x nodes x pixels, which would be 1.6 GB here."""
  module = inf.InfiniteMixture(inf.normal(32, 2), network(784), (28, 28, 1), images.DEQUANTIZED)
  model = inf.infinite_mixture(module, optax.adam(1e-3))
  key, batch = jax.random.key(0), {"image": jax.ShapeDtypeStruct((512, 28, 28, 1), jnp.uint8)}
  state = jax.eval_shape(model.init, key, batch)
  held = jax.jit(model.step).lower(key, state, batch).compile().memory_analysis().temp_size_in_bytes
  assert held < 4 * 512 * 1024 * 784 / 4


# The bridge to the variational autoencoder.


@latents
def test_no_q_beats_the_nll_and_the_posterior_reaches_it(name):
  latent = LATENTS[name]
  module, model, state = made(latent, curve, (1, 1, 2))
  x = np.random.default_rng(0).normal(size=(40, 1, 1, 2)).astype(np.float32)
  nll = np.asarray(model.evaluate(jax.random.key(0), state, {"image": x})["nll"])
  joint = inf.log_joint(module, jax.random.key(0), state, x)
  posterior = inf.log_posterior(joint)
  np.testing.assert_allclose(jnp.exp(posterior).sum(1), 1, atol=1e-5)
  np.testing.assert_allclose(inf.nll_bound(joint, posterior), nll, rtol=1e-4, atol=1e-4)
  for seed in range(5):
    log_q = jax.nn.log_softmax(3 * jax.random.normal(jax.random.key(seed), joint.shape), axis=1)
    bound = np.asarray(inf.nll_bound(joint, log_q))
    divergence = (np.exp(log_q) * (np.asarray(log_q) - np.asarray(posterior))).sum(1)
    assert np.all(bound > nll + 1e-3)
    np.testing.assert_allclose(bound - nll, divergence, rtol=1e-3, atol=1e-3)  # too high by KL(q || posterior) and nothing else
  prior = inf.on_nodes(latent, jnp.broadcast_to(latent.log_prob(jnp.asarray(latent.nodes)), joint.shape))
  np.testing.assert_allclose(prior, np.broadcast_to(latent.log_weights, joint.shape), atol=1e-4)


def test_the_posterior_on_a_line_is_the_gaussian_of_bayes():
  """x = a z + b + s noise: z given x is N(a (x - b) / (a^2 + s^2), s^2 / (a^2 + s^2))."""
  a, b, s = 1.5, 2.0, 0.8
  latent = inf.normal(80)
  module, _, state = made(latent, line(a, b, s), (1, 1, 1))
  x = np.linspace(-2, 6, 9, dtype=np.float32).reshape(-1, 1, 1, 1)
  probs = np.exp(inf.log_posterior(inf.log_joint(module, jax.random.key(0), state, x)))
  z = latent.nodes[:, 0]
  mean = probs @ z
  np.testing.assert_allclose(mean, a * (x.reshape(-1) - b) / (a**2 + s**2), atol=1e-3)
  np.testing.assert_allclose(probs @ z**2 - mean**2, s**2 / (a**2 + s**2), atol=1e-3)


class Decoder(nn.Module):
  """z [B, 1] -> a point's mean and log-variance, as a VAE's decoder gives them."""

  @nn.compact
  def __call__(self, z, train):
    del train
    return MLP((16, 4), nn.tanh)(z).reshape(len(z), 1, 1, 4)


class Encoder(nn.Module):
  @nn.compact
  def __call__(self, x, train):
    del train
    return nn.tanh(nn.Dense(16)(x.reshape(len(x), -1)))


def test_a_vae_is_bounded_and_estimated_and_this_is_what_it_estimates():
  """One decoder, two families.  Of the same p(x): the VAE's bound lies above, its bound by quadrature is the bound that its
  sampled one scatters about, and its importance-sampled evidence agrees within its own error."""
  likelihood = vae.gaussian(min_log_var=-4.0, pixels=images.POINTS)
  autoencoder = vae.VAE(Encoder(), Decoder(), likelihood, num_latents=1)
  x = np.stack([np.cos(np.linspace(0, 3, 64)), np.sin(np.linspace(0, 3, 64))], -1).astype(np.float32)[:, None, None]
  batch, model = {"image": x}, vae.vae(autoencoder, optax.adam(1e-2), decay=0.9)
  one = lambda index, state: model.step(jax.random.fold_in(jax.random.key(1), index), state, batch)[0]
  state = jax.jit(lambda state: jax.lax.fori_loop(0, 150, one, state))(jax.jit(model.init)(jax.random.key(0), batch))

  def decoder(z):
    outputs = nn.apply(lambda v: v.decode(z, train=False), autoencoder)(state.average.variables)
    mean, log_var = jnp.split(outputs.reshape(len(z), -1), 2, axis=-1)
    return mean, -4.0 + jax.nn.softplus(log_var + 4.0)

  latent = inf.normal(200)
  module, exact, nothing = made(latent, decoder, (1, 1, 2))
  nll = np.asarray(exact.evaluate(jax.random.key(0), nothing, batch)["nll"])

  evidence = vae.evidence(autoencoder, jax.random.key(2), state, batch, num_samples=2000)
  errors = (np.asarray(-evidence.log_prob) - nll) / np.asarray(evidence.stderr)
  assert np.abs(errors).max() < 5
  assert np.abs(-evidence.log_prob - nll).mean() < 0.02

  mean, log_var = vae.encode(autoencoder, jax.random.key(0), state, x)  # [B, 1]
  density = jax.vmap(lambda z: distributions.normal_log_prob(z[None], mean, log_var), out_axes=1)(jnp.asarray(latent.nodes))
  bound = np.asarray(inf.nll_bound(inf.log_joint(module, jax.random.key(0), nothing, x), inf.on_nodes(latent, density)))
  assert np.all(bound >= nll - 1e-4)
  assert (bound - nll).mean() > 1e-3  # a Gaussian is not the posterior
  evaluate = jax.jit(lambda key: model.evaluate(key, state, batch)["nll_bound"])
  sampled = np.stack([evaluate(jax.random.key(seed)) for seed in range(200)])
  assert np.all(np.abs(sampled.mean(0) - bound) < 5 * sampled.std(0) / np.sqrt(200) + 1e-3)


def test_what_quadrature_cannot_do_is_refused():
  with pytest.raises(ValueError, match="3 latent dimensions"):
    inf.normal(8, 3)
  with pytest.raises(ValueError, match="300 nodes"):
    inf.normal(300)
