"""Triton kernels compiled for chips that are not at hand, and what they take of them."""
