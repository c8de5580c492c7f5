"""Exact answers against enumeration of the joint, the textbook's own figures, and independence against the numbers."""

import itertools

import jax
import numpy as np
import pytest

from gm_jax.tractable import bayesian_network as bn

STUDENT = bn.student()


def random_network(seed, names="abcdef"):
  """A network with random edges, levels and tables; the nodes are given in no order."""
  rng = np.random.default_rng(seed)
  sizes = {name: int(rng.integers(2, 4)) for name in names}
  nodes = {}
  for index, name in enumerate(names):
    parents = [other for other in names[:index] if rng.uniform() < 0.4]
    nodes[name] = parents, rng.dirichlet(np.ones(sizes[name]), [sizes[parent] for parent in parents])
  shuffled = rng.permutation(list(names))
  return bn.network({name: nodes[name] for name in shuffled})


def enumerated(net):
  """Every assignment and its probability, multiplied out in float64: names, states [N, nodes], probabilities [N]."""
  names = list(net.tables)
  states = np.array(list(itertools.product(*(range(net.tables[name].shape[-1]) for name in names))))
  column = dict(zip(names, states.T))
  probs = np.ones(len(states))
  for name in names:
    table = np.asarray(net.tables[name], np.float64)
    probs *= table[tuple(column[member] for member in (*net.parents[name], name))]
  return column, probs


@pytest.mark.parametrize("seed", range(3))
def test_the_joint_sums_to_one_and_is_the_product_of_the_tables(seed):
  net = random_network(seed)
  column, probs = enumerated(net)
  np.testing.assert_allclose(bn.log_joint(net, column), np.log(probs), rtol=1e-5)
  assert abs(np.exp(np.asarray(bn.log_joint(net, column), np.float64)).sum() - 1) < 1e-5


@pytest.mark.parametrize("seed", range(3))
def test_queries_are_those_of_brute_force(seed):
  net = random_network(seed)
  column, probs = enumerated(net)
  rng = np.random.default_rng(seed + 10)
  for _ in range(12):
    names = list(rng.permutation(list(net.tables)))
    targets, given = names[: rng.integers(1, 3)], names[3 : 3 + rng.integers(0, 3)]
    evidence = {name: int(rng.integers(net.tables[name].shape[-1])) for name in given}
    kept = np.all([column[name] == level for name, level in evidence.items()] or [np.ones(len(probs), bool)], axis=0)
    expected = np.zeros([net.tables[name].shape[-1] for name in targets])
    np.add.at(expected, tuple(column[name][kept] for name in targets), probs[kept])
    np.testing.assert_allclose(bn.query(net, targets, evidence), expected / expected.sum(), atol=2e-6)
    np.testing.assert_allclose(bn.probability(net, evidence), expected.sum(), rtol=1e-5)


def test_the_student_is_the_textbooks():
  """Koller & Friedman, section 3.2.1: what one hears about a student and what one then thinks of the letter and the mind."""
  ask = lambda name, level, **evidence: float(bn.query(STUDENT, [name], evidence)[level])
  for value, asked in [
    (0.502, ask("l", 1)),
    (0.389, ask("l", 1, i=0)),
    (0.513, ask("l", 1, i=0, d=0)),
    (0.079, ask("i", 1, g=2)),
    (0.629, ask("d", 1, g=2)),
    (0.578, ask("i", 1, g=2, s=1)),
    (0.175, ask("i", 1, g=1)),
    (0.34, ask("i", 1, g=1, d=1)),
  ]:
    assert abs(asked - value) < 6e-4 + 5e-3 * (value == 0.34)
  assert bn.num_parameters(STUDENT) == 1 + 1 + 8 + 2 + 3 == 15
  assert np.prod(list(bn.levels(STUDENT).values())) - 1 == 47


def dependence(column, probs, one, other, given):
  """The largest |p(a, b | c) - p(a | c) p(b | c)| over all levels, of the enumerated joint."""
  shape = [column[name].max() + 1 for name in (one, other, *given)]
  joint = np.zeros(shape)
  np.add.at(joint, tuple(column[name] for name in (one, other, *given)), probs)
  joint /= joint.sum((0, 1))
  return np.abs(joint - joint.sum(0, keepdims=True) * joint.sum(1, keepdims=True)).max()


