"""Models whose log p(x) is computed exactly.

A sum over components, a product of conditionals or a change of variables: each keeps the density in closed form, so that
learning is maximum likelihood with nothing between, and two models are compared by one number.  What is paid is structure.  A
mixture has as many shapes as it has components; an autoregressive model draws one pixel after another; a flow must be
invertible and keeps every dimension to the end.

`evaluate` reports "nll": minus log p(x) in nats per example, of the uint8 image where images are modelled (so bits per
dimension are `images.bits_per_dim(nll, H * W * C)`), of the density where points are.

Here live: `mixture` (Gaussian and Bernoulli mixtures, by EM).
"""
