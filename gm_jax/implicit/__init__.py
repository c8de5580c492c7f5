"""Models that have no density, only samples.

A generator turns noise into images, G(z), and nothing says how probable an image is.  It learns from an opponent instead: a
critic that tells data from samples, and whose judgement is differentiable in the samples.  At the critic's optimum the
generator descends a distance between the two distributions (Jensen-Shannon, Wasserstein); what is paid is that two players
chase each other, and that no likelihood tells which model is better.

Members report `critic`, the critic's output on real examples.

  gan.py           two players, and how they take turns; labels
  games.py         what each of them minimises: eight games, and penalties that go with any
  began.py         the game of a critic that is an autoencoder
  infogan.py       latents that the critic must be able to read off the images
  remedies.py      for games that collapse or go round in circles: functions from GAN to GAN
  progressive.py   players that grow
  style.py         what the generator of styles pays for uneven paths
  latents.py       laws of the generator's noise
  many.py          many seeds in one program
"""
