"""The image prior on text-to-image diffusion (paper section 3.2); see docs/diffusion.md."""
