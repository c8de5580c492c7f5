"""One small instance of every model: a line here puts a new member under the whole contract."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax

from gm_jax import images, two_stage
from gm_jax.approximate import (
  conditional_vae,
  costs,
  hierarchical_vae,
  importance,
  likelihoods,
  priors,
  semi_supervised,
  vae,
  variational_diffusion,
  vqvae,
)
from gm_jax.implicit import began, games, gan, infogan, remedies
from gm_jax.implicit.progressive import growing
from gm_jax.implicit.style import path_length
from gm_jax.networks import (
  dcgan,
  feature_maps,
  image_lstm,
  image_transformer,
  ladder,
  pixelcnn,
  pixelcnnpp,
  pixelrnn,
  players,
  quantizer,
  style,
)
from gm_jax.networks import progressive as levels_of
from gm_jax.networks.began import AutoencodingCritic
from gm_jax.networks.conditional import ConditionalCritic, ConditionalGenerator
from gm_jax.networks.flat import FlatDecoder, FlatEncoder
from gm_jax.networks.masked import MaskedMLP
from gm_jax.networks.mlp import MLP
from gm_jax.networks.point_mlp import PointMLP
from gm_jax.networks.residual import ResidualNet
from gm_jax.networks.unet import UNet
from gm_jax.reconstruction import autoencoder, corruptions, penalties, restoration, stacked, two_domains
from gm_jax.score import (
  conditional,
  consistency,
  diffusion,
  distillation,
  grids,
  guidance,
  neighbours,
  noise,
  parameterizations,
  progressive,
  recipes,
  reflow,
  solvers,
)
from gm_jax.tasks import classification
from gm_jax.tractable import (
  autoregressive,
  chow_liu,
  counting,
  fvsbn,
  gaussian,
  infinite_mixture,
  made,
  mixture,
  mixture_by_gradient,
  nade,
)

BATCH_SIZE = 16


class Member(NamedTuple):
  make: Callable  # () -> GenerativeModel
  reports: str
  batch: Callable  # (step) -> dict
  learns_in: int | None = 40  # steps after which the score of one batch has fallen; None where a game has no such promise


def binary(step: int):
  """Black and white images with structure: a bright square that moves."""
  generator = np.random.default_rng(step)
  image = np.zeros((BATCH_SIZE, 8, 8, 1), np.uint8)
  for row, (top, left) in enumerate(generator.integers(0, 5, (BATCH_SIZE, 2))):
    image[row, top : top + 3, left : left + 3] = 255
  return {"image": image, "label": generator.integers(0, 10, BATCH_SIZE).astype(np.int32)}


def grey(step: int):
  """The same squares with noise in every pixel."""
  batch = binary(step)
  noise = np.random.default_rng(step + 1000).integers(0, 64, batch["image"].shape)
  return {**batch, "image": np.clip(batch["image"] * 0.7 + noise, 0, 255).astype(np.uint8)}


def half_labelled(step: int):
  """The black and white squares; every second one has no label."""
  batch = binary(step)
  return {**batch, "label": np.where(np.arange(BATCH_SIZE) % 2, -1, batch["label"]).astype(np.int32)}


def interleaved(step: int):
  """Grey squares of two classes in turn, the second inverted."""
  batch = grey(step)
  image = batch["image"].copy()
  image[1::2] = 255 - image[1::2]
  return {"image": image, "label": np.arange(BATCH_SIZE, dtype=np.int32) % 2}


def make_vae(likelihood):
  module = vae.VAE(FlatEncoder((32,)), FlatDecoder((32,), (8, 8, likelihood.channels)), likelihood, num_latents=4)
  return vae.vae(module, optax.adam(3e-3))


def make_vae_with(prior, objective, likelihood):
  networks = FlatEncoder((32,)), FlatDecoder((32,), (8, 8, likelihood.channels))
  module = vae.VAE(*networks, likelihood, num_latents=4, prior=prior)
  return vae.vae(module, optax.adam(3e-3, eps=1e-5), objective=objective)


def make_iwae(prior, objective):
  return make_vae_with(prior, objective, vae.bernoulli())


def make_logistic_vae():
  rising = vae.negative_elbo(costs.weighted(optax.linear_schedule(0.0, 1.0, 10)))
  return make_vae_with(priors.GaussianMixture(3), rising, likelihoods.logistic_mixture(2))


def make_conditional_vae():
  networks = FlatEncoder((32,)), FlatDecoder((32,), (8, 8, 1)), vae.bernoulli()
  module = conditional_vae.ConditionalVAE(*networks, num_latents=4, hidden=16)
  objective = vae.negative_elbo(costs.free_bits(0.1))
  return vae.vae(module, optax.adam(3e-3, eps=1e-5), objective=objective, sample=vae.ancestral_sample)


def make_semi_supervised():
  networks = FlatEncoder((32,)), FlatDecoder((32,), (8, 8, 1)), vae.bernoulli()
  sizes = dict(num_latents=4, num_classes=10, hidden=16)
  module = semi_supervised.SemiSupervisedVAE(*networks, **sizes, classifier=FlatEncoder((16,)))
  return semi_supervised.semi_supervised(module, optax.adam(3e-3, eps=1e-5), alpha=5.0)


def make_vqvae():
  return vqvae.vqvae(one_level(), optax.adam(3e-3, eps=1e-5))


def one_level():
  codebook = quantizer.ByAverages(8, decay=0.9, restart=0.95)
  encoder, decoder = feature_maps.Down(4, (8, 8)), feature_maps.Up(2, (8, 8))
  return vqvae.VQVAE(encoder, decoder, codebook, vae.gaussian(), (2, 2))


def make_two_stage():
  module = one_level()
  prior = two_stage.code_prior(module.levels[0], optax.adam(1e-2, eps=1e-5), num_classes=10, features=4, blocks=1)
  return two_stage.two_stage(module, make_vqvae(), [prior], first_steps=3)


def make_vqvae2():
  networks = feature_maps.Down(8, (8,)), feature_maps.Down(4, (8,)), feature_maps.Up(8, (8,)), feature_maps.Up(2, (8,))
  codebooks = quantizer.ByGradient(8), quantizer.ByAverages(8)
  module = vqvae.VQVAE2(*networks, *codebooks, vae.gaussian(), (2, 2), (4, 4), features=4)
  return vqvae.vqvae(module, optax.adam(3e-3, eps=1e-5))


def make_ladder():
  block = lambda features: ladder.DenseBlock(features, 16)
  levels = [hierarchical_vae.Level(3, 12, block, top=index == 0) for index in range(2)]
  readout = ladder.DenseReadout(16, (8, 8, 1))
  module = hierarchical_vae.HierarchicalVAE(ladder.DenseLadder((24, 12)), levels, readout, vae.bernoulli())
  return hierarchical_vae.hierarchical_vae(module, optax.adam(3e-3, eps=1e-5))


def make_deep_vae():
  block = lambda features: ladder.ConvBlock(features, 4)
  levels = [hierarchical_vae.Level(2, 8, block, top=index == 0) for index in range(2)]
  readout = ladder.ConvReadout((8, 8, 1), 4)
  maps = ladder.ConvLadder((2, 4), 8, 4), levels, readout
  module = hierarchical_vae.HierarchicalVAE(*maps, vae.bernoulli(), (2, 2), ((2, 2), (4, 4)))
  optimizer = hierarchical_vae.skipping(optax.adam(3e-3, eps=1e-5), threshold=1000.0)
  return hierarchical_vae.hierarchical_vae(module, optimizer, free_nats=0.1)


def make_gan(game, norm, n_critic):
  optimizer = optax.adam(1e-3, b1=0.5)
  generator, critic = dcgan.Generator((8, 8, 1), base=8), dcgan.Discriminator(base=8, norm=norm)
  return gan.gan(generator, critic, game, optimizer, optimizer, num_latents=8, n_critic=n_critic)


def make_remedied_gan(game, *chosen, generator=None, critic=None, **options):
  # eps_root: where the critic is unrolled, its Adam is differentiated.
  optimizer = optax.adam(1e-3, b1=0.5, eps=1e-5, eps_root=1e-8)
  networks = generator or players.FlatGenerator((16,), (8, 8, 1)), critic or players.FlatCritic((16,))
  return gan.gan(*networks, game, optimizer, optimizer, num_latents=8, remedies=chosen, **options)


def make_packed_gan():
  seen = remedies.instance_noise(optax.linear_schedule(0.5, 0.0, 10)), remedies.packing(2), remedies.spectral_normalization()
  turns = remedies.two_learning_rates(2.0), remedies.alternation(2, 2), remedies.historical_averaging(0.1)
  generator = dcgan.Generator((8, 8, 1), base=8)
  return make_remedied_gan(games.hinge(), *seen, *turns, remedies.recomputed_statistics(32), generator=generator)


def make_unrolled_gan():
  wants = remedies.minibatch_discrimination(3, 2), remedies.feature_matching(adversarial=1.0), remedies.unrolled(2)
  return make_remedied_gan(games.non_saturating(), *wants)


def make_infogan():
  chosen = infogan.informative((4,), 2, hidden=8), remedies.augmentation(corruptions.slanted(0.4))
  return make_remedied_gan(games.non_saturating(), *chosen)


def make_began():
  critic = AutoencodingCritic(FlatEncoder((8,)), FlatDecoder((16,), (8, 8, 1)))
  return make_remedied_gan(began.began(rate=0.05), critic=critic)


def make_conditional_gan():
  told = ConditionalGenerator(players.FlatGenerator((16,), (8, 8, 1)), 10), ConditionalCritic(players.FlatCritic((16,)), 10)
  return make_remedied_gan(games.r1(games.dragan(), every=2), generator=told[0], critic=told[1], num_classes=10)


def make_growing_gan():
  """Level 1 comes in while the first steps are made."""
  networks = levels_of.Generator((8, 8, 1), (4, 4)), levels_of.Discriminator((4, 4), group=None)
  return make_remedied_gan(games.non_saturating(), growing(1, fade=4, stay=1), generator=networks[0], critic=networks[1])


def make_style_gan():
  # Groups of two: as many images as eight devices have of the batch.
  networks = style.Generator((8, 8, 1), (4,), width=8, mapping=1), style.Discriminator((4,), group=2)
  game = games.r1(games.non_saturating(), gamma=1.0, every=2)
  return make_remedied_gan(game, path_length(every=2), generator=networks[0], critic=networks[1])


class FlatNetwork(nn.Module):
  """A denoiser's network that sees images of one channel, and what is stacked on it, as rows of numbers: quickly compiled."""

  num_classes: int = 10

  @nn.compact
  def __call__(self, x, time, label=None, train: bool = False):
    num, height, width, _ = x.shape
    points = PointMLP(16, 1, num_classes=self.num_classes, out_channels=height * width)
    return points(x.reshape(num, 1, 1, -1), time, label, train).reshape(num, height, width, 1)


