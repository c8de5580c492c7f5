"""Models that have no density, only samples.

A generator turns noise into images, G(z), and nothing says how probable an image is.  It learns from an opponent instead: a
critic that tells data from samples, and whose judgement is differentiable in the samples.  At the critic's optimum the
generator descends a distance between the two distributions (Jensen-Shannon, Wasserstein); what is paid is that two players
chase each other, and that no likelihood tells which model is better.

Members report `critic`, the critic's output on real examples.

  gan.py    two players: non-saturating, and Wasserstein with a gradient penalty
"""