@pytest.mark.parametrize("net", [STUDENT, random_network(4, "abcde"), random_network(5, "abcde")], ids=["student", "4", "5"])
def test_separation_in_the_graph_is_independence_in_the_numbers(net):
  """Every pair given every set of others: separated means independent, and in tables not made for it, only that does."""
  names = list(net.tables)
  column, probs = enumerated(net)
  outcomes = set()
  for one, other in itertools.combinations(names, 2):
    rest = [name for name in names if name not in (one, other)]
    for given in itertools.chain.from_iterable(itertools.combinations(rest, size) for size in range(len(rest) + 1)):
      separated = bn.separated(net, one, other, given)
      assert separated == bn.separated(net, other, one, given)
      outcomes.add(separated)
      amount = dependence(column, probs, one, other, given)
      assert amount < 1e-6 if separated else amount > 1e-5, (one, other, given)
  assert outcomes == {True, False}


def test_the_students_independences_by_name():
  separated = lambda *names, given=(): bn.separated(STUDENT, *names, given)
  assert separated("d", "i")
  assert not separated("d", "i", given=("g",))  # explaining away
  assert not separated("d", "i", given=("l",))  # a descendant of the collider does as well
  assert separated("l", "i", given=("g",))
  assert separated("s", "g", given=("i",))
  assert not separated("s", "l")


def test_samples_have_the_marginals_and_belong_to_their_rows():
  num = 60_000
  x = jax.jit(lambda key: bn.sample(key, STUDENT, num))(jax.random.key(0))
  for pair in itertools.combinations(STUDENT.tables, 2):
    expected = np.asarray(bn.query(STUDENT, pair), np.float64)
    seen = np.zeros_like(expected)
    np.add.at(seen, tuple(np.asarray(x[name]) for name in pair), 1 / num)
    assert np.abs(seen - expected).max() < 5 * 0.5 / np.sqrt(num), pair
  few = bn.sample(jax.random.key(0), STUDENT, 10)
  for name in STUDENT.tables:
    np.testing.assert_array_equal(few[name], x[name][:10])


def test_answers_can_be_differentiated():
  """The slope of p(l) in p(d), the rest held: what the chain rule by hand gives."""

  def strong(p_hard):
    tables = {**STUDENT.tables, "d": jax.numpy.stack([1 - p_hard, p_hard])}
    return bn.query(STUDENT._replace(tables=tables), ["l"])[1]

  slope = jax.grad(strong)(jax.numpy.float32(0.4))
  by_level = [float(bn.query(STUDENT, ["l"], {"d": level})[1]) for level in (0, 1)]
  np.testing.assert_allclose(slope, by_level[1] - by_level[0], rtol=1e-4)


COIN = [0.5, 0.5]
SEEN = [[0.9, 0.1], [0.2, 0.8]]


@pytest.mark.parametrize(
  ("nodes", "named"),
  [
    ({"a": (("z",), SEEN)}, "'z'"),
    ({"a": (("b",), SEEN), "b": (("a",), SEEN)}, "cycle"),
    ({"a": ((), COIN), "b": (("a",), COIN)}, "table of b"),
    ({"a": ((), [0.5, 0.6])}, "sum to one"),
    ({"a": ((), [1.5, -0.5])}, "sum to one"),
  ],
  ids=["stranger", "cycle", "shape", "sum", "negative"],
)
def test_what_is_no_network_is_refused(nodes, named):
  with pytest.raises(ValueError, match=named):
    bn.network(nodes)


@pytest.mark.parametrize(
  ("targets", "evidence", "named"),
  [(["x"], {}, "'x'"), (["l"], {"y": 0}, "'y'"), (["l"], {"l": 0}, "once"), (["l"], {"g": 3}, "g is 3")],
  ids=["target", "evidence", "both", "level"],
)
def test_what_cannot_be_asked_is_refused(targets, evidence, named):
  with pytest.raises(ValueError, match=named):
    bn.query(STUDENT, targets, evidence)


def test_evidence_that_cannot_happen_is_refused():
  net = bn.network({"a": ((), [1.0, 0.0]), "b": (("a",), SEEN)})
  with pytest.raises(ValueError, match="zero"):
    bn.query(net, ["b"], {"a": 1})