def make_diffusion(recipe, solver, grid, network=None):
  network = network or FlatNetwork()
  # At Adam's own eps of 1e-8 the rounding noise of a vanishing gradient is a full step, in another direction on each layout.
  optimizer = optax.adam(1e-3, eps=1e-5)
  sampler = diffusion.Sampler(solver(grid), (guidance.classifier_free(2.0, 10), guidance.clipped()))
  return diffusion.diffusion(network, optimizer, recipe, sampler, image_shape=(8, 8, 1), num_classes=10)


def make_ddpm():
  table = noise.discrete(noise.cosine_betas(20))
  network = UNet(channels=(8,), blocks=1, attention=(), patch=2, heads=2, num_classes=10)
  return make_diffusion(recipes.ddpm(table), solvers.Ancestral(), grids.trailing(table, 20), network)


def make_edm():
  return make_diffusion(recipes.edm(), solvers.Heun(churn=4.0), grids.karras(5))


def make_flow_matching():
  return make_diffusion(recipes.flow_matching(), solvers.DDIM(), grids.in_time(noise.straight(), 5))


def make_student(second):
  """A student of a flow that says something: one that is new says zero, and then there is nothing to learn but rounding."""
  module = diffusion.Denoiser(FlatNetwork(), recipes.flow_matching().parameterization, 10)
  teacher = jax.jit(make_flow_matching().init)(jax.random.key(0), grey(0)).average.variables
  rng = np.random.default_rng(0)
  teacher = jax.tree.map(lambda leaf: leaf + rng.normal(0, 0.1, leaf.shape).astype(leaf.dtype), teacher)
  return second(module, teacher, optax.adam(1e-3, eps=1e-5))


