"""InfoGAN: the paper's layers, and one trunk for the critic and the recogniser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.networks.infogan import Codes, Discriminator, Generator, InfoCritic
from gm_jax.networks.norm import BatchNorm
from gm_jax.networks.players import FlatCritic
from tests.networks.tools import assert_equal, noisy

X = jax.random.uniform(jax.random.key(0), (4, 8, 8, 1), minval=-1)
Z = jax.random.normal(jax.random.key(1), (4, 5))
CRITIC = InfoCritic(FlatCritic((6,)), categories=(4, 3), numbers=2, hidden=5)


def new(critic=CRITIC):
  return noisy(lambda key, x: critic.init(key, x, True), X)["params"]


def test_sizes_are_the_papers_for_mnist():
  """74 latents, 1024 units, 7 x 7 x 128, 64 channels; 64 and 128 channels and 1024 units in the critic; 128 to recognise."""
  image = jnp.zeros((2, 28, 28, 1))
  made = jax.eval_shape(lambda: Generator((28, 28, 1)).init(jax.random.key(0), jnp.zeros((2, 74)), True))["params"]
  kernels = lambda params: {name: layer["kernel"].shape for name, layer in params.items() if "kernel" in layer}
  assert kernels(made) == {
    "Dense_0": (74, 1024),
    "Dense_1": (1024, 7 * 7 * 128),
    "ConvTranspose_0": (4, 4, 128, 64),
    "ConvTranspose_1": (4, 4, 64, 1),
  }
  judged = jax.eval_shape(lambda: InfoCritic(Discriminator()).init(jax.random.key(0), image, True))["params"]
  assert kernels(judged["critic"]) == {
    "Conv_0": (4, 4, 1, 64),
    "Conv_1": (4, 4, 64, 128),
    "Dense_0": (7 * 7 * 128, 1024),
    "Dense_1": (1024, 1),
  }
  assert kernels({name: judged[name] for name in ("between", "last")}) == {"between": (1024, 128), "last": (128, 14)}


@pytest.mark.parametrize("norm", [BatchNorm, None])
def test_norms_stand_where_the_paper_has_them(norm):
  made = jax.eval_shape(lambda: Generator((8, 8, 1), 2, norm).init(jax.random.key(0), Z, True))["params"]
  judged = jax.eval_shape(lambda: Discriminator(2, norm).init(jax.random.key(0), X, True))["params"]
  norms = lambda params: [name for name in params if name.startswith("BatchNorm")]
  with_bias = lambda params: {name for name in params if "bias" in params[name]} - {*norms(params)}
  assert (len(norms(made)), len(norms(judged))) == ((3, 2) if norm else (0, 0))
  assert with_bias(made) == ({"ConvTranspose_1"} if norm else {*made})
  assert with_bias(judged) == ({"Conv_0", "Dense_1"} if norm else {*judged})


def test_generator_fills_its_range():
  variables = noisy(lambda key, z: Generator((8, 8, 1), 4).init(key, z, True), Z)
  for bias in (-100.0, 100.0):
    layer = {**variables["params"]["ConvTranspose_1"], "bias": jnp.full(1, bias)}
    params = {**variables["params"], "ConvTranspose_1": layer}
    np.testing.assert_array_equal(Generator((8, 8, 1), 4).apply({**variables, "params": params}, Z, False), np.sign(bias))


def test_codes_by_hand():
  """Every code reads its own columns of one linear layer on one hidden layer on the critic's features."""
  params = new()
  codes = CRITIC.apply({"params": params}, X, False, method="recognise")
  features = FlatCritic((6,)).apply({"params": params["critic"]}, X, False, method="features")
  affine = lambda x, layer: x @ layer["kernel"] + layer["bias"][None]
  hidden = affine(features, params["between"])
  read = affine(jnp.where(hidden > 0, hidden, 0.1 * hidden), params["last"])
  assert_equal(codes, Codes((read[:, :4], read[:, 4:7]), read[:, 7:9], read[:, 9:11]))
  logits, again = CRITIC.apply({"params": params}, X, False, method="judge_and_recognise")
  assert_equal((logits, again), (CRITIC.apply({"params": params}, X, False), codes))


def test_one_trunk_two_heads():
  """Each half of the loss moves the trunk and its own head, not the other's."""
  params = new()
  logits = lambda params: jnp.sin(CRITIC.apply({"params": params}, X, True)).sum()
  codes = lambda params: sum(
    jnp.sin(leaf).sum() for leaf in jax.tree.leaves(CRITIC.apply({"params": params}, X, True, method="recognise"))
  )
  moved = lambda loss: jax.tree.map(lambda leaf: bool(jnp.abs(leaf).max() > 0), jax.grad(loss)(params))
  judged, recognised = moved(logits), moved(codes)
  trunk = {"FlatEncoder_0": {"MLP_0": {"Dense_0": {"kernel": True, "bias": True}}}}
  both = lambda flag: {"kernel": flag, "bias": flag}
  assert judged == {"critic": {**trunk, "Dense_0": both(True)}, "between": both(False), "last": both(False)}
  assert recognised == {"critic": {**trunk, "Dense_0": both(False)}, "between": both(True), "last": both(True)}


def test_both_answers_come_from_one_pass():
  """... so the running statistics of a trunk with BatchNorm move once, as they do without a recogniser."""
  critic = InfoCritic(Discriminator(2), (4,), 1, hidden=3)
  variables = noisy(lambda key, x: critic.init(key, x, True), X)
  stats = lambda method: critic.apply(variables, X, True, method=method, mutable=["batch_stats"])[1]
  assert_equal(stats("judge_and_recognise"), stats("__call__"))
  inner = {name: tree["critic"] for name, tree in variables.items()}
  alone = Discriminator(2).apply(inner, X, True, mutable=["batch_stats"])[1]["batch_stats"]
  assert_equal(stats("__call__")["batch_stats"]["critic"], alone)


def test_refuses_what_it_cannot_halve():
  with pytest.raises(UserError, match="30 x 28"):
    Generator((30, 28, 1)).init(jax.random.key(0), Z, True)
