"""How good are the samples?  Measures that look at images alone, whatever family drew them.

  classifier   a classifier of real images, frozen: which classes the samples show, and how sure it is
  probe        what features are worth to a linear classifier
  quality      how close an image is to the one it should be: PSNR, SSIM
"""