def make_reflow():
  couples, sampler = (solvers.DDIM()(grids.in_time(noise.straight(), num)) for num in (2, 1))
  return make_student(lambda *told: reflow.reflow(*told, couples, diffusion.Sampler(sampler), image_shape=(8, 8, 1)))


def make_progressive():
  grid = grids.in_time(noise.straight(), 4)
  options = dict(image_shape=(8, 8, 1), rounds=2, round_steps=50, guidance=(guidance.clipped(),))
  return make_student(lambda *told: progressive.progressive(*told, grid, **options))


def two_steps():
  return diffusion.Sampler(consistency.Multistep()(grids.karras(2)))


def make_consistency_distillation():
  options = dict(image_shape=(8, 8, 1), grid=grids.karras(5, last=None))
  return make_student(lambda *told: consistency.consistency_distillation(*told, two_steps(), **options))


def make_consistency_training():
  options = dict(image_shape=(8, 8, 1), num_levels=neighbours.doubling(40, 5, 20), num_classes=10)
  return consistency.consistency_training(FlatNetwork(), optax.adam(1e-3, eps=1e-5), two_steps(), **options)


def make_teacher_and_student():
  module = diffusion.Denoiser(FlatNetwork(), recipes.flow_matching().parameterization, 10)
  grid, options = grids.in_time(noise.straight(), 4), dict(image_shape=(8, 8, 1), rounds=2, round_steps=1)
  second = lambda teacher: progressive.progressive(module, teacher, optax.adam(1e-3, eps=1e-5), grid, **options)
  return distillation.after(make_flow_matching(), second, first_steps=1)


