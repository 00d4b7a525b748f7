"""NNI: its strategies over our spaces, our searchers as its tuners, searches on its training services (docs/nni.md).

`spaces` needs nothing. `nas`, `tuner` and `trial` import NNI; `experiment` does so when a search begins.
"""
