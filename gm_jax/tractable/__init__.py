"""Models whose log p(x) is computed exactly.

A sum over components, a product of conditionals or a change of variables: each keeps the density in closed form, so that
learning is maximum likelihood with nothing between, and two models are compared by one number.  What is paid is structure.  A
mixture has as many shapes as it has components; an autoregressive model draws one pixel after another; a flow must be
invertible and keeps every dimension to the end.

`evaluate` reports "nll": minus log p(x) in nats per example, of the uint8 image where images are modelled (so bits per
dimension are `images.bits_per_dim(nll, H * W * C)`), of the density where points are.

Here live, from the plainest: `gaussian` (closed form, principal directions, probabilistic PCA), `mixture` with `components`
(EM) and `mixture_by_gradient`, `infinite_mixture` (a continuum of components, by quadrature), `bayesian_network` (a graph with
tables, and exact answers), `counting` (such networks over pixels: factorised, Markov chain, causal neighbourhoods) and
`chow_liu` (the best tree).  Then the networks that predict each pixel from those before it: `fvsbn`, `nade` and `made` of
pixels laid `flat`, and `autoregressive` for causal convolutions (PixelCNN, Gated PixelCNN).  `sequential` is what a compressor
needs of all that go pixel by pixel.
"""
