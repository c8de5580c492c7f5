"""Models whose likelihood is bounded.

A latent variable z makes p(x) = integral of p(x | z) p(z) dz expressive and its value out of reach.  What can be had is a
bound: for any q(z | x), log p(x) >= E_q[log p(x, z) - log q(z | x)], with a gap of KL(q(z | x) || p(z | x)).  Learning raises
the bound, and q learns to invert the model; the price is that a reported number is at best a bound, tightened by importance
sampling.

Members report `nll_bound`, the negative bound in nats per example.

  vae.py    the variational autoencoder
"""
