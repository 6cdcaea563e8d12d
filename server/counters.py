"""Counters and histograms as plain numbers, made into samples when Prometheus asks.

The library's own take a lock for each step and look for a bucket one by one; each ended stream has ten steps. These are for one thread:
who counts and who renders is the event loop. Refuses to know what is counted.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client.metrics_core import Metric


class Counter(Collector):
    """One counter by label values. Without labels it is there from the beginning, with labels once something was added, be it 0.

    Args:
      name: without `_total`.
      labels: their names. Whoever counts sees to it that their values are bounded.
    """

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._counts: dict[tuple[str, ...], float] = {} if labels else {(): 0}

    def add(self, amount: float, *values: str) -> None:
        """Count up.

        Args:
          values: of the labels, one for each.
        """
        self._counts[values] = self._counts.get(values, 0) + amount

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, count in self._counts.items():
            family.add_metric(values, count)
        yield family


class Histogram(Collector):
    """One histogram without labels.

    Args:
      bounds: of its buckets, rising; a value on a bound is below it.
    """

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self._name, self._text, self._bounds = name, text, bounds
        self._buckets = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._buckets[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def collect(self) -> Iterator[Metric]:
        names = map(floatToGoString, (*self._bounds, math.inf))
        yield HistogramMetricFamily(self._name, self._text, list(zip(names, accumulate(self._buckets), strict=True)), self._sum)
