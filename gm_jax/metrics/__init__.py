"""How good are the samples?  And what are codes worth?  Measures that look at images or codes alone, whatever family made them.

  classifier       a classifier of real images, frozen: which classes the samples show, and how sure it is
  clustering       do clusters agree with labels: purity
  disentanglement  does each latent stand for one thing, where the factors of the data are known: MIG, DCI
  frechet          how far apart two sets of features are, as Gaussians; streamed, at any rank
  inception        the network behind FID, KID and IS, for whoever has its weights; resizing and safetensors serve it
  kernel           the same, as polynomial moments, without bias
  latents          how many of its latents a model uses: active units
  manifold         are samples like the data, and are all data like some sample: precision, recall, density, coverage
  modes            how many of the modes that are known samples reach, and how evenly
  probe            what features are worth to a linear classifier
  quality          how close an image is to the one it should be: PSNR, SSIM
  score            how sure a classifier is of each sample, and of how many classes they are
"""
