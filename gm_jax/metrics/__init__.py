"""How good are the samples?  And what are codes worth?  Measures that look at images or codes alone, whatever family made them.

  classifier       a classifier of real images, frozen: which classes the samples show, and how sure it is
  disentanglement  does each latent stand for one thing, where the factors of the data are known: MIG, DCI
  latents          how many of its latents a model uses: active units
  probe            what features are worth to a linear classifier
  quality          how close an image is to the one it should be: PSNR, SSIM
"""
