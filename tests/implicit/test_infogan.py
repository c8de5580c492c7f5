"""InfoGAN's bound against informations that are known, and who is moved by it."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from gm_jax import images
from gm_jax import information as exact
from gm_jax.implicit import games, gan, infogan, latents, remedies
from gm_jax.networks.infogan import Codes
from gm_jax.networks.players import Critic, FlatCritic, FlatGenerator
from tests.implicit import players

RNG = np.random.default_rng(0)
information = jax.jit(infogan.information)


def of_categories(logits, labels):
  """log q(c | x) + log K of one category, [B]."""
  logits = np.asarray(logits, np.float32)
  one_hot = np.eye(logits.shape[-1], dtype=np.float32)[labels]
  empty, noise = np.zeros((len(logits), 0), np.float32), np.ones((len(logits), 3), np.float32)
  found, of_numbers = information(Codes((logits,), empty, empty), np.concatenate([noise, one_hot], 1))
  np.testing.assert_array_equal(of_numbers, np.zeros(len(logits)))
  return np.asarray(found)


def of_numbers(mean, log_std, numbers):
  """log q(c | x) + log 2 for each number, added up, [B]."""
  mean, log_std, numbers = (np.asarray(values, np.float32) for values in (mean, log_std, numbers))
  found = information(Codes((), mean, log_std), np.concatenate([np.ones((len(mean), 2), np.float32), numbers], 1))
  np.testing.assert_array_equal(found[0], np.zeros(len(mean)))
  return np.asarray(found[1])


# The bound.


@pytest.mark.parametrize("size", [2, 10, 1000])
@pytest.mark.parametrize("logit", [0.0, 37.0])
def test_a_recogniser_that_says_nothing_has_no_information(size, logit):
  found = of_categories(np.full((4, size), logit), [0, 1, size - 1, 0])
  np.testing.assert_allclose(found, 0, atol=1e-6)
  np.testing.assert_allclose(math.log(size) - found, math.log(size), rtol=1e-6)  # its cross-entropy


def test_a_recogniser_that_is_sure_and_right_has_all_of_it_and_none_has_more():
  labels = np.arange(12) % 6
  np.testing.assert_allclose(of_categories(60.0 * np.eye(6)[labels], labels), math.log(6), rtol=1e-6)
  for scale in (0.1, 1.0, 30.0):
    guesses = scale * RNG.normal(size=(12, 6))
    assert of_categories(guesses, labels).max() <= math.log(6) + 1e-6
    # One that answers the same whatever it sees: minus KL(uniform || q), so never above 0.
    same = of_categories(np.tile(guesses[:1], (12, 1)), labels).mean()
    np.testing.assert_allclose(same, -stats.entropy(np.ones(6), np.exp(guesses[0])), rtol=1e-4)


def test_several_codes_add_up():
  one, other, mean, log_std = (RNG.normal(size=(5, size)).astype(np.float32) for size in (4, 3, 2, 2))
  labels, others, numbers = RNG.integers(0, 4, 5), RNG.integers(0, 3, 5), RNG.uniform(-1, 1, (5, 2))
  z = np.concatenate([RNG.normal(size=(5, 6)), np.eye(4)[labels], np.eye(3)[others], numbers], 1).astype(np.float32)
  found = information(Codes((one, other), mean, log_std), z)
  np.testing.assert_allclose(found[0], of_categories(one, labels) + of_categories(other, others), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(found[1], of_numbers(mean, log_std, numbers), rtol=1e-5, atol=1e-6)


def test_over_a_noisy_channel_the_posterior_has_the_mutual_information_and_others_less():
  """A code arrives as one of four symbols; every pair of the two is taken as often as it comes up."""
  channel = RNG.dirichlet(np.ones(4), size=5)  # p(x | c)
  joint = channel / 5
  labels, symbols = (pairs.ravel() for pairs in np.indices((5, 4)))
  mean = lambda logits: float((joint.ravel() * of_categories(logits[symbols], labels)).sum())
  posterior = (joint / joint.sum(0)).T  # [x, c]
  truth = float(exact.mutual_information(joint, 0))
  assert mean(np.log(posterior)) == pytest.approx(truth, abs=1e-6)
  for _ in range(5):
    other = RNG.dirichlet(np.ones(5), size=4)
    lost = (joint.sum(0) * stats.entropy(posterior.T, other.T)).sum()
    assert mean(np.log(other)) == pytest.approx(truth - lost, rel=1e-4, abs=1e-5)


def test_numbers_are_scored_by_the_normal_density():
  mean, log_std, numbers = RNG.normal(size=(6, 3)), RNG.normal(size=(6, 3)), RNG.uniform(-1, 1, (6, 3))
  density = stats.norm.logpdf(numbers, mean, np.exp(log_std)).sum(1)
  np.testing.assert_allclose(of_numbers(mean, log_std, numbers), density + 3 * stats.uniform(-1, 2).entropy(), rtol=1e-4)


def test_of_numbers_too_no_normal_law_tells_more_than_there_is():
  """x is c and normal noise: I(c; x) = h(x) - h(noise), and a q of mean x has log 2 - its cross-entropy with the noise."""
  std, width = 0.1, 400
  code, noise = (np.arange(width) + 0.5) / width * 2 - 1, stats.norm.ppf((np.arange(width) + 0.5) / width) * std
  code, noise = (grid.reshape(-1, 1) for grid in np.meshgrid(code, noise))
  x = np.linspace(-2, 2, 4001)
  density = (stats.norm.cdf((x + 1) / std) - stats.norm.cdf((x - 1) / std)) / 2
  h = -np.trapezoid(density * np.log(np.maximum(density, 1e-300)), x)
  truth = h - stats.norm(0, std).entropy()
  for said in (0.5 * std, std, 2 * std):
    score = of_numbers(code + noise, np.full_like(code, math.log(said)), code).mean()
    assert score < truth
    lost = h - math.log(2) + math.log(said / std) + (std / said) ** 2 / 2 - 0.5  # KL from the posterior, over all x
    assert score == pytest.approx(truth - lost, abs=0.02)


# Who is moved, and by which codes.

INDIFFERENT = games.compare(lambda real: 0 * real, lambda fake: 0 * fake, lambda fake: 0 * fake)
IMAGES = RNG.integers(0, 256, (12, 4, 4, 1), np.uint8)
TAUGHT = {"image": IMAGES, "label": np.arange(12, dtype=np.int32) % 3}


def make(game=INDIFFERENT, *others, rates=(0.1, 0.1), codes=None, critic=None, num_latents=3):
  """A GAN on 4 x 4 images, whose codes are a category of three and a number, unless said otherwise."""
  options = {"hidden": 6, **(codes or {})}
  informative = infogan.informative((3,), 1, **options)
  generator_optimizer, critic_optimizer = map(optax.sgd, rates)
  networks = FlatGenerator((8,), (4, 4, 1), activation=nn.tanh), critic or FlatCritic((7,))
  chosen = others if any(other is ... for other in others) else (*others, ...)
  plan = gan.GAN(*networks, game, generator_optimizer, critic_optimizer, latents.normal(num_latents), decay=0.9)
  for remedy in chosen:
    plan = (informative if remedy is ... else remedy)(plan)
  return gan.adversarial(plan)


def after(model, steps=1, first=None):
  """The state at first, after `steps` steps, and the last metrics."""
  state = first = first or jax.jit(model.init)(jax.random.key(0), TAUGHT)
  step = jax.jit(model.step)
  for index in range(steps):
    state, metrics = step(jax.random.key(index + 1), state, TAUGHT)
  return first, state, metrics


def moved(before, after):
  return jax.tree.map(lambda a, b: bool((a != b).any()), before, after)


def test_information_moves_generator_recogniser_and_trunk_and_nothing_else():
  first, last, metrics = after(make())
  assert set(jax.tree.leaves(moved(first.generator.params, last.generator.params))) == {True}
  found = moved(first.critic.params, last.critic.params)
  head = found["critic"].pop("Dense_0")
  assert set(jax.tree.leaves(found)) == {True}
  assert set(jax.tree.leaves(head)) == {False}, "what judges has no part in it"
  loss = -float(metrics["information_categories"]) - 0.1 * float(metrics["information_numbers"])
  np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
  np.testing.assert_allclose(
    metrics["information"], metrics["information_categories"] + metrics["information_numbers"], rtol=1e-5, atol=1e-6
  )
  _, last, _ = after(make(codes={"weight": 0.0, "numbers_weight": 0.0}), first=first)
  assert not any(jax.tree.leaves(moved((first.generator, first.critic), (last.generator, last.critic))))


@pytest.mark.parametrize("rates", [(0.3, 0.0), (0.0, 0.3)], ids=["generator", "critic"])
def test_each_player_alone_raises_the_information(rates):
  model = make(rates=rates)
  first, last, _ = after(model, 30)
  score = lambda state: float(jax.jit(model.evaluate)(jax.random.key(7), state, TAUGHT)["information"].mean())
  # `evaluate` asks the generator's average.
  now = lambda state: score(state._replace(average=state.average._replace(variables=state.generator.variables)))
  assert now(last) > now(first) + 0.05


def test_what_information_adds_is_in_proportion_to_its_weight():
  """Beside whatever the game has each player do: that of wgan_gp, with a critic of unit weights, and feature matching."""
  wants, first = (remedies.spectral_normalization(), ..., remedies.feature_matching(adversarial=0.5)), None
  for player, rates in {"generator": (0.1, 0.0), "critic": (0.0, 0.1)}.items():
    steps = []
    for weight in (0.0, 1.0, 2.0):
      codes = {"weight": weight, "numbers_weight": weight / 2}
      first, last, _ = after(make(games.wgan_gp(), *wants, rates=rates, codes=codes), first=first)
      steps.append(jax.tree.map(lambda a, b: b - a, getattr(first, player).params, getattr(last, player).params))
    for none, once, twice in zip(*map(jax.tree.leaves, steps)):
      np.testing.assert_allclose(twice - none, 2 * (once - none), atol=1e-5)
    added = jax.tree.map(lambda none, once: float(jnp.abs(once - none).max()), *steps[:2])
    assert min(leaf for leaf in jax.tree.leaves(added) if leaf) > 1e-5
    assert sum(leaf > 0 for leaf in jax.tree.leaves(added)) >= 4


class Writing(nn.Module):
  """A generator that writes its latents into its pixels, theta of each."""

  @nn.compact
  def __call__(self, z, train):
    return (z * self.param("theta", nn.initializers.ones, (1, z.shape[-1])))[:, None, None, :]


class Reading(Critic):
  """A recogniser that reads them off again: a category of four, surely, and two numbers, a of each, to within 1."""

  def setup(self):
    self.a = self.param("a", nn.initializers.ones, (1, 2))

  def judge(self, x, train):
    return 0 * x[:, 0, 0, 0] + 0 * self.a.sum(), x[:, 0, 0]

  def recognise(self, x, train):
    return Codes((1e3 * x[:, 0, 0, 3:7],), self.a * x[:, 0, 0, 7:], jnp.zeros((len(x), 2)))

  def judge_and_recognise(self, x, train):
    return self(x, train), self.recognise(x, train)


@pytest.mark.parametrize("remedy", [remedies.alternation(2, 2), remedies.unrolled(2)], ids=["in turns", "unrolled"])
def test_the_codes_are_those_that_the_fakes_were_made_from(remedy):
  """A recogniser that is right to the last bit has no gradient, and neither has a generator that is read so; any other code
  than that of the very image would move both."""
  plan = gan.GAN(Writing(), Reading(), INDIFFERENT, optax.sgd(0.1), optax.sgd(0.1), latents.normal(3), pixels=images.POINTS)
  plan = remedy(infogan.informative((4,), 2)(plan))._replace(critic=Reading())
  model = gan.adversarial(plan)
  batch = {"image": np.zeros((16, 1, 1, 9), np.float32), "label": np.arange(16, dtype=np.int32)}
  first = jax.jit(model.init)(jax.random.key(0), batch)
  state, step = first, jax.jit(model.step)
  of_numbers = 2 * (math.log(2) - math.log(2 * math.pi) / 2)
  for index in range(4):
    state, metrics = step(jax.random.key(index), state, batch)
    np.testing.assert_allclose(metrics["information_categories"], math.log(4), rtol=1e-6)
    np.testing.assert_allclose(metrics["information_numbers"], of_numbers, rtol=1e-5)
  params = lambda state: (state.generator.params, state.critic.params)
  assert not any(jax.tree.leaves(moved(params(first), params(state))))
  scores = jax.jit(model.evaluate)(jax.random.key(5), state, batch)
  np.testing.assert_allclose(scores["information"], math.log(4) + of_numbers, rtol=1e-5)
  # The one who could read only other codes would be moved: the test can fail.
  astray = state._replace(critic=state.critic._replace(params={"a": 0.5 * state.critic.params["a"]}))
  again = step(jax.random.key(9), step(jax.random.key(8), astray, batch)[0], batch)[0]
  assert all(jax.tree.leaves(moved(params(astray), params(again))))
  # Labels of data are nobody's business.
  unlabelled = jax.jit(model.step)(jax.random.key(8), astray, {"image": batch["image"]})
  jax.tree.map(np.testing.assert_array_equal, unlabelled, step(jax.random.key(8), astray, batch))


class Counted(FlatCritic):
  """Counts how often it is asked, as the program is traced."""

  def judge(self, x, train):
    ASKED.append(len(x))
    return super().judge(x, train)


ASKED = []


@pytest.mark.parametrize("game", [games.hinge(), games.r1(games.non_saturating())])
def test_the_recogniser_takes_no_pass_of_its_own(game):
  asked = []
  for codes in (True, False):
    plan = gan.GAN(FlatGenerator((4,), (4, 4, 1)), Counted((4,)), game, *[optax.sgd(0.1)] * 2, latents.normal(2))
    model = gan.adversarial(infogan.informative((3,), 1)(plan) if codes else plan)
    state = jax.eval_shape(model.init, jax.random.key(0), TAUGHT)
    ASKED.clear()
    jax.eval_shape(model.step, jax.random.key(1), state, TAUGHT)
    asked.append(len(ASKED))
  assert asked[0] == asked[1] >= 3


def test_all_of_a_category_can_be_told():
  """Left to itself the game of information alone is won: log 5 of log 5 nats."""
  generator, critic = FlatGenerator((16,), (4, 4, 1), activation=nn.tanh), FlatCritic((16,))
  wants = (infogan.informative((5,), 0, hidden=16),)
  model = gan.gan(generator, critic, INDIFFERENT, *[optax.adam(1e-2)] * 2, num_latents=2, decay=0.9, remedies=wants)
  _, metrics = players.walk(model, TAUGHT, 150)
  found = np.asarray(metrics["information"])
  np.testing.assert_array_equal(metrics["information_numbers"], np.zeros(150))
  assert found[0] < 0.4 * math.log(5)
  assert 0.97 * math.log(5) < found[-1] <= math.log(5) + 1e-6


# Latents by hand, and refusals.


def test_images_of_chosen_latents_are_the_samples_that_have_them():
  model = make(num_latents=2)
  state = jax.jit(model.init)(jax.random.key(0), TAUGHT)
  z = latents.draw(infogan.coded(latents.normal(2), (3,), 1), jax.random.key(4), 8)
  assert z.shape == (8, 2 + 3 + 1)
  np.testing.assert_array_equal(np.sort(z[:, 2:5], -1), np.tile([[0, 0, 1]], (8, 1)))
  assert np.abs(z[:, 5]).max() <= 1
  np.testing.assert_array_equal(infogan.with_codes(z[:, :2], z[:, 2:5].argmax(-1)[:, None], z[:, 5:], (3,)), z)
  ours = infogan.drawn(FlatGenerator((8,), (4, 4, 1), activation=nn.tanh), state, z)
  assert ours.dtype == np.uint8
  assert np.abs(np.asarray(ours, int) - np.asarray(model.sample(jax.random.key(4), state, 8), int)).max() <= 1


def start(*chosen, **options):
  model = make(INDIFFERENT, *chosen, **options)
  return jax.eval_shape(model.init, jax.random.key(0), TAUGHT)


@pytest.mark.parametrize(
  ("call", "said"),
  [
    (lambda: infogan.informative((), 0), "a code at least"),
    (lambda: infogan.informative((10, 1), 0), "of 2 values at least"),
    (lambda: infogan.informative(weight=-1.0), "no weight below 0"),
    (lambda: start(..., infogan.informative()), "has codes already"),
    (lambda: start(lambda gan: gan._replace(num_classes=3)), "told 3 labels as well"),
    (lambda: start(critic=players.Reading()), "Reading has none"),
    (lambda: start(..., remedies.spectral_normalization()), "SpectralNorm hides the recogniser"),
    (lambda: start(..., remedies.minibatch_discrimination()), "MinibatchCritic hides the recogniser"),
    (lambda: start(..., remedies.latents(latents.sphere(7))), "no codes behind them"),
    (lambda: start(remedies.packing(2)), "6 packs of 12 images"),
  ],
)
def test_what_cannot_be_is_said(call, said):
  with pytest.raises(ValueError, match=said):
    call()
