"""Inception against a network of loops in float64 and against torchvision's, and files that are not its weights."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.metrics import frechet, inception, kernel, resizing, safetensors, score

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (3, 31, 45, 3), dtype=np.uint8)
small = lambda pictures: resizing.as_in_2015(pictures, 107)


def save(path, tensors, kinds=None):
  """A safetensors file, after the words of its format."""
  names = {np.dtype(np.float32): "F32", np.dtype(np.float16): "F16", np.dtype(jnp.bfloat16): "BF16", np.dtype(np.int64): "I64"}
  header, position = {"__metadata__": {"format": "pt"}}, 0
  for name, tensor in tensors.items():
    kind = (kinds or {}).get(name, names[tensor.dtype])
    header[name] = {"dtype": kind, "shape": tensor.shape, "data_offsets": [position, position + tensor.nbytes]}
    position += tensor.nbytes
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)
  path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(tensor.tobytes() for tensor in tensors.values()))
  return path


def unit(name, inputs, features, height=1, width=1):
  """Tensors of a convolution and its normalisation, as PyTorch lays them out; sizes pass through about unchanged."""
  draw = lambda shape, deviation: (deviation * RNG.standard_normal(shape, np.float32)).astype(np.float32)
  return {
    f"{name}.conv.weight": draw((features, inputs, height, width), math.sqrt(2 / (inputs * height * width))),
    f"{name}.bn.weight": 1 + draw(features, 0.1),
    f"{name}.bn.bias": draw(features, 0.1),
    f"{name}.bn.running_mean": draw(features, 0.1),
    f"{name}.bn.running_var": np.exp(draw(features, 0.2)),
    f"{name}.bn.num_batches_tracked": np.zeros((), np.int64),
  }


# What torchvision calls InceptionA, C and E: (name, inputs or None for the block's own, features, height, width).
def block_a(pooled):
  yield from [("branch1x1", None, 64, 1, 1), ("branch5x5_1", None, 48, 1, 1), ("branch5x5_2", 48, 64, 5, 5)]
  yield from [("branch3x3dbl_1", None, 64, 1, 1), ("branch3x3dbl_2", 64, 96, 3, 3), ("branch3x3dbl_3", 96, 96, 3, 3)]
  yield ("branch_pool", None, pooled, 1, 1)


def block_c(c):
  yield from [("branch1x1", None, 192, 1, 1), ("branch7x7_1", None, c, 1, 1), ("branch7x7_2", c, c, 1, 7)]
  yield from [("branch7x7_3", c, 192, 7, 1), ("branch7x7dbl_1", None, c, 1, 1), ("branch7x7dbl_2", c, c, 7, 1)]
  yield from [("branch7x7dbl_3", c, c, 1, 7), ("branch7x7dbl_4", c, c, 7, 1), ("branch7x7dbl_5", c, 192, 1, 7)]
  yield ("branch_pool", None, 192, 1, 1)


def block_e():
  yield from [("branch1x1", None, 320, 1, 1), ("branch3x3_1", None, 384, 1, 1), ("branch3x3_2a", 384, 384, 1, 3)]
  yield from [("branch3x3_2b", 384, 384, 3, 1), ("branch3x3dbl_1", None, 448, 1, 1), ("branch3x3dbl_2", 448, 384, 3, 3)]
  yield from [("branch3x3dbl_3a", 384, 384, 1, 3), ("branch3x3dbl_3b", 384, 384, 3, 1), ("branch_pool", None, 192, 1, 1)]


REDUCTION_B = [("branch3x3", None, 384, 3, 3), ("branch3x3dbl_1", None, 64, 1, 1), ("branch3x3dbl_2", 64, 96, 3, 3)]
REDUCTION_B += [("branch3x3dbl_3", 96, 96, 3, 3)]
REDUCTION_D = [("branch3x3_1", None, 192, 1, 1), ("branch3x3_2", 192, 320, 3, 3), ("branch7x7x3_1", None, 192, 1, 1)]
REDUCTION_D += [("branch7x7x3_2", 192, 192, 1, 7), ("branch7x7x3_3", 192, 192, 7, 1), ("branch7x7x3_4", 192, 192, 3, 3)]
STEM = [("1a_3x3", 3, 32, 3), ("2a_3x3", 32, 32, 3), ("2b_3x3", 32, 64, 3), ("3b_1x1", 64, 80, 1), ("4a_3x3", 80, 192, 3)]
MIXED = {
  "Mixed_5b": (192, list(block_a(32))),
  "Mixed_5c": (256, list(block_a(64))),
  "Mixed_5d": (288, list(block_a(64))),
  "Mixed_6a": (288, REDUCTION_B),
  "Mixed_6b": (768, list(block_c(128))),
  "Mixed_6c": (768, list(block_c(160))),
  "Mixed_6d": (768, list(block_c(160))),
  "Mixed_6e": (768, list(block_c(192))),
  "Mixed_7a": (768, REDUCTION_D),
  "Mixed_7b": (1280, list(block_e())),
  "Mixed_7c": (2048, list(block_e())),
}


@pytest.fixture(scope="module")
def tensors():
  found = {}
  for name, inputs, features, side in STEM:
    found.update(unit(f"Conv2d_{name}", inputs, features, side, side))
  for block, (channels, layers) in MIXED.items():
    for name, inputs, *rest in layers:
      found.update(unit(f"{block}.{name}", inputs or channels, *rest))
  found["fc.weight"] = (0.03 * RNG.standard_normal((1008, 2048))).astype(np.float32)
  found["fc.bias"] = RNG.standard_normal(1008).astype(np.float32)
  return found


@pytest.fixture(scope="module")
def file(tensors, tmp_path_factory):
  return save(tmp_path_factory.mktemp("inception") / "weights.safetensors", tensors)


@pytest.fixture(scope="module")
def variables(file):
  return inception.load(file)


@pytest.fixture(scope="module")
def found(variables):
  return inception.outputs(variables, PICTURES, resize=small, batch_size=2)


class Loops:
  """The network in float64, channels first, a convolution as a sum over the pixels of its kernel."""

  def __init__(self, tensors):
    self.tensors = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}

  def unit(self, name, x, stride=1, padded=True):
    kernel, bn = self.tensors[f"{name}.conv.weight"], lambda part: self.tensors[f"{name}.bn.{part}"][:, None, None]
    height, width = kernel.shape[2:]
    rows, columns = (height // 2, width // 2) if padded and stride == 1 else (0, 0)
    x = np.pad(x, ((0, 0), (rows, rows), (columns, columns)))
    steps, across = (x.shape[1] - height) // stride + 1, (x.shape[2] - width) // stride + 1
    y = 0.0
    for i in range(height):
      for j in range(width):
        seen = x[:, i : i + stride * (steps - 1) + 1 : stride, j : j + stride * (across - 1) + 1 : stride]
        y = y + np.tensordot(kernel[:, :, i, j], seen, 1)
    y = (y - bn("running_mean")) / np.sqrt(bn("running_var") + 0.001) * bn("weight") + bn("bias")
    return np.maximum(y, 0)

  def pool(self, x, reduce, stride=1):
    """Over what a window of 3 x 3 sees of the image, and nothing else; without padding where it strides."""
    start = 1 if stride == 2 else 0
    places = [range(start, side - start, stride) for side in x.shape[1:]]
    seen = lambda i, j: x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
    return np.stack([np.stack([reduce(seen(i, j), (1, 2)) for j in places[1]], -1) for i in places[0]], 1)

  def mixed(self, block, x):
    unit = lambda name, y, stride=1: self.unit(f"{block}.{name}", y, stride)

    def chain(name, y, first, last, stride=1):
      for number in range(first, last + 1):
        y = unit(f"{name}_{number}", y, stride if number == last else 1)
      return y

    fork = lambda name, y: np.concatenate([unit(f"{name}a", y), unit(f"{name}b", y)])
    if block == "Mixed_6a":
      return np.concatenate([unit("branch3x3", x, 2), chain("branch3x3dbl", x, 1, 3, 2), self.pool(x, np.max, 2)])
    if block == "Mixed_7a":
      return np.concatenate([chain("branch3x3", x, 1, 2, 2), chain("branch7x7x3", x, 1, 4, 2), self.pool(x, np.max, 2)])
    pooled = unit("branch_pool", self.pool(x, np.max if block == "Mixed_7c" else np.mean))
    if block.startswith("Mixed_5"):
      middle = [chain("branch5x5", x, 1, 2), chain("branch3x3dbl", x, 1, 3)]
    elif block.startswith("Mixed_6"):
      middle = [chain("branch7x7", x, 1, 3), chain("branch7x7dbl", x, 1, 5)]
    else:
      middle = [fork("branch3x3_2", unit("branch3x3_1", x)), fork("branch3x3dbl_3", chain("branch3x3dbl", x, 1, 2))]
    return np.concatenate([unit("branch1x1", x), *middle, pooled])

  def __call__(self, x):
    """x [3, H, W] -> features [2048], logits [1008]."""
    x = self.unit("Conv2d_1a_3x3", x, 2)
    x = self.unit("Conv2d_2b_3x3", self.unit("Conv2d_2a_3x3", x, padded=False))
    x = self.unit("Conv2d_3b_1x1", self.pool(x, np.max, 2))
    x = self.pool(self.unit("Conv2d_4a_3x3", x, padded=False), np.max, 2)
    for block in MIXED:
      x = self.mixed(block, x)
    features = x.mean((1, 2))
    return features, self.tensors["fc.weight"] @ features + self.tensors["fc.bias"]


def test_it_is_the_network_of_loops(tensors, found):
  x = (np.asarray(small(PICTURES[:1]), np.float64)[0].transpose(2, 0, 1) - 128) / 128
  features, logits = Loops(tensors)(x)
  assert features.std() > 0.1
  np.testing.assert_allclose(found.features[0], features, atol=1e-4 * features.max())
  np.testing.assert_allclose(found.logits[0], logits, atol=1e-4 * np.abs(logits).max())
  unbiased = logits - tensors["fc.bias"].astype(np.float64)
  np.testing.assert_allclose(found.score_logits[0], unbiased, atol=1e-4 * np.abs(logits).max())


def test_it_is_the_network_of_torchvision(tensors, found, monkeypatch):
  """With the pools of 2015 put into it: its names, its shapes, its layers."""
  models = pytest.importorskip("torchvision.models")
  torch = pytest.importorskip("torch")
  functional = torch.nn.functional
  network = models.inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False).eval()
  network.load_state_dict({name: torch.tensor(tensor) for name, tensor in tensors.items()})
  average = functional.avg_pool2d
  monkeypatch.setattr(functional, "avg_pool2d", lambda x, **options: average(x, **options, count_include_pad=False))
  seen, last = [], network.Mixed_7c.forward

  def by_maximum(x):
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(functional, "avg_pool2d", functional.max_pool2d)
      return last(x)

  network.Mixed_7c.forward = by_maximum
  network.avgpool.register_forward_hook(lambda module, args, result: seen.append(result.flatten(1).numpy()))
  with torch.no_grad():
    logits = network((torch.tensor(np.asarray(small(PICTURES))).permute(0, 3, 1, 2) - 128) / 128).numpy()
  np.testing.assert_allclose(found.features, seen[0], atol=1e-4 * seen[0].max())
  np.testing.assert_allclose(found.logits, logits, atol=1e-4 * np.abs(logits).max())


def test_every_block_has_the_parameters_of_its_layers(variables):
  count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
  for block, (channels, layers) in MIXED.items():
    expected = sum((inputs or channels) * features * h * w + 2 * features for _, inputs, features, h, w in layers)
    assert count(variables["params"][block]) == expected, block
    assert count(variables["batch_stats"][block]) == 2 * sum(layer[2] for layer in layers), block
  # torchvision's 23,834,568 have 1,000 classes; two numbers for each channel of a normalisation are not learnt.
  assert count(variables["params"]) == 23_834_568 + 8 * 2049


def test_rows_do_not_depend_on_the_batch_and_grey_is_three_equal_channels(variables, found):
  """Three in batches of two: turned round, each has another neighbour, and another is repeated to fill the last batch."""
  of = lambda pictures: inception.outputs(variables, pictures, resize=small, batch_size=2)
  for a, b in zip(of(PICTURES[::-1]), found):
    assert a.shape == b.shape
    np.testing.assert_allclose(a[::-1], b, atol=1e-4 * np.abs(b).max())
  grey = PICTURES[:2, :, :, :1]
  for a, b in zip(of(grey), of(np.repeat(grey, 3, axis=-1))):
    np.testing.assert_array_equal(a, b)


def test_true_names_are_those_measures_of_these_outputs():
  draw = lambda shift: inception.Outputs(shift + RNG.normal(size=(40, 6)), *RNG.normal(size=(2, 40, 5)))
  a, b = draw(0), draw(1)
  assert inception.fid(a, b) == frechet.distance(frechet.moments(a.features), frechet.moments(b.features))
  assert inception.kid(a, b, seed=1, block=10) == kernel.distance(a.features, b.features, seed=1, block=10)
  assert inception.inception_score(a, 4) == score.of_logits(a.score_logits, 4)


def test_average_pools_leave_a_constant_image_as_it_is():
  x = np.full((1, 4, 5, 2), 3.0, np.float32)
  np.testing.assert_allclose(inception.average_pool(x), x)
  image = RNG.normal(size=(1, 4, 5, 1)).astype(np.float32)
  assert inception.average_pool(image)[0, 0, 0, 0] == pytest.approx(image[0, :2, :2, 0].mean())


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_half_precision_files_are_read(dtype, tmp_path):
  tensor = RNG.normal(size=(3, 2)).astype(dtype)
  read = safetensors.reader(save(tmp_path / "half", {"a": np.zeros(5, np.float32), "b": tensor}))
  np.testing.assert_array_equal(read("b"), tensor)
  assert read("c") is None


def test_another_network_is_told_by_its_shapes(tensors, tmp_path):
  path = save(tmp_path / "imagenet", {**tensors, "fc.weight": tensors["fc.weight"][:1000]})
  with pytest.raises(UserError, match=r"fc.weight is \[1000, 2048\]; the Inception of FID needs \[1008, 2048\]"):
    inception.load(path)


FIRST = "Conv2d_1a_3x3.bn.running_mean"  # the one that is read first
WHOLE = {FIRST: np.ones(32, np.float32)}


@pytest.mark.parametrize(
  ("tensors", "kind", "spoil", "said"),
  [
    (WHOLE, "F32", lambda content: content, "no tensor Conv2d_1a_3x3.bn.running_var"),
    ({"other": np.ones(32, np.float32)}, "F32", lambda content: content, f"no tensor {FIRST}"),
    ({FIRST: np.ones(31, np.float32)}, "F32", lambda content: content, r"is \[31\]; the Inception of FID needs \[32\]"),
    ({FIRST: np.full(32, np.nan, np.float32)}, "F32", lambda content: content, "32 of 32 numbers are not finite"),
    (WHOLE, "I32", lambda content: content, "is damaged, or of another type than F64, F32"),
    (WHOLE, "F16", lambda content: content, "is damaged"),
    (WHOLE, "F32", lambda content: content[:-1], "is damaged"),
    (WHOLE, "F32", lambda content: content[:30], "not a safetensors file"),
    (WHOLE, "F32", lambda content: b"PK\3\4" + content[4:], "not a safetensors file"),
    (WHOLE, "F32", lambda content: (4).to_bytes(8, "little") + b"[1] ", "not a safetensors file"),
    (WHOLE, "F32", lambda content: b"", "not a safetensors file"),
  ],
)
def test_a_wrong_file_is_told_in_one_line(tensors, kind, spoil, said, tmp_path):
  path = save(tmp_path / "file", tensors, {FIRST: kind})
  path.write_bytes(spoil(path.read_bytes()))
  with pytest.raises(UserError, match=said) as error:
    inception.load(path)
  assert str(path) in str(error.value)
  assert "\n" not in str(error.value)


def test_no_file_and_no_bytes_are_told_in_one_line(tmp_path):
  with pytest.raises(UserError, match="No such file"):
    inception.load(tmp_path / "gone")
  with pytest.raises(UserError, match="float32 of shape"):
    inception.outputs({}, PICTURES.astype(np.float32))
  with pytest.raises(UserError, match="uint8 of shape"):
    inception.outputs({}, PICTURES[..., :2])
