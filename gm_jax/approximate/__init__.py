"""Models whose likelihood is bounded.

A latent variable z makes p(x) = integral of p(x | z) p(z) dz expressive and its value out of reach.  What can be had is a
bound: for any q(z | x), log p(x) >= E_q[log p(x, z) - log q(z | x)], with a gap of KL(q(z | x) || p(z | x)).  Learning raises
the bound, and q learns to invert the model; the price is that a reported number is at best a bound, tightened by importance
sampling.

Members report `nll_bound`, the negative bound in nats per example.

  vae.py                 the variational autoencoder, and what a trained one can do
  conditional_vae.py     given a label
  semi_supervised.py     with labels for a few of the images (M2)
  hierarchical_vae.py    levels of latents that explain each other: ladders, VDVAE
  variational_diffusion.py   as many levels as one likes, each a little noisier than the one before (VDM); see score
  vqvae.py               codes of which there are finitely many, of one level or two

Parts that a VAE is put together of:

  likelihoods.py         p(x | z)
  priors.py              p(z): standard normal, mixture of Gaussians, VampPrior, coupling and autoregressive flow
  costs.py               what the rate costs in training: beta, capacity, free bits
  importance.py          objectives of several draws: IWAE, MIWAE, CIWAE, PIWAE, DReG
  latents.py             ways through latent space
"""
