"""Gradients and averages of codebooks by hand; bounds against the sum over all codes."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax import images, parallel, rows, testing
from gm_jax.approximate import vae, vqvae
from gm_jax.core import run
from gm_jax.networks import quantizer
from gm_jax.networks.feature_maps import Down, Up

BATCH, GRID, D, K = 6, (2, 3), 4, 5
RNG = np.random.default_rng(0)
Z = RNG.normal(size=(BATCH, *GRID, D)).astype(np.float32)
TABLE = RNG.normal(size=(K, D)).astype(np.float32)


class Given(nn.Module):
  """An encoder whose output is a parameter."""

  @nn.compact
  def __call__(self, x, train):
    return self.param("z", lambda key: jnp.asarray(Z))


def given(codebook):
  """A VQ-VAE of known z, its variables with the codes TABLE, and a batch."""
  module = vqvae.VQVAE(Given(), Up(1, (4,), 0), codebook, vae.bernoulli(), GRID)
  batch = {"image": (RNG.integers(0, 2, (BATCH, 4, 6, 1)) * 255).astype(np.uint8)}
  state = jax.jit(vqvae.vqvae(module, optax.sgd(1.0)).init)(jax.random.key(0), batch)
  variables = state.net.variables
  home = "codebook" if "codebook" in variables else "params"
  inner = {**variables[home]["codebook"], "codes": jnp.asarray(TABLE)}
  return module, {**variables, home: {**variables[home], "codebook": inner}}, batch


def by_hand(z=Z, table=TABLE):
  """Codes and their vectors in float64, one distance at a time."""
  distances = ((z[..., None, :].astype(np.float64) - table) ** 2).sum(-1)
  codes = distances.argmin(-1)
  return codes, table[codes]


def gradients(module, variables, batch):
  """Of the mean loss of a step by every variable, codebooks included."""

  def loss(variables):
    return run(module, vqvae.objective, variables, jax.random.key(1), batch, train=True)[0][0].mean()

  return jax.jit(jax.grad(loss))(variables)


@pytest.mark.parametrize("make", [quantizer.ByGradient, quantizer.ByAverages])
def test_the_encoder_gets_the_decoder_s_gradient_and_its_commitment(make):
  module, variables, batch = given(make(K, commitment=0.3))
  got = gradients(module, variables, batch)
  codes, chosen = by_hand()

  def distortion(vectors):
    outputs = nn.apply(lambda vq: vq.decode((vectors,), True), module)(variables)
    return -vae.bernoulli().log_prob(outputs, images.to_binary(batch["image"])).mean()

  to_decoder = jax.jit(jax.grad(distortion))(jnp.asarray(chosen, jnp.float32))
  np.testing.assert_allclose(got["params"]["encoder"]["z"], to_decoder + 2 * 0.3 * (Z - chosen) / BATCH, rtol=1e-4, atol=1e-5)
  assert np.abs(to_decoder).max() > 1e-3

  pull = np.zeros((K, D))
  np.add.at(pull, codes.reshape(-1), -2 * (Z - chosen).reshape(-1, D) / BATCH)
  if make is quantizer.ByAverages:
    np.testing.assert_array_equal(got["codebook"]["codebook"]["codes"], 0)
  else:
    np.testing.assert_allclose(got["params"]["codebook"]["codes"], pull, rtol=1e-4, atol=1e-5)


def follow(codebook, z, table, usage, steps=1, key=0):
  """Codes and usage after some steps on one batch."""
  stats = {"codebook": {"codes": jnp.asarray(table, jnp.float32), "usage": jnp.asarray(usage, jnp.float32)}}

  @jax.jit
  def step(key, stats):
    return codebook.apply(stats, key, jnp.asarray(z), train=True, mutable=["codebook"])

  for index in range(steps):
    result, stats = step(jax.random.fold_in(jax.random.key(key), index), stats)
  return result, np.asarray(stats["codebook"]["codes"]), np.asarray(stats["codebook"]["usage"])


def test_codes_follow_the_averages_of_the_paper():
  """Sums and counts as appendix A.1 keeps them, in float64; the codes are their ratios, over several steps."""
  decay, table = 0.8, TABLE.astype(np.float64)
  counts = np.full(K, len(Z.reshape(-1, D)) / K)
  sums = counts[:, None] * table
  for _ in range(4):
    codes, _ = by_hand(table=table)
    one_hot = np.eye(K)[codes.reshape(-1)]
    counts = decay * counts + (1 - decay) * one_hot.sum(0)
    sums = decay * sums + (1 - decay) * one_hot.T @ Z.reshape(-1, D)
    table = sums / counts[:, None]
  _, got, usage = follow(quantizer.ByAverages(K, decay=decay, restart=0.0), Z, TABLE, np.full(K, 1 / K), steps=4)
  np.testing.assert_allclose(got, table, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(usage, counts / counts.sum(), rtol=1e-4)


def test_a_code_that_nobody_chooses_keeps_every_bit():
  table = np.concatenate([TABLE, 1000 + RNG.normal(size=(3, D))]).astype(np.float32)
  codebook = quantizer.ByAverages(K + 3, decay=0.5, restart=0.0)
  result, got, usage = follow(codebook, Z, table, np.full(K + 3, 1 / (K + 3)), steps=300)  # usage is 0 by then
  np.testing.assert_array_equal(got[K:], table[K:])
  assert np.isfinite(got).all()
  assert (usage[K:] < 1e-30).all()


def test_dead_codes_are_put_on_vectors_of_the_batch_and_no_others_move():
  table = np.concatenate([TABLE, np.full((4, D), 1000)]).astype(np.float32)
  usage = np.concatenate([np.full(K, 0.2), np.full(4, 1e-4)])
  codebook = quantizer.ByAverages(K + 4, restart=0.1)
  _, got, got_usage = follow(codebook, Z, table, usage)
  place = [np.flatnonzero((Z.reshape(-1, D) == code).all(1)) for code in got[K:]]
  assert all(len(found) == 1 for found in place)
  assert len({int(found[0]) for found in place}) == 4  # each on a vector of its own
  np.testing.assert_allclose(got_usage[K:], 1 / (K + 4), rtol=1e-6)
  _, without, _ = follow(quantizer.ByAverages(K + 4, restart=0.0), Z, table, usage)
  np.testing.assert_array_equal(got[:K], without[:K])
  _, other, _ = follow(codebook, Z, table, usage, key=1)
  assert (other[K:] != got[K:]).any()


def test_a_codebook_is_the_same_where_the_batch_is_cut():
  """Averages, restarts and perplexity of eight devices that see a row each, by pmap, against one that sees them all."""
  z = RNG.normal(size=(8, *GRID, D)).astype(np.float32)
  table = np.concatenate([TABLE, np.full((4, D), 1000)]).astype(np.float32)
  stats = {"codebook": {"codes": table, "usage": np.concatenate([np.full(K, 0.2), np.full(4, 1e-4)]).astype(np.float32)}}
  codebook = quantizer.ByAverages(K + 4)

  def step(z):
    result, changed = codebook.apply(stats, jax.random.key(2), z, train=True, mutable=["codebook"])
    return result.perplexity, changed

  def cut(z):
    with rows.view(axis=parallel.DATA):
      return step(z)

  whole = jax.jit(step)(z)
  cut = jax.pmap(cut, parallel.DATA, out_axes=None)(z[:, None])
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), cut, whole)


@pytest.mark.parametrize("begin", ["on vectors", "collapsed"])
def test_most_codes_come_into_use_on_uniform_clusters(begin):
  """16 clusters, 16 codes: from vectors of the first batch, or from codes that all lie far away but for one."""
  num = 16
  centres = RNG.normal(size=(num, D)) * 5
  z = (centres[RNG.integers(0, num, (32, *GRID))] + 0.1 * RNG.normal(size=(32, *GRID, D))).astype(np.float32)
  codebook = quantizer.ByAverages(num, decay=0.9)
  if begin == "collapsed":
    table = np.concatenate([np.zeros((1, D)), 1000 + np.arange(num - 1)[:, None] * np.ones((1, D))])
  else:
    table = jax.jit(lambda: codebook.init(jax.random.key(0), jax.random.key(1), jnp.asarray(z), True))()["codebook"]["codes"]
  result, _, _ = follow(codebook, z, table, np.full(num, 1 / num), steps=200)
  assert result.perplexity > num / 2
  share = np.bincount(np.asarray(result.codes).reshape(-1), minlength=num) / result.codes.size
  share = share[share > 0]
  np.testing.assert_allclose(result.perplexity, np.exp(-(share * np.log(share)).sum()), rtol=1e-4)


QUICK = functools.partial(quantizer.ByAverages, decay=0.9, restart=0.5)


def one_level(shape=(8, 8, 1), num_codes=3):
  encoder, decoder = Down(D, (4,)), Up(1, (4,))
  grid = shape[0] // 2, shape[1] // 2
  return vqvae.VQVAE(encoder, decoder, QUICK(num_codes), vae.bernoulli(), grid)


def two_levels(shape=(8, 8, 1), num_codes=3):
  top_grid, grid = (shape[0] // 4, shape[1] // 4), (shape[0] // 2, shape[1] // 2)
  networks = Down(6, (4,)), Down(D, (4,)), Up(6, (4,)), Up(1, (4,))
  codebooks = QUICK(num_codes), QUICK(num_codes)
  return vqvae.VQVAE2(*networks, *codebooks, vae.bernoulli(), top_grid, grid, D)


def pictures(num, shape):
  return (np.random.default_rng(3).integers(0, 2, (num, *shape)) * 255).astype(np.uint8)


def noisy_state(module, shape, num=16):
  """A state whose average, which is what counts, has networks of its own, and codebooks that have followed them."""
  model, x = vqvae.vqvae(module, optax.adam(1e-2)), pictures(num, shape)
  state = jax.jit(model.init)(jax.random.key(0), {"image": x})
  rng = np.random.default_rng(4)
  variables = state.average.variables
  params = jax.tree.map(lambda leaf: np.float32(leaf + 0.3 * rng.normal(size=leaf.shape)), variables["params"])
  encode = nn.apply(lambda vq, key: vq.encode(key, images.to_binary(x), True), module, mutable=["codebook"])
  learn = jax.jit(lambda key, stats: encode({"params": params, **stats}, key)[1])
  stats = {"codebook": variables["codebook"]}
  for index in range(30):
    stats = learn(jax.random.key(index), stats)
  return model, state._replace(average=state.average._replace(variables={"params": params, **stats}))


both = pytest.mark.parametrize("make", [one_level, two_levels])


@both
def test_decoding_saved_codes_is_what_encoding_was_scored_by(make):
  module = make()
  model, state = noisy_state(module, (8, 8, 1))
  batch = {"image": pictures(16, (8, 8, 1))}
  codes = jax.jit(lambda: vqvae.encode(module, jax.random.key(0), state, batch["image"]))()
  assert all(len(np.unique(level)) > 1 for level in codes)
  saved = tuple(np.asarray(level).astype(np.uint8).astype(np.int32) for level in codes)
  decode = lambda vq: vq.decode(vq.embed(saved), train=False)
  outputs = jax.jit(nn.apply(decode, module))(state.average.variables)
  scores = jax.jit(model.evaluate)(jax.random.key(0), state, batch)
  distortion = -vae.bernoulli().log_prob(outputs, images.to_binary(batch["image"]))
  np.testing.assert_allclose(scores["distortion"], distortion, rtol=1e-5)
  rate = sum(level.size / 16 * np.log(3) for level in saved)
  np.testing.assert_allclose(scores["nll_bound"], distortion + rate, rtol=1e-5)
  np.testing.assert_array_equal(jax.jit(lambda: vqvae.decode(module, state, saved))(), images.from_unit(nn.sigmoid(outputs)))


@both
def test_the_bound_is_a_bound_on_the_sum_over_all_codes(make):
  """log p(x) = logsumexp over every map of codes of log p(x | codes) + log p(codes): enumerated, it is never below the bound,
  and it is of a law that sums to one over all images."""
  one = make is one_level
  shape = (2, 4, 1) if one else (4, 4, 1)
  num_codes = 3 if one else 2
  module = make(shape, num_codes)
  model, state = noisy_state(module, shape)
  sizes = [level.grid[0] * level.grid[1] for level in module.levels]
  flat = testing.all_states((sum(sizes),), num_codes)
  levels = np.split(flat, np.cumsum(sizes)[:-1], axis=1)
  codes = tuple(level.reshape(-1, *spec.grid) for level, spec in zip(levels, module.levels))
  outputs = jax.jit(nn.apply(lambda vq: vq.decode(vq.embed(codes), train=False), module))(state.average.variables)
  outputs = np.asarray(outputs, np.float64).reshape(len(flat), -1)  # logits [codes, D]

  all_of_them = (testing.all_states(shape) * 255).astype(np.uint8)
  x = all_of_them.reshape(len(all_of_them), -1) / 255.0
  log_prob = x @ outputs.T - np.logaddexp(0, outputs).sum(1) - np.log(len(flat))
  true = jax.nn.logsumexp(log_prob, axis=1)
  np.testing.assert_allclose(np.exp(np.asarray(true)).sum(), 1, rtol=1e-4)

  some = slice(None) if one else slice(0, None, 256)
  bound = jax.jit(model.evaluate)(jax.random.key(0), state, {"image": all_of_them[some]})["nll_bound"]
  assert (np.asarray(bound) >= -np.asarray(true)[some] - 1e-4).all()
  assert (np.asarray(bound) + np.asarray(true)[some]).mean() < 5  # and not an empty one
  # Each bound is one term of the sum.
  assert np.abs(np.asarray(bound)[:, None] + log_prob[some]).min(1).max() < 1e-3


def test_the_bottom_is_chosen_and_decoded_with_the_top_in_view():
  """The same image with the top's codes under other vectors: all that the encoder sees of the image stays as it is."""
  module = two_levels()
  _, state = noisy_state(module, (8, 8, 1))
  x, variables = images.to_binary(pictures(16, (8, 8, 1))), state.average.variables
  top = variables["codebook"]["top_codebook"]

  @jax.jit
  def encode(table):
    other = {**variables, "codebook": {**variables["codebook"], "top_codebook": {**top, "codes": table}}}
    chosen = dict(capture_intermediates=lambda layer, _: layer.name == "choose", mutable=["intermediates"])
    found, seen = module.apply(other, jax.random.key(0), x, False, method="encode", **chosen)
    return found[0].codes, found[1].codes, seen["intermediates"]["choose"]["__call__"][0]

  codes, bottom, z = encode(top["codes"])
  other_codes, _, other_z = encode(jnp.roll(top["codes"], 1, 0))
  np.testing.assert_array_equal(other_codes, (codes + 1) % 3)
  np.testing.assert_allclose(z, other_z, rtol=1e-4, atol=1e-6)  # another name for the same vector
  np.testing.assert_array_equal(bottom, quantizer.nearest(z, variables["codebook"]["codebook"]["codes"]))
  *_, other_z = encode(top["codes"] + 0.5)
  assert (jnp.abs(other_z - z).max((1, 2, 3)) > 1e-3).all()

  decode = jax.jit(nn.apply(lambda vq, codes: vq.decode(vq.embed(codes), train=False), module))
  outputs = decode(variables, (codes, bottom))
  for other in (((codes + 1) % 3, bottom), (codes, (bottom + 1) % 3)):
    assert (jnp.abs(decode(variables, other) - outputs).max((1, 2, 3)) > 1e-3).all()


def test_uniform_samples_are_of_uniform_codes():
  """The mean over many samples is the mean over all maps of codes, each as likely."""
  shape = (2, 4, 1)
  module = one_level(shape, 2)
  model, state = noisy_state(module, shape)
  codes = testing.all_states((1, 2), 2)
  expected = np.asarray(jax.jit(lambda: vqvae.decode(module, state, (codes,)))(), np.float64)
  drawn = np.asarray(jax.jit(model.sample, static_argnums=2)(jax.random.key(1), state, 4000), np.float64)
  assert len(np.unique(expected.reshape(4, -1), axis=0)) == 4
  error = expected.std(0) / np.sqrt(4000)
  np.testing.assert_array_less(np.abs(drawn.mean(0) - expected.mean(0)), 5 * error + 1e-3)


def test_a_grid_that_is_not_the_encoder_s_is_named():
  module = one_level()
  wrong = vqvae.VQVAE(module.encoder, module.decoder, module.codebook, module.likelihood, (2, 2))
  with pytest.raises(ValueError, match="maps of 4 x 4 vectors, the grid is 2 x 2"):
    vqvae.vqvae(wrong, optax.adam(1e-3)).init(jax.random.key(0), {"image": pictures(2, (8, 8, 1))})
