"""Laws of z against quadrature, against draws from them, and against their Jacobian."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from gm_jax import images, random
from gm_jax.approximate import priors, vae
from gm_jax.core import run
from gm_jax.distributions import kl_normal, normal_log_prob
from gm_jax.networks.flat import FlatDecoder, FlatEncoder
from tests import models
from tests.networks.tools import noisy

KINDS = {
  "normal": priors.StandardNormal(),
  "mixture": priors.GaussianMixture(3),
  "vamp": priors.VampPrior(4, (2, 2, 1)),
  "flow": priors.CouplingFlow(3, (8,)),
  "autoregressive": priors.AutoregressiveFlow(3, (8,)),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def encode(x):
  """x [B, 2, 2, 1] -> mean and log-variance in two dimensions: what stands in for an encoder."""
  x = x.reshape(len(x), 4)
  return 2 * x[:, :2] - 1, x[:, 2:] - 1


@functools.cache
def variables(kind):
  """Parameters at random, far from where they start."""
  start = lambda key, z: KINDS[kind].init(key, z, encode, method="log_prob")
  return noisy(start, jnp.zeros((2, 2)), size=0.25 if kind == "flow" else 0.6 if kind == "autoregressive" else 1.0)


@functools.cache
def log_prob(kind):
  parameters = variables(kind)
  return jax.jit(lambda z: KINDS[kind].apply(parameters, z, encode, method="log_prob"))


@functools.cache
def drawn(kind, num=20_000):
  parameters = variables(kind)
  draw = lambda key: KINDS[kind].apply(parameters, key, num, 2, encode, method="sample")
  return np.asarray(jax.jit(draw)(jax.random.key(0)))


def on_a_grid(kind, reach=14.0, num=701):
  line = np.linspace(-reach, reach, num, dtype=np.float32)
  z = np.stack(np.meshgrid(line, line, indexing="ij"), -1)
  density = np.exp(np.asarray(log_prob(kind)(z.reshape(-1, 2)), np.float64)).reshape(num, num)
  return line, density


@kinds
def test_integrates_to_one(kind):
  line, density = on_a_grid(kind)
  assert abs(np.trapezoid(np.trapezoid(density, line), line) - 1) < 2e-3


@kinds
def test_draws_follow_the_density(kind):
  """Each latent's draws against the marginal of the density, and both together in four quarters."""
  line, density = on_a_grid(kind)
  for axis in (0, 1):
    marginal = np.trapezoid(density, line, axis=1 - axis)
    cumulative = np.concatenate([[0], np.cumsum((marginal[1:] + marginal[:-1]) / 2 * np.diff(line))])
    assert stats.kstest(drawn(kind)[:, axis], lambda z, c=cumulative: np.interp(z, line, c)).pvalue > 1e-4
  middle = np.searchsorted(line, 0.0)
  quarters = [density[a, b] for a in (slice(middle, None), slice(middle + 1)) for b in (slice(middle, None), slice(middle + 1))]
  mass = np.array([np.trapezoid(np.trapezoid(part, dx=line[1] - line[0]), dx=line[1] - line[0]) for part in quarters])
  positive = drawn(kind) > 0
  seen = np.array([(positive == (a, b)).all(1).sum() for a in (True, False) for b in (True, False)])
  assert stats.chisquare(seen, mass / mass.sum() * seen.sum()).pvalue > 1e-5


@kinds
def test_draw_i_does_not_depend_on_how_many_are_drawn(kind):
  np.testing.assert_allclose(drawn(kind, 3), drawn(kind)[:3], rtol=1e-5, atol=1e-6)


@kinds
def test_rates_are_the_divergence_on_average(kind):
  """KL(q || p) by quadrature over z, against the mean of the rate over draws of q."""
  mean, log_var = np.array([0.6, -0.4], np.float32), np.array([-0.8, 0.3], np.float32)
  line, density = on_a_grid(kind)
  q = np.multiply.outer(*(stats.norm(m, np.exp(v / 2)).pdf(line.astype(np.float64)) for m, v in zip(mean, log_var)))
  inside = q > 1e-30
  integrand = np.where(inside, q * (np.log(np.where(inside, q, 1)) - np.log(np.maximum(density, 1e-300))), 0)
  truth = np.trapezoid(np.trapezoid(integrand, line), line)
  z = mean + np.exp(log_var / 2) * np.random.default_rng(1).normal(size=(100_000, 2)).astype(np.float32)
  wide = (np.broadcast_to(a, z.shape) for a in (mean, log_var))
  rates = jax.jit(lambda *args: KINDS[kind].apply(variables(kind), *args, encode, method="rates"))(z, *wide)
  rate = np.asarray(rates, np.float64).sum(1)
  assert abs(rate.mean() - truth) < 4.5 * rate.std() / np.sqrt(len(rate)) + 1e-3
  if kind == "normal":  # known, draw by draw, and latent by latent
    np.testing.assert_allclose(rate, truth, rtol=2e-4)
    alone = kl_normal(mean[:, None], log_var[:, None], jnp.zeros((2, 1)), jnp.zeros((2, 1)))
    np.testing.assert_allclose(rates[0], alone, rtol=1e-5)


FLOWS = {"coupling": priors.CouplingFlow(4, (8,)), "autoregressive": priors.AutoregressiveFlow(3, (8,))}
flows = pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)


