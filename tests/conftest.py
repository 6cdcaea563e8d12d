"""Hypothesis profiles, chosen by HYPOTHESIS_PROFILE: `ci` looks at the same examples in every run, so that a red run is red again."""

from __future__ import annotations

import os

from hypothesis import settings

# No deadline in either: the machine that runs the tests may be doing something else, and no test here is about time.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, max_examples=100)
settings.register_profile("fuzz", deadline=None, max_examples=400, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
