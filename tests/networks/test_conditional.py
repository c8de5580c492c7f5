"""Players that are told a label: the formulas, and that the label is heard."""

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.networks.conditional import ConditionalCritic, ConditionalGenerator, ProjectionCritic
from gm_jax.networks.dcgan import Discriminator, Generator
from gm_jax.networks.players import FlatCritic
from tests.networks.tools import assert_equal, noisy

X = jax.random.uniform(jax.random.key(0), (4, 8, 8, 1), minval=-1)
Z = jax.random.normal(jax.random.key(1), (4, 5))
LABEL = jnp.array([0, 2, 2, 1])
CODE = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 1, 0, 0]], np.float32)  # the fourth class has no example


def test_generator_sees_the_code_beside_the_latents():
  inner = Generator((8, 8, 1), 2)
  generator = ConditionalGenerator(inner, 4)
  variables = noisy(lambda key, z: generator.init(key, z, True, LABEL), Z)
  draw = jax.jit(lambda label: generator.apply(variables, Z, False, label))
  plain = {name: tree["generator"] for name, tree in variables.items()}
  assert_equal(draw(LABEL), inner.apply(plain, np.concatenate([Z, CODE], -1), False))
  changed = np.abs(draw(LABEL.at[1].set(3)) - draw(LABEL)).max((1, 2, 3))
  np.testing.assert_array_equal(changed > 1e-4, [False, True, False, False])


def test_critic_sees_the_code_at_every_pixel():
  inner = Discriminator(2, norm=None)
  critic = ConditionalCritic(inner, 4)
  variables = noisy(lambda key, x: critic.init(key, x, True, LABEL), X)
  judge = jax.jit(lambda label: critic.apply(variables, X, False, label))
  channels = np.broadcast_to(CODE[:, None, None], (4, 8, 8, 4))
  plain = {"params": variables["params"]["critic"]}
  assert_equal(judge(LABEL), inner.apply(plain, np.concatenate([X, channels], -1), False))
  changed = np.abs(judge(LABEL.at[1].set(3)) - judge(LABEL))
  np.testing.assert_array_equal(changed > 1e-5, [False, True, False, False])


def test_projection_is_an_inner_product_with_the_classes_vector():
  inner = FlatCritic((6,))
  critic = ProjectionCritic(inner, 4)
  params = noisy(lambda key, x: critic.init(key, x, True, LABEL), X)["params"]
  judge = jax.jit(lambda params: critic.apply({"params": params}, X, False, LABEL))
  plain, features = inner.apply({"params": params["critic"]}, X, False, method="judge")
  vectors = params["Embed_0"]["embedding"]
  expected = [plain[i] + sum(vectors[LABEL[i], k] * features[i, k] for k in range(6)) for i in range(4)]
  assert_equal(judge(params), np.array(expected))
  gradient = jax.grad(lambda params: judge(params).sum())(params)["Embed_0"]["embedding"]
  by_class = np.stack([features[0], features[3], features[1] + features[2], 0 * features[0]])
  assert_equal(gradient, by_class)  # a class learns from its own examples; one that has none does not move