def make_conditional_diffusion():
  network = FlatNetwork(0)
  optimizer, sampler = optax.adam(1e-3, eps=1e-5), diffusion.Sampler(solvers.DDIM()(grids.karras(4)), (guidance.clipped(),))
  return conditional.conditional_diffusion(network, optimizer, recipes.edm(), sampler, corruptions.coarse(2))


def make_variational_diffusion():
  network = FlatNetwork(0)
  # Low frequencies, and an image that is never all but free of noise: otherwise rounding becomes differences that are seen.
  network = variational_diffusion.FourierFeatures(network, (1, 2))
  denoiser = diffusion.Denoiser(network, parameterizations.noise())
  module = variational_diffusion.VariationalDiffusion(denoiser, variational_diffusion.Clock(highest=10.0, units=8))
  optimizer = optax.adam(1e-3, eps=1e-5)
  return variational_diffusion.variational_diffusion(module, optimizer, image_shape=(8, 8, 1), num_steps=4, num_levels=2)


def make_mixture(kind):
  return mixture.mixture(kind(pixels=images.DEQUANTIZED), 2, share=0.05, step_size=mixture.decreasing())


def make_class_conditional():
  one = mixture.mixture(mixture.full_gaussian(pixels=images.DEQUANTIZED), 1, share=0.5, step_size=mixture.decreasing())
  return classification.class_conditional(one, 2)


def make_infinite_mixture():
  decoder = infinite_mixture.MeanAndVariance(MLP((16, 2 * 64)), min_log_var=-4.0)
  module = infinite_mixture.InfiniteMixture(infinite_mixture.normal(6, 2), decoder, (8, 8, 1), images.DEQUANTIZED)
  return infinite_mixture.infinite_mixture(module, optax.adam(3e-3))


def make_mixture_by_gradient():
  component = mixture.diagonal_gaussian(pixels=images.DEQUANTIZED)
  return mixture_by_gradient.by_gradient(component, 2, optax.adam(1e-2, eps=1e-5), share=0.05)


def make_nade():
  return nade.nade(nade.NADE(64, num_hidden=16, chunk=10), optax.adam(1e-2, eps=1e-5), (8, 8, 1))


def make_made(hidden, orders):
  network = MaskedMLP(64, hidden, direct=True)
  return made.made(network, orders(network), optax.adam(1e-2, eps=1e-5), (8, 8, 1))


def in_any_order(network):
  return made.any_order(network, made.ensemble(jax.random.key(0), network, 3))


