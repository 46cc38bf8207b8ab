"""Shape prior ``panohead``: the 3D GAN of the paper (section 3.1), its files and its inversion."""