@flows
def test_the_log_determinant_is_that_of_the_jacobian(flow):
  start = lambda key, z: flow.init(key, z, encode, method="log_prob")
  parameters = noisy(start, jnp.zeros((2, 5)), size=0.8)
  noise = jax.jit(lambda z: flow.apply(parameters, z, method="noise"))
  z = jnp.asarray(np.random.default_rng(2).normal(size=(7, 5)), jnp.float32)
  jacobians = jax.jit(jax.vmap(jax.jacfwd(lambda z: noise(z[None])[0][0])))(z)
  np.testing.assert_allclose(noise(z)[1], np.linalg.slogdet(np.asarray(jacobians, np.float64))[1], atol=2e-4)
  assert np.abs(np.asarray(jacobians) * (1 - np.eye(5))).max(0).min(where=~np.eye(5, dtype=bool), initial=9) > 1e-3  # all mix


@flows
def test_a_flow_starts_as_the_standard_normal(flow):
  z = jnp.asarray(np.random.default_rng(3).normal(size=(6, 4)), jnp.float32)
  value, _ = flow.init_with_output(jax.random.key(0), z, encode, method="log_prob")
  np.testing.assert_allclose(value, stats.norm.logpdf(z).sum(1), rtol=1e-5)


def test_an_autoregressive_layer_sees_what_is_before_and_draws_are_its_inverse():
  flow = priors.AutoregressiveFlow(2, (8, 8))
  start = lambda key, z: flow.init(key, z, encode, method="log_prob")
  parameters = noisy(start, jnp.zeros((2, 5)), size=0.8)
  one = lambda layer: lambda z: sum(flow.bind(parameters).layers(5)[layer](z[None]))[0]
  z = jnp.asarray(np.random.default_rng(2).normal(size=5), jnp.float32)
  first, second = (np.asarray(jax.jacfwd(one(layer))(z)) for layer in (0, 1))
  assert (np.triu(first) == 0).all()
  assert (np.tril(second) == 0).all()
  assert (abs(first[np.tril_indices(5, -1)]) > 0).sum() > 5
  drawn = flow.apply(parameters, jax.random.key(1), 9, 5, encode, method="sample")
  noise, _ = flow.apply(parameters, drawn, method="noise")
  np.testing.assert_allclose(noise, random.normal(jax.random.key(1), 9, (5,)), atol=1e-3)


def test_vamp_prior_is_the_average_of_the_encoders_answers():
  u = nn.sigmoid(variables("vamp")["params"]["inputs"])
  means, log_vars = encode(u)
  z = np.random.default_rng(4).normal(size=(5, 2)).astype(np.float32)
  each = [np.exp(normal_log_prob(z, m[None], v[None])) for m, v in zip(means, log_vars)]
  np.testing.assert_allclose(np.exp(log_prob("vamp")(z)), np.mean(each, 0), rtol=1e-4)


def module(prior):
  return vae.VAE(FlatEncoder((16,)), FlatDecoder((16,), (8, 8, 1)), vae.bernoulli(), 3, prior)


@pytest.mark.parametrize("kind", ["mixture", "vamp", "flow", "autoregressive"])
def test_a_prior_learns_with_the_rest(kind):
  """All its parameters get gradients from the rate, of which the decoder gets none."""
  prior = KINDS[kind] if kind != "vamp" else priors.VampPrior(4, (8, 8, 1))
  model, batch = vae.vae(module(prior), optax.sgd(0.1)), models.binary(0)
  state = jax.jit(model.init)(jax.random.key(0), batch)
  rng = np.random.default_rng(5)
  params = jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32), state.net.params)

  def rate(params):
    (_, parts), _ = run(module(prior), vae.negative_elbo(), {"params": params}, jax.random.key(1), batch, train=True)
    return parts["rate"].mean()

  gradient = jax.jit(jax.grad(rate))(params)
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient["prior"]):
    assert float(jnp.abs(leaf).max()) > 0, path
  assert all(float(jnp.abs(leaf).max()) == 0 for leaf in jax.tree.leaves(gradient["decoder"]))


def test_a_mixture_finds_where_codes_are():
  """With codes that lie in two places, a prior of two components ends at their law; its rate, at the entropy it cannot save."""
  rng = np.random.default_rng(6)
  places = np.array([[-3.0, 0.0], [2.0, 1.0]])
  z = jnp.asarray(places[rng.integers(0, 2, 400)] + 0.3 * rng.normal(size=(400, 2)), jnp.float32)
  prior, optimizer = priors.GaussianMixture(2), optax.adam(0.03)
  loss = lambda params: -prior.apply(params, z, encode, method="log_prob").mean()
  params = prior.init(jax.random.key(1), z, encode, method="log_prob")

  def step(carry, _):
    params, state = carry
    updates, state = optimizer.update(jax.grad(loss)(params), state)
    return (optax.apply_updates(params, updates), state), None

  (params, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, None, length=500))((params, optimizer.init(params)))
  found = np.asarray(params["params"]["means"])
  np.testing.assert_allclose(found[np.argsort(found[:, 0])], places, atol=0.1)
  assert abs(float(loss(params)) - (np.log(2) + np.log(2 * np.pi * np.e * 0.09))) < 0.1


def test_samples_come_from_the_prior():
  """A decoder that shows its z: samples of the VAE are draws of its prior."""

  class Shown(nn.Module):
    @nn.compact
    def __call__(self, z, train):
      return jnp.concatenate([z, jnp.full_like(z, -20.0)], 1)[:, None, None]

  shown = vae.VAE(FlatEncoder((4,)), Shown(), vae.gaussian(-30.0, images.POINTS), 2, KINDS["mixture"])
  inner = {"params": {"prior": variables("mixture")["params"]}}
  draw = jax.jit(nn.apply(vae.mean_sample, shown), static_argnums=2)
  z, theirs = np.asarray(draw(inner, jax.random.key(2), 20_000)), drawn("mixture")
  for axis in (0, 1):
    assert stats.ks_2samp(z[:, 0, 0, axis], theirs[:, axis]).pvalue > 1e-4
