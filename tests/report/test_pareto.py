from hypothesis import given
from hypothesis import strategies as st

from edgemeta.report.pareto import pareto

NUMBERS = st.integers(0, 6).map(float)  # few values, so that ties are common
POINTS = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=20)


def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] <= b[0] and a[1] >= b[1] and a != b


@given(POINTS)
def test_front_is_every_unbeaten_point_once(points):
    front = [points[at] for at in pareto(points)]
    unbeaten = {p for p in points if not any(beats(other, p) for other in points)}
    assert set(front) == unbeaten and len(front) == len(unbeaten)


@given(POINTS)
def test_front_rises_in_both_cost_and_score(points):
    front = [points[at] for at in pareto(points)]
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in zip(front, front[1:], strict=False))


def test_nan_is_on_no_front():
    nan = float("nan")
    assert pareto([(nan, 9.0), (1.0, nan), (1.0, 0.5)]) == [2]
