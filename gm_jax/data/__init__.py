"""Where examples come from.

A likelihood means nothing without the data it was measured on, so every split carries its protocol: which data, which split,
how grey became black and white.  A `Dataset` is arrays in memory; `batches(dataset, batch_size, seed)` is a pure function of
the step, which is why a run resumes exactly and no loader is ever saved; `epoch` reads a split once, in order, for evaluation.

  digits          real handwritten digits, in the package, no download
  sprites         drawn shapes of which everything is known
  toys            laws on the plane with exact densities: ring, grid, two_moons, checkerboard, gaussian_mixture
  tfds_images     any image set that TensorFlow Datasets has prepared, read without TensorFlow
  picture_folder  a folder of pictures, one class per sub-folder
  from_arrays     your own
  binarized       static, dynamic or none
  padded          in a larger black frame
  stacked         grey images as the channels of one: a thousand kinds out of ten
  stratified      batches in which the classes come in turn

What does not fit into memory stays on disk (`Large`) behind the same calls.
"""

from gm_jax.data import toys
from gm_jax.data.batches import Batches, batches, epoch
from gm_jax.data.binarize import BINARIZATIONS, binarized, dynamic_binarization, no_binarization, static_binarization
from gm_jax.data.dataset import Dataset, from_arrays
from gm_jax.data.digits import digits
from gm_jax.data.folder import picture_folder
from gm_jax.data.large import Large
from gm_jax.data.padded import padded
from gm_jax.data.sprites import sprites
from gm_jax.data.stacked import stacked
from gm_jax.data.stratified import Stratified, stratified
from gm_jax.data.tfds import tfds_images, tfds_splits
from gm_jax.data.toys import TOYS, Toy

__all__ = [
  "BINARIZATIONS",
  "TOYS",
  "Batches",
  "Dataset",
  "Large",
  "Stratified",
  "Toy",
  "batches",
  "binarized",
  "digits",
  "dynamic_binarization",
  "epoch",
  "from_arrays",
  "no_binarization",
  "padded",
  "picture_folder",
  "sprites",
  "stacked",
  "static_binarization",
  "stratified",
  "tfds_images",
  "tfds_splits",
  "toys",
]
