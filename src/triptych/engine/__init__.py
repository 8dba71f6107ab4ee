"""Tensors in, tensors out: paths, denoisers, guidance, spacings and samplers, free of any medium."""
