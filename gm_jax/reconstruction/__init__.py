"""Models that know no p(x): they learn to give back what they were shown, through something narrow, noisy or smooth.

A code is what an autoencoder keeps of an image; what it cannot keep, it must guess from what images are like.  Narrow codes
compress (the linear one finds the principal directions), noise in the input teaches where images lie and where they do not
(denoising), and penalties ask for codes of which few units are active (sparse) or that small changes leave alone (contractive).
Nothing is said of how likely an image is; what is paid for that is that samples are whatever a Gaussian over codes decodes to.

`evaluate` reports "reconstruction": the error of one image, a mean over its dimensions, without penalties.

Here live `autoencoder` (with its errors), `corruptions` and `penalties` that make it a denoising, sparse or contractive one,
`stacked` (trained layer by layer, then as a whole), `two_domains` (one encoder, a decoder for each kind of image), `codes`
(where codes lie, so that new ones can be drawn) and `restoration` (no code at all: what an image has lost is given back).
"""
