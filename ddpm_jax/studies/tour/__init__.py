"""The tour: the mathematics of diffusion in pictures, on one page of HTML."""
