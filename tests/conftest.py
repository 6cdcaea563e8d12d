"""Hypothesis profiles. `HYPOTHESIS_PROFILE=ci` makes every run look at the same examples, so that a red run is red again."""

from __future__ import annotations

import os

from hypothesis import settings

# No deadline in either: the machine that runs the tests may be doing something else, and no test here is about time.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, max_examples=100)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
