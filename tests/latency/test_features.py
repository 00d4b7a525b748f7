from __future__ import annotations

import numpy as np

from edgemeta.latency import cover, features


def test_families_split_what_runtimes_run_differently(tiny):
    found = {features.family(op) for op in cover.operators(tiny).values()}
    assert found == {"first", "dense", "pointwise", "depthwise", "maxpool", "add", "gap"}


def test_likeness_is_a_covariance(tiny):
    operators = list(cover.operators(tiny).values())
    kernel = features.likeness(operators, 2.0)
    assert np.allclose(kernel, kernel.T) and np.allclose(np.diag(kernel), 1)
    assert np.linalg.eigvalsh(kernel).min() > -1e-9
    families = [features.family(op) for op in operators]
    assert kernel[families.index("add"), families.index("dense")] == 0


def test_terms_grow_with_the_work(tiny):
    rows = features.design(list(cover.operators(tiny).values()))
    assert (rows >= 0).all() and (rows.sum(1) > 0).all()
