"""Two stages in one state: what each leaves untouched, bounds against the sum over all codes, draws against the law."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax import images, parallel, testing, two_stage
from gm_jax.approximate import vae, vqvae
from gm_jax.networks import quantizer
from gm_jax.networks.feature_maps import Down, Up
from gm_jax.train import train

SHAPE, K, FIRST = (4, 4, 1), 2, 3
BATCH = {
  "image": (np.random.default_rng(0).integers(0, 2, (8, *SHAPE)) * 255).astype(np.uint8),
  "label": np.arange(8, dtype=np.int32) % 3,
}


def module():
  """Top 1 x 1, bottom 2 x 2: 32 maps of codes in all."""
  networks = Down(4, (4,), 0), Down(3, (4,), 0), Up(4, (4,), 0), Up(1, (4,), 0)
  return vqvae.VQVAE2(*networks, quantizer.ByAverages(K), quantizer.ByAverages(K), vae.bernoulli(), (1, 1), (2, 2), 3)


@functools.cache
def parts():
  """(VQ-VAE, its model, the two priors, the model of both stages)."""
  vq = module()
  first = vqvae.vqvae(vq, optax.adam(1e-2))
  top, bottom = vq.levels
  size = dict(features=4, blocks=0)
  priors = [
    two_stage.code_prior(top, optax.adam(1e-2), num_classes=3, **size),
    two_stage.code_prior(bottom, optax.adam(1e-2), above=top, **size),
  ]
  return vq, first, priors, two_stage.two_stage(vq, first, priors, first_steps=FIRST)


@functools.cache
def states():
  """After every step of both stages."""
  model = parts()[-1]
  state, step = jax.jit(model.init)(jax.random.key(0), BATCH), jax.jit(model.step)
  found = [state]
  for index in range(FIRST + 3):
    found.append(step(jax.random.key(index), found[-1], BATCH)[0])
  return found


@functools.cache
def noisy_state():
  """Priors far from uniform, and a decoder that has something to say."""
  rng = np.random.default_rng(5)
  noisy = lambda leaf: np.float32(leaf + 0.5 * rng.normal(size=leaf.shape))
  move = lambda state: state._replace(average=state.average._replace(variables=jax.tree.map(noisy, state.average.variables)))
  state = states()[0]
  return state._replace(first=move(state.first), priors=tuple(map(move, state.priors)))


def same(a, b):
  return all((np.asarray(x) == np.asarray(y)).all() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def test_each_stage_leaves_every_bit_of_the_other():
  for index, (before, after) in enumerate(zip(states(), states()[1:])):
    assert same(before.first, after.first) == (index >= FIRST)
    for one, other in zip(before.priors, after.priors):
      assert same(one, other) == (index < FIRST)
    assert after.steps == index + 1


def test_the_stages_are_the_autoencoder_s_step_and_the_priors_steps_on_its_codes():
  vq, first, priors, model = parts()
  before, after = states()[:2]
  expected, _ = jax.jit(first.step)(jax.random.key(0), before.first, BATCH)
  close = lambda a, b: jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), a, b)
  close(after.first, expected)

  before, after = states()[FIRST : FIRST + 2]
  top, bottom = (np.asarray(codes) for codes in vqvae.encode(vq, jax.random.key(0), before.first, BATCH["image"]))
  picture = lambda codes: np.asarray(codes * 255, np.uint8)[..., None]  # of two codes
  data = [{"image": picture(top), "label": BATCH["label"]}, {"image": picture(bottom), "label": top}]
  for prior, old, new, batch in zip(priors, before.priors, after.priors, data):
    expected, _ = jax.jit(prior.step)(jax.random.key(9), old, batch)  # no dropout, so the key has no say
    close(new, expected)


def all_codes():
  flat = testing.all_states((5,), K)
  return flat[:, :1].reshape(-1, 1, 1), flat[:, 1:].reshape(-1, 2, 2)


def log_priors(label):
  """log p(top | label) + log p(bottom | top) of all 32 maps of codes, each prior asked by itself; [32] and [32]."""
  _, _, priors, _ = parts()
  state = noisy_state()
  top, bottom = all_codes()
  picture = lambda codes: (codes[..., None] * 255).astype(np.uint8)
  data = [{"image": picture(top), "label": np.full(32, label)}, {"image": picture(bottom), "label": top}]
  scores = [jax.jit(p.evaluate)(jax.random.key(0), s, batch) for p, s, batch in zip(priors, state.priors, data)]
  return [-np.asarray(score["nll"], np.float64) for score in scores]


def test_priors_sum_to_one_and_the_bottom_s_hangs_on_the_top():
  top, bottom = log_priors(1)
  np.testing.assert_allclose(np.exp(top + bottom).sum(), 1, rtol=1e-5)
  given_top = np.exp(bottom).reshape(2, 16)
  np.testing.assert_allclose(given_top.sum(1), 1, rtol=1e-5)
  assert np.abs(given_top[0] - given_top[1]).sum() > 0.05
  assert np.abs(log_priors(2)[0] - top).max() > 0.01  # and the top's on the class


def test_the_bound_with_learnt_priors_is_a_bound_on_the_sum_over_all_codes():
  vq, _, _, model = parts()
  state = noisy_state()
  prior = sum(log_priors(1))
  decode = lambda vq: vq.decode(vq.embed(all_codes()), train=False)
  outputs = np.asarray(jax.jit(nn.apply(decode, vq))(state.first.average.variables), np.float64).reshape(32, 16)
  x = testing.all_states((16,))
  log_joint = x @ outputs.T - np.logaddexp(0, outputs).sum(1) + prior  # [65536, 32]
  true = np.asarray(jax.nn.logsumexp(log_joint, axis=1))
  np.testing.assert_allclose(np.exp(true).sum(), 1, rtol=1e-4)

  some = slice(0, None, 301)
  pixels = (x[some] * 255).astype(np.uint8).reshape(-1, *SHAPE)
  batch = {"image": pixels, "label": np.full(len(pixels), 1)}
  scores = jax.jit(model.evaluate)(jax.random.key(0), state, batch)
  assert (np.asarray(scores["nll_bound"]) >= -true[some] - 1e-3).all()
  # The bound is the term of the sum that the encoder names.
  top, bottom = vqvae.encode(vq, jax.random.key(0), state.first, pixels)
  named = np.concatenate([top.reshape(-1, 1), bottom.reshape(-1, 4)], 1) @ 2 ** np.arange(5)[::-1]
  assert len(np.unique(named)) > 2
  np.testing.assert_allclose(scores["nll_bound"], -log_joint[some][np.arange(len(pixels)), named], rtol=1e-4)
  np.testing.assert_allclose(scores["rate"], scores["rate_top"] + scores["rate_bottom"], rtol=1e-5)
  np.testing.assert_allclose(scores["rate_top"], -log_priors(1)[0][named], rtol=1e-4, atol=1e-5)


def test_samples_are_of_the_priors_law():
  """Each map of codes has an image of its own, by which it is counted."""
  vq, _, _, model = parts()
  state, num = noisy_state(), 20_000
  pictures = np.asarray(jax.jit(lambda: vqvae.decode(vq, state.first, all_codes()))()).reshape(32, -1)
  assert len(np.unique(pictures, axis=0)) == 32
  drawn = jax.jit(model.sample, static_argnums=2)(jax.random.key(1), state, num, jnp.ones(num, jnp.int32))
  drawn = np.asarray(drawn).reshape(num, 1, -1)
  # A level of grey for the rounding of another order of sums.
  fits = np.stack([(np.abs(drawn[:, 0].astype(int) - picture) <= 1).all(1) for picture in pictures.astype(int)], 1)
  assert fits.any(1).all()
  share, expected = fits.mean(0), np.exp(sum(log_priors(1)))
  assert (np.abs(share - expected) < 5 * np.sqrt(expected / num) + 1e-3).all()


def test_a_run_stopped_in_either_stage_ends_in_the_same_bits(tmp_path):
  model = parts()[-1]
  options = dict(seed=0, save_every=100, strategy=parallel.single())
  whole = train(model, lambda step: BATCH, steps=FIRST + 2, **options)
  for stop in (FIRST - 1, FIRST + 1, FIRST + 2):
    state = train(model, lambda step: BATCH, steps=stop, run=tmp_path / "run", **options)
  assert same(state, whole)


def test_a_learnt_prior_needs_fewer_nats_than_the_uniform_one():
  """Codes that never vary cost log K each before, and almost nothing after."""
  level = vqvae.Level("codes", (3, 3), 5)
  prior = two_stage.code_prior(level, optax.adam(3e-2), features=4, blocks=1, decay=0.9)
  codes = np.random.default_rng(0).integers(0, 5, (1, 3, 3)).repeat(8, 0)
  batch = {"image": np.asarray(images.from_levels(codes, 5))[..., None]}
  state, step = jax.jit(prior.init)(jax.random.key(0), batch), jax.jit(prior.step)
  nll = lambda state: float(jax.jit(prior.evaluate)(jax.random.key(0), state, batch)["nll"].mean())
  assert abs(nll(state) - 9 * math.log(5)) < 3
  for index in range(150):
    state, _ = step(jax.random.key(index), state, batch)
  assert nll(state) < 0.5
  drawn = jax.jit(prior.sample, static_argnums=2)(jax.random.key(0), state, 8)
  assert (np.asarray(drawn)[..., 0] == np.asarray(batch["image"])[..., 0]).mean() > 0.9


def test_what_does_not_fit_is_named():
  vq, first, priors, _ = parts()
  with pytest.raises(ValueError, match="1 priors for 2 levels"):
    two_stage.two_stage(vq, first, priors[:1], first_steps=1)
  with pytest.raises(ValueError, match="prior over 257 codes; take 2 to 256"):
    two_stage.code_prior(vqvae.Level("codes", (7, 7), 257), optax.adam(1e-3))
  with pytest.raises(ValueError, match="half its size"):
    two_stage.code_prior(vqvae.Level("bottom", (6, 6), 4), optax.adam(1e-3), above=vqvae.Level("top", (2, 2), 4))
