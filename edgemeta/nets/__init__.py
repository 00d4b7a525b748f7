"""Torch networks built from an architecture's operators.

`build` makes the network of an operator list, `matmul` the same as matrix products, `halved` one that computes in
bfloat16. `relaxed` is a space of cells as one network in which all `candidates` are weighed, `supernet` a space of
stages as one set of weights.
"""
