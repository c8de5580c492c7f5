"""gm_jax: deep generative models for images in JAX and Flax.  Start with `gm_jax.core`."""

__version__ = "0.1.0"
