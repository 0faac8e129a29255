"""The Triton backend: kernels (jit code), launchers, tile shapes and the model of their resources."""
