"""The dashboard and the alert rules in docs/observability name what evenflow shows, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
import trio
import yaml
from prometheus_client.parser import text_string_to_metric_families

from actors import REJECTIONS, End, FaultKind
from server.metrics import BREAKER_STATES
from tests.server.full_exposition import of_all_workers
from tests.test_docs import generator

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER: Final = Path(__file__).parents[1] / "docs" / "observability"
PAGE: Final = FOLDER.with_suffix(".md")
PROMTOOL: Final = shutil.which("promtool")
WITH_PROMTOOL: Final = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed; Debian has it in the package prometheus")

#: Labels that a scrape adds, which the expressions may use.
SCRAPED: Final = frozenset({"job", "instance"})
#: Values that an expression may ask for, by label; of other labels none.
VALUES: Final[dict[str, set[str]]] = {
    "outcome": {end.value for end in End},
    "state": set(BREAKER_STATES),
    "kind": {kind.value for kind in FaultKind},
    "reason": set(REJECTIONS),
    "result": {"accepted", "refused"},
    "job": {"evenflow"},
}
#: Grafana's own, beside the dashboard's variables.
BUILT_IN: Final = frozenset({"__rate_interval"})

SELECTOR: Final = re.compile(r"\b(up|(?:evenflow|process)_\w+)\b(?:\{([^}]*)\})?(\[[^]]+\])?")
MATCHER: Final = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
GROUPED: Final = re.compile(r"\b(by|without|ignoring|on)\s*\(([^)]*)\)")


class Selector(NamedTuple):
    """One metric in an expression."""

    name: str
    matchers: tuple[tuple[str, str], ...]
    over_time: bool
    rated: bool


class Query(NamedTuple):
    """An expression, and the labels that its legend or its texts show."""

    where: str
    expression: str
    shown: frozenset[str]

    def selectors(self) -> Iterator[Selector]:
        for match in SELECTOR.finditer(self.expression):
            rated = re.search(r"\b(rate|increase)\($", self.expression[: match.start()]) is not None
            yield Selector(match[1], tuple(MATCHER.findall(match[2] or "")), match[3] is not None, rated)

    def grouped(self, *words: str) -> set[str]:
        """The labels behind these words."""
        return {label.strip() for word, labels in GROUPED.findall(self.expression) if word in words for label in labels.split(",")}


def alerts() -> list[dict[str, Any]]:
    loaded = yaml.safe_load((FOLDER / "alerts.yml").read_text())
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    loaded = json.loads((FOLDER / "grafana.json").read_text())
    assert isinstance(loaded, dict)
    return loaded


def queries() -> list[Query]:
    found = [
        Query(rule["alert"], rule["expr"], frozenset(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values()))))
        for rule in alerts()
    ]
    for panel in dashboard()["panels"]:
        found += [
            Query(panel["title"], target["expr"], frozenset(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])))
            for target in panel.get("targets", ())
        ]
    return found


async def shown_labels() -> dict[str, dict[str, set[str]]]:
    """By each sample's name its labels, with the values that a full exposition has. `up` is Prometheus' own."""
    found: dict[str, dict[str, set[str]]] = {"up": {}}
    for family in text_string_to_metric_families(await of_all_workers()):
        for sample in family.samples:
            for label, value in sample.labels.items():
                found.setdefault(sample.name, {}).setdefault(label, set()).add(value)
    return found


async def test_every_metric_and_every_label_that_is_named_exists() -> None:
    exist = await shown_labels()
    for query in queries():
        selectors = list(query.selectors())
        assert selectors, query
        for selector in selectors:
            assert selector.name in exist, (query.where, selector.name)
            labels = exist[selector.name].keys() | SCRAPED
            for label, wanted in selector.matchers:
                assert label in labels, (query.where, selector.name, label)
                values = exist[selector.name].get(label, set()) if label == "le" else VALUES.get(label, set())
                assert wanted.startswith("$") or set(wanted.split("|")) <= values, (query.where, label, wanted)
        everywhere = set.intersection(*(exist[selector.name].keys() | SCRAPED for selector in selectors))
        somewhere = set.union(*(set(exist[selector.name]) | SCRAPED for selector in selectors))
        assert query.grouped("by", "on") <= everywhere, query
        assert query.grouped("without", "ignoring") <= somewhere, query
        # What was summed up has the labels that it was grouped by; what was not has all of its own.
        summed = re.search(r"\b(sum|max|min|count)\b", query.expression) is not None
        assert query.shown <= (query.grouped("by") if summed else everywhere), query


def test_what_only_grows_is_rated_and_what_goes_up_and_down_is_not() -> None:
    for query in queries():
        for selector in query.selectors():
            grows = selector.name.endswith(("_total", "_bucket", "_count", "_sum"))
            assert (selector.over_time, selector.rated) == (grows, grows), (query.where, selector)


def test_quantiles_are_taken_of_buckets() -> None:
    taken = [query for query in queries() if "histogram_quantile" in query.expression]
    assert taken
    for query in taken:
        assert "le" in query.grouped("by"), query
        assert all(selector.name.endswith("_bucket") for selector in query.selectors()), query


async def test_everything_that_is_shown_has_its_place_on_the_dashboard() -> None:
    drawn = {selector.name for query in queries()[len(alerts()) :] for selector in query.selectors()}
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in await shown_labels() if name.startswith("evenflow_")}
    assert families - {re.sub(r"_(bucket|count|sum)$", "", name) for name in drawn} == set()


def test_the_dashboard_is_the_one_that_is_generated() -> None:
    drawn = generator("make_grafana_dashboard").dashboard()
    assert (FOLDER / "grafana.json").read_text() == drawn, "run: python docs/make_grafana_dashboard.py"


def test_the_dashboard_is_what_grafana_imports() -> None:
    model = dashboard()
    assert {"uid", "title", "schemaVersion", "panels", "templating", "time"} <= model.keys()
    assert "__inputs" not in model  # the data source is a variable: nothing is asked for at the import
    variables = {variable["name"]: variable for variable in model["templating"]["list"]}
    assert variables.keys() == {"datasource", "instance", "upstream"}
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    panels = model["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert {panel["type"] for panel in panels} == {"row", "stat", "timeseries", "state-timeline"}  # none of them a plugin
    for panel in panels:
        targets = panel.get("targets", [])
        assert (panel["type"] == "row") == (not targets)
        assert len({target["refId"] for target in targets}) == len(targets)
        for target in targets:
            assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= variables.keys() | BUILT_IN
            assert 'instance=~"$instance"' in target["expr"]


def test_no_panel_lies_on_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert max(x for x, _ in cells) < 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_alert_says_what_to_do_and_where_that_is_written() -> None:
    sections = re.findall(r"^### (Evenflow\w+)$", PAGE.read_text(), re.MULTILINE)
    assert sections == [rule["alert"] for rule in alerts()]
    for rule in alerts():
        notes = rule["annotations"]
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert notes.keys() == {"summary", "description", "runbook"}
        assert len(notes["summary"]) < 160
        assert notes["description"].endswith(".")
        assert notes["runbook"] == f"{PAGE.name}#{rule['alert'].lower()}"


async def promtool(*arguments: str) -> None:
    assert PROMTOOL is not None
    ended = await trio.run_process([PROMTOOL, *arguments], capture_stdout=True, capture_stderr=True, check=False)
    assert ended.returncode == 0, (ended.stdout + ended.stderr).decode()


@WITH_PROMTOOL
async def test_promtool_takes_the_rules() -> None:
    await promtool("check", "rules", str(FOLDER / "alerts.yml"))


@WITH_PROMTOOL
async def test_promtool_takes_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    """As rules that record them, with Grafana's variables filled in."""
    filled = {"$__rate_interval": "5m", "$instance": ".*", "$upstream": ".*"}
    rules = []
    for number, query in enumerate(queries()[len(alerts()) :]):
        expression = query.expression
        for variable, value in filled.items():
            expression = expression.replace(variable, value)
        rules.append({"record": f"drawn:{number}", "expr": expression})
    file = tmp_path / "drawn.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "drawn", "rules": rules}]}))
    await promtool("check", "rules", str(file))


@WITH_PROMTOOL
async def test_alerts_fire_when_they_should_and_not_before() -> None:
    await promtool("test", "rules", str(Path(__file__).parent / "alerts_test.yml"))
