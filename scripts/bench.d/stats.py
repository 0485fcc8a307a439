"""Pairs in A B B A blocks, and what they say."""

from math import comb
from statistics import median


def abba(pairs):
    """The order of blocks for an even number of pairs: A B B A A B B A …"""
    return [side for _ in range((pairs + 1) // 2) for side in "ABBA"]


def run_pairs(pairs, measure_a, measure_b, note=lambda text: None):
    """Runs both sides in A B B A blocks; two lists of results, the n-th of one beside the n-th of the other."""
    results = {"A": [], "B": []}
    order = abba(pairs)
    for place, side in enumerate(order):
        note(f"block {place + 1} of {len(order)}")
        results[side].append((measure_a if side == "A" else measure_b)())
    return results["A"], results["B"]


class Ratio:
    """The median of ratios with an interval that assumes nothing about how they are spread (order statistics)."""

    def __init__(self, ratios):
        self.values = sorted(ratios)
        self.median = median(self.values)
        n = len(self.values)
        # The k-th smallest and k-th largest hold the median unless fewer than k values fall on one side.
        k = max((k for k in range(1, n // 2 + 1) if self._coverage(n, k) >= 0.95), default=1)
        self.low, self.high = self.values[k - 1], self.values[n - k]
        self.coverage = self._coverage(n, k)

    @staticmethod
    def _coverage(n, k):
        return max(0.0, 1 - 2 * sum(comb(n, i) for i in range(k)) / 2**n)

    def text(self):
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def as_json(self):
        return {
            "median": self.median,
            "low": self.low,
            "high": self.high,
            "coverage": round(self.coverage, 3),
            "pairs": len(self.values),
        }
