"""Models of the score: the gradient of log p(x), and not p(x) itself.

A density must sum to one, and that sum is what makes densities hard in many dimensions.  Its logarithm's gradient has no such
debt: it says only which way is more probable from here.  Yet it is enough.  Blur the data with noise until nothing is left; at
each level of noise, guessing the noise in a picture *is* the score of the blurred data (Tweedie's formula,
E[noise | x] = -sigma grad log p(x)), an ordinary regression that has no game to lose.  Following the guesses from pure noise
back to none draws a sample.

What is paid: a sample costs tens to a thousand passes through the network where a GAN needs one, and the likelihood is not at
hand; it takes a bound, or an ordinary differential equation, to get it.  What every member reports is "denoising", a weighted
squared error of its guess.

Who lives here, in the order in which it is best read:

  noise               log SNR, the one number that says how noisy; units and schedules
  parameterizations   what a network is asked for: noise, image, velocity, flow, score
  levels, weights     which noise levels training visits, and what an error costs at each
  recipes             DDPM, EDM, flow matching, NCSN ... as values of these
  diffusion           the model
  grids, solvers      the ways from noise to an image: DDIM, ancestral, Heun; multistep and langevin have more
  guidance            steering a denoiser: labels, classifiers, worse models, thresholds
  likelihood          the variational bound, whose last term decoders have; flow_likelihood: log p(x) by the flow
  conditional         given a smaller, a grey or any other corrupted image
  reflow              straighter ways from noise to image
  distillation        students that need few steps: progressive, consistency (neighbours says which levels meet)
"""