def make_autoregressive(network, output, scan, num_classes=1):
  optimizer = optax.adam(1e-2, eps=1e-5)
  return autoregressive.autoregressive(network, output, optimizer, (8, 8, 1), scan=scan, num_classes=num_classes)


def make_pixelcnn():
  return make_autoregressive(pixelcnn.PixelCNN(1, 8, 1), autoregressive.bernoulli(), pixelcnn.cached())


def make_gated_pixelcnn():
  network = pixelcnn.GatedPixelCNN(4, features=8, blocks=1, num_classes=10)
  return make_autoregressive(network, autoregressive.categorical(4), pixelcnn.gated_cached(), num_classes=10)


def make_pixelrnn(layer):
  return make_autoregressive(pixelrnn.PixelRNN(1, layer, features=8, layers=1), autoregressive.bernoulli(), pixelrnn.cached())


def make_pixelcnnpp():
  output = autoregressive.logistic_mixture(2)
  network = pixelcnnpp.PixelCNNPP(output.width(1), features=8, resolutions=2)
  return make_autoregressive(network, output, pixelcnnpp.cached())


def make_image_transformer():
  network = image_transformer.ImageTransformer(1, features=8, heads=2, layers=1, reach=2)
  return make_autoregressive(network, autoregressive.bernoulli(), image_transformer.cached())


def make_autoencoder(activation=lambda z: z, **options):
  module = autoencoder.Autoencoder(FlatEncoder((32,)), FlatDecoder((32,), (8, 8, 1)), 6, activation=activation)
  return autoencoder.autoencoder(module, optax.adam(3e-3, eps=1e-5), **options)


def make_stacked():
  optimizer = optax.adam(3e-3, eps=1e-5)
  return stacked.stacked(stacked.Stack(64, (16, 6)), optimizer, (8, 8, 1), stage=2, corrupt=corruptions.masking(0.1))


def make_two_domains():
  module = two_domains.TwoDomains(FlatEncoder((32,)), [FlatDecoder((32,), (8, 8, 1)) for _ in range(2)], 6)
  return two_domains.two_domains(module, optax.adam(3e-3, eps=1e-5))


def make_restoration():
  module = restoration.Restorer(ResidualNet(8, (1, 2)), num_kept=8)
  return restoration.restoration(module, optax.adam(3e-3, eps=1e-5), corruptions.masking(0.3), passes=2)


SPARSE = penalties.kl_to_rate(0.2, 0.01), penalties.contractive(0.01), penalties.contractive_by_noise(0.01)

