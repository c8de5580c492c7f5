"""A stacked autoencoder: one layer after another learns to give back what the layers below it make, then all learn together.

    stage k:   layer k reconstructs the codes of layers 1 .. k-1, which stay as they are
    at last:   the whole stack reconstructs the image ("fine-tuning")

Hinton & Salakhutdinov 2006 (https://www.science.org/doi/10.1126/science.1127647), Bengio et al. 2007
(https://papers.nips.cc/paper/2006/hash/5da713a690c067105aeb2fae32403405-Abstract.html); with corruption, the stacked denoising
autoencoder of Vincent et al. 2010.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gm_jax import images
from gm_jax.core import GenerativeModel, Params, Trainable, begin, descend, run
from gm_jax.reconstruction import codes
from gm_jax.reconstruction.autoencoder import Error, cross_entropy, per_image, squared_error


class Layer(nn.Module):
  """h [B, inputs] -> z [B, features] -> outputs [B, inputs]."""

  inputs: int
  features: int
  activation: Callable = nn.sigmoid

  def setup(self):
    self.up, self.down = nn.Dense(self.features), nn.Dense(self.inputs)

  def encode(self, h):
    return self.activation(self.up(h))

  def decode(self, z):
    return self.down(z)


class Stack(nn.Module):
  """Layers on top of each other: x [B, D] -> z [B, features of the last] -> outputs [B, D]."""

  inputs: int
  features: Sequence[int]
  activation: Callable = nn.sigmoid

  def setup(self):
    sizes = [self.inputs, *self.features]
    self.layers = [Layer(below, above, self.activation) for below, above in zip(sizes, sizes[1:])]

  def encode(self, x):
    for layer in self.layers:
      x = layer.encode(x)
    return x

  def decode(self, z):
    for index, layer in reversed([*enumerate(self.layers)]):
      z = layer.decode(z)
      z = self.activation(z) if index else z  # below lies a code, but under the first layer the image
    return z

  def __call__(self, x):
    return self.decode(self.encode(x))


class State(NamedTuple):
  """Parameters by layer, what the optimiser remembers of each stage and of fine-tuning, codes, and steps taken."""

  params: tuple[Params, ...]
  opt_states: tuple
  moments: codes.Moments
  steps: jax.Array


def stacked(
  stack: Stack,
  optimizer: optax.GradientTransformation,
  image_shape: tuple,
  *,
  stage: int,
  corrupt: Callable | None = None,
  error: Error | None = None,
) -> GenerativeModel:
  """A stacked autoencoder as a generative model; evaluate is that of `autoencoder`.

  Args:
    stack: of H * W * C inputs.
    optimizer: begun anew for every stage.
    image_shape: (H, W, C).
    stage: steps for each layer; whatever steps follow are fine-tuning.
    corrupt: `(key, h) -> h`, what befalls the input of the layer in training, in fine-tuning the image; None: nothing.  Codes
      come as images [B, 1, 1, features].
    error: of the image, by default the cross-entropy; codes are given back in squared error.
  """
  error = error or cross_entropy()
  num_layers = len(stack.features)
  sizes = [stack.inputs, *stack.features]
  layers = [Layer(below, above, stack.activation) for below, above in zip(sizes, sizes[1:])]

  def flat(batch):
    return images.to_unit(batch["image"]).reshape(len(batch["image"]), -1)

  def damaged(key, h, shape):
    return corrupt(key, h.reshape(len(h), *shape)).reshape(h.shape) if corrupt else h

  def layer_objective(index):
    """Of layer `index` alone, which is shown what the layers below make of the image."""
    shape = image_shape if index == 0 else (1, 1, sizes[index])
    # A code comes back through the activation that made it.
    mine = error if index == 0 else squared_error()._replace(score=lambda out, h: jnp.square(stack.activation(out) - h))

    def objective(layer, key, h, train):
      outputs = layer.decode(layer.encode(damaged(key, h, shape)))
      return mine.score(outputs, h).mean(1), {}

    return objective

  def whole_objective(stack, key, batch, train):
    x = flat(batch)
    outputs = stack(damaged(key, x, image_shape) if train else x)
    as_images = lambda a: a.reshape(len(a), *image_shape)
    return per_image(error, as_images(outputs), as_images(x))

  def init(key, batch):
    whole = begin(stack, whole_objective, optimizer, key, batch)
    params = tuple(whole.params[f"layers_{index}"] for index in range(num_layers))
    opt_states = (*map(optimizer.init, params), whole.opt_state)
    return State(params, opt_states, codes.nothing(sizes[-1]), jnp.zeros((), jnp.int32))

  def learn_layer(index, key, state, batch):
    h = flat(batch)
    for below in range(index):
      h = layers[below].apply({"params": state.params[below]}, h, method="encode")
    player = Trainable(state.params[index], {}, state.opt_states[index])
    player, metrics = descend(layers[index], layer_objective(index), optimizer, player, key, h)
    return _put(state, index, player), metrics["loss"]

  def learn_whole(key, state, batch):
    player = Trainable(_whole(state), {}, state.opt_states[-1])
    player, metrics = descend(stack, whole_objective, optimizer, player, key, batch)
    params = tuple(player.params[f"layers_{index}"] for index in range(num_layers))
    return state._replace(params=params, opt_states=(*state.opt_states[:-1], player.opt_state)), metrics["loss"]

  def step(key, state, batch):
    stages = [lambda *args, index=index: learn_layer(index, *args) for index in range(num_layers)]
    now = jnp.minimum(state.steps // stage, num_layers)
    state, loss = jax.lax.switch(now, [*stages, learn_whole], key, state, batch)
    z = stack.apply({"params": _whole(state)}, flat(batch), method="encode")
    state = state._replace(moments=codes.follow(state.moments, z), steps=state.steps + 1)
    return state, {"loss": loss, "stage": now.astype(jnp.float32)}

  def sample(key, state, num, condition=None):
    del condition
    z = codes.draw(key, state.moments, num)
    outputs = stack.apply({"params": _whole(state)}, z, method="decode")
    return images.from_unit(error.mean(outputs)).reshape(num, *image_shape)

  def evaluate(key, state, batch):
    (losses, parts), _ = run(stack, whole_objective, {"params": _whole(state)}, key, batch, train=False)
    return {"reconstruction": losses, **parts}

  return GenerativeModel(init, step, sample, evaluate)


def encode(stack: Stack, state: State, pixels):
  """The codes of images [B, H, W, C], [B, features of the last layer]."""
  x = images.to_unit(pixels).reshape(len(pixels), -1)
  return stack.apply({"params": _whole(state)}, x, method="encode")


def _whole(state: State) -> Params:
  return {f"layers_{index}": params for index, params in enumerate(state.params)}


def _put(state: State, index: int, player: Trainable) -> State:
  """The state with layer `index` as it is now."""
  at = lambda values, value: (*values[:index], value, *values[index + 1 :])
  return state._replace(params=at(state.params, player.params), opt_states=at(state.opt_states, player.opt_state))
