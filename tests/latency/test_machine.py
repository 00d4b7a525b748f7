from __future__ import annotations

import pytest

from edgemeta.latency import machine


@pytest.mark.parametrize(
    ("name", "slug"),
    [("Intel(R) Xeon(R) Processor", "intel-xeon-processor"), ("Cortex-A72", "cortex-a72"), ("???", "unknown")],
)
def test_slug_is_fit_for_a_file_name(name, slug):
    assert machine.slug(name) == slug


def test_this_machine_has_a_name():
    assert machine.cpu()
