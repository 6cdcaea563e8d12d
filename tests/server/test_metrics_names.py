"""Names and labels as Prometheus' conventions want them: a lint of our own everywhere, promtool's where it is installed."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Final

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from .full_exposition import of_all_workers, of_one_process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

PROMTOOL = shutil.which("promtool")

#: Every label there is; the values of all of them are configured or stand in a table of the code. One more is a decision to be made here.
LABELS: Final = frozenset(
    {"action", "direction", "endpoint", "engine", "event", "from", "kind", "outcome", "policy", "reason", "result", "shape", "state"}
    | {"status_class", "strategy", "to", "upstream", "worker", "python", "version", "le"}
)
#: Units that have a base unit, and the types, which belong into # TYPE.
OTHER_UNITS: Final = frozenset(
    {"ms", "us", "ns", "millis", "milliseconds", "microseconds", "minutes", "hours", "days", "percent", "percentage", "share", "kb", "mb"}
    | {"kib", "mib", "kilobytes", "megabytes", "bits"}
)
TYPES: Final = frozenset({"counter", "gauge", "histogram", "summary", "metric", "info"})


def complaints(family: Metric, text: str) -> Iterator[str]:
    """What is wrong with a family by https://prometheus.io/docs/practices/naming/.

    Args:
      text: the exposition that it was read from, for the parser gives a counter its _total itself.
    """
    words = family.name.split("_")
    if not re.fullmatch(r"(evenflow|process)(_[a-z][a-z0-9]*)+", family.name):
        yield "a name is a prefix and words in lower case, with neither colon nor capital"
    if not re.fullmatch(r"[A-Z0-9].*\.", family.documentation):
        yield "its help is no sentence"
    if family.type == "unknown":
        yield "it has no type"
    if ("total" in words) or {"count", "sum", "bucket", "created"} & set(words[-1:]):
        yield "its last word belongs to a type's samples"
    if family.type == "counter" and f"# TYPE {family.name}_total counter\n" not in text:
        yield "a counter ends with _total"
    if OTHER_UNITS & set(words):
        yield "seconds, bytes and ratios (0 to 1) are the units"
    if {"seconds", "bytes", "ratio"} & set(words[:-1]):
        yield "the unit stands last"
    if family.type == "histogram" and words[-1] not in ("seconds", "bytes", "ratio"):
        yield "what is spread out has a unit"
    if TYPES & set(words) and family.name != "evenflow_build_info":
        yield "its type does not belong into its name"
    for label in sorted({label for sample in family.samples for label in sample.labels} - LABELS):
        yield f"{label} is no label of ours"


def families_of(text: str) -> list[Metric]:
    return list(text_string_to_metric_families(text))


async def test_no_name_breaks_a_convention() -> None:
    text = await of_all_workers()
    families = families_of(text)
    assert len(families) > 40
    assert {family.name: found for family in families if (found := list(complaints(family, text)))} == {}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("# HELP evenflow_a:b Some.\n# TYPE evenflow_a:b gauge\nevenflow_a:b 1\n", "neither colon"),
        ("# HELP evenflow_openFds Some.\n# TYPE evenflow_openFds gauge\nevenflow_openFds 1\n", "nor capital"),
        ("# HELP other_things Some.\n# TYPE other_things gauge\nother_things 1\n", "a prefix"),
        ("# TYPE evenflow_things gauge\nevenflow_things 1\n", "no sentence"),
        ("# HELP evenflow_things Some.\nevenflow_things 1\n", "no type"),
        ("# HELP evenflow_things_total Some.\n# TYPE evenflow_things_total gauge\nevenflow_things_total 1\n", "type's samples"),
        ("# HELP evenflow_things Some.\n# TYPE evenflow_things counter\nevenflow_things 1\n", "ends with _total"),
        ("# HELP evenflow_wait_ms Some.\n# TYPE evenflow_wait_ms gauge\nevenflow_wait_ms 1\n", "are the units"),
        ("# HELP evenflow_used_percent Some.\n# TYPE evenflow_used_percent gauge\nevenflow_used_percent 1\n", "are the units"),
        ("# HELP evenflow_bytes_held Some.\n# TYPE evenflow_bytes_held gauge\nevenflow_bytes_held 1\n", "stands last"),
        ('# HELP evenflow_wait Some.\n# TYPE evenflow_wait histogram\nevenflow_wait_bucket{le="+Inf"} 1\n', "has a unit"),
        ("# HELP evenflow_gauge_depth Some.\n# TYPE evenflow_gauge_depth gauge\nevenflow_gauge_depth 1\n", "into its name"),
        ('# HELP evenflow_things Some.\n# TYPE evenflow_things gauge\nevenflow_things{model="m"} 1\n', "model is no label of ours"),
    ],
)
def test_the_lint_sees_what_breaks_a_convention(text: str, complaint: str) -> None:
    (family,) = families_of(text)
    assert any(complaint in found for found in complaints(family, text))


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed; Debian has it in the package prometheus")
async def test_promtool_has_nothing_to_say() -> None:
    assert PROMTOOL is not None
    for text in (of_one_process(), await of_all_workers()):
        checked = await trio.run_process(
            [PROMTOOL, "check", "metrics"], stdin=text.encode(), capture_stdout=True, capture_stderr=True, check=False
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