TRACTABLE = {
  "mixture-bernoulli": Member(lambda: mixture.mixture(mixture.bernoulli(), 3, share=0.01), "nll", binary, 5),
  "mixture-gaussian": Member(lambda: make_mixture(mixture.full_gaussian), "nll", grey, 5),
  "mixture-tied": Member(lambda: make_mixture(mixture.tied_gaussian), "nll", grey, 5),
  "mixture-by-gradient": Member(make_mixture_by_gradient, "nll", grey),
  "mixture-infinite": Member(make_infinite_mixture, "nll", grey),
  "counted": Member(lambda: counting.counted(counting.neighbourhood((8, 8, 1), 4), levels=3), "nll", grey, 5),
  "chow-liu": Member(chow_liu.chow_liu, "nll", binary, 5),
  "gaussian": Member(lambda: gaussian.gaussian(regularize=gaussian.towards_sphere(0.2)), "nll", grey, 5),
  "ppca": Member(lambda: gaussian.low_rank(4, step_size=mixture.decreasing()), "nll", grey, 5),
  "class-conditional": Member(make_class_conditional, "nll", interleaved, 5),
  "fvsbn": Member(lambda: fvsbn.fvsbn(optax.adam(1e-2, eps=1e-5), (8, 8, 1)), "nll", binary),
  "nade": Member(make_nade, "nll", binary),
  "made": Member(lambda: make_made((32,), made.raster), "nll", binary),
  "pixelcnn": Member(make_pixelcnn, "nll", binary),
  "pixelcnn-gated": Member(make_gated_pixelcnn, "nll", grey),
  "pixelcnn++": Member(make_pixelcnnpp, "nll", grey),
  "pixelrnn-row": Member(lambda: make_pixelrnn(image_lstm.RowLSTM), "nll", binary),
  "pixelrnn-diagonal": Member(lambda: make_pixelrnn(image_lstm.DiagonalBiLSTM), "nll", binary),
  "image-transformer": Member(make_image_transformer, "nll", binary),
  "made-any-order": Member(lambda: make_made((32, 32), in_any_order), "nll", binary),
}
RECONSTRUCTION = {
  "autoencoder": Member(make_autoencoder, "reconstruction", grey),
  "autoencoder-denoising": Member(lambda: make_autoencoder(corrupt=corruptions.gaussian(0.2)), "reconstruction", grey),
  "autoencoder-sparse": Member(lambda: make_autoencoder(nn.sigmoid, penalties=SPARSE), "reconstruction", grey),
  "autoencoder-stacked": Member(make_stacked, "reconstruction", grey),
  "restoration": Member(make_restoration, "reconstruction", grey),
  "autoencoder-two-domains": Member(make_two_domains, "reconstruction", interleaved),
}
APPROXIMATE = {
  "vae-bernoulli": Member(lambda: make_vae(vae.bernoulli()), "nll_bound", binary),
  "vae-gaussian": Member(lambda: make_vae(vae.gaussian()), "nll_bound", grey),
  "vae-logistic": Member(make_logistic_vae, "nll_bound", grey),
  "vae-vampprior": Member(lambda: make_iwae(priors.VampPrior(5, (8, 8, 1)), importance.piwae(2, 3)), "nll_bound", binary),
  "vae-flow-prior": Member(lambda: make_iwae(priors.CouplingFlow(2), importance.iwae(3)), "nll_bound", binary),
  "vae-conditional": Member(make_conditional_vae, "nll_bound", binary),
  "vae-semi-supervised": Member(make_semi_supervised, "nll_bound", half_labelled),
  "vqvae": Member(make_vqvae, "nll_bound", grey),
  "vqvae-two-levels": Member(make_vqvae2, "nll_bound", grey),
  "two-stage": Member(make_two_stage, "nll_bound", grey),
  "vae-ladder": Member(make_ladder, "nll_bound", binary),
  "vae-deep": Member(make_deep_vae, "nll_bound", binary),
  "variational-diffusion": Member(make_variational_diffusion, "nll_bound", grey),
}
IMPLICIT = {
  "gan": Member(lambda: make_gan(gan.non_saturating(), dcgan.batch_norm, 1), "critic", grey, learns_in=None),
  "wgan-gp": Member(lambda: make_gan(gan.wgan_gp(), None, 3), "critic", grey, learns_in=None),
  "wgan": Member(lambda: make_remedied_gan(games.wgan(0.1)), "critic", grey, learns_in=None),
  "lsgan": Member(lambda: make_remedied_gan(games.least_squares()), "critic", grey, learns_in=None),
  "gan-packed": Member(make_packed_gan, "critic", grey, learns_in=None),
  "gan-unrolled": Member(make_unrolled_gan, "critic", grey, learns_in=None),
  "gan-conditional": Member(make_conditional_gan, "critic", grey, learns_in=None),
  "infogan": Member(make_infogan, "critic", grey, learns_in=None),
  "began": Member(make_began, "critic", grey, learns_in=None),
  "progressive": Member(make_growing_gan, "critic", grey, learns_in=None),
  "style": Member(make_style_gan, "critic", grey, learns_in=None),
}
SCORE = {
  "ddpm": Member(make_ddpm, "denoising", grey),
  "edm": Member(make_edm, "denoising", grey),
  "reflow": Member(make_reflow, "denoising", grey, learns_in=None),
  "progressive-distillation": Member(make_progressive, "denoising", grey),
  "consistency-distillation": Member(make_consistency_distillation, "denoising", grey, learns_in=None),
  "consistency-training": Member(make_consistency_training, "denoising", grey),
  "teacher-and-student": Member(make_teacher_and_student, "denoising", grey, learns_in=None),  # errors of two stages
  "diffusion-conditional": Member(make_conditional_diffusion, "denoising", grey),
  "flow-matching": Member(make_flow_matching, "denoising", grey),
}
MEMBERS = {**TRACTABLE, **RECONSTRUCTION, **APPROXIMATE, **IMPLICIT, **SCORE}
