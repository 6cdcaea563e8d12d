"""Write docs/observability/grafana.json, the dashboard that Grafana imports: python docs/make_grafana_dashboard.py

A panel is a title, what its axis shows, and its queries with their legends; everything else in the file is the same for all. Written for
Grafana 10 and later, without a plugin. The data source, the instance and the upstream are chosen at the top of the page.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

TARGET: Final = Path(__file__).parent / "observability" / "grafana.json"
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
WIDTH: Final = 24

#: What the timeline of circuits shows for each state; with several circuits (workers, models) the worst one counts.
STATES: Final = (
    ("closed", "green"),
    ("metrics_only", "blue"),
    ("disabled", "purple"),
    ("half_open", "yellow"),
    ("paused", "orange"),
    ("open", "red"),
    ("forced_open", "dark-red"),
)


class Panel(NamedTuple):
    """One picture.

    Args:
      queries: expression and legend; `I` stands for the chosen instances, `U` for those and the chosen upstreams.
      kind: of Grafana's panels.
      width: of 24 columns.
      more: of `fieldConfig.defaults`.
    """

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    width: int = 8
    kind: str = "timeseries"
    text: str = ""
    stacked: bool = False
    more: Mapping[str, Any] = MappingProxyType({})


def rate(metric: str, *by: str, chosen: str = "I") -> str:
    return (
        f"sum by ({', '.join(by)}) (rate({metric}{{{chosen}}}[$__rate_interval]))"
        if by
        else f"sum(rate({metric}{{{chosen}}}[$__rate_interval]))"
    )


def quantile(share: float, metric: str) -> str:
    return f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket{{I}}[$__rate_interval])))"


def quantiles(metric: str, *shares: float) -> tuple[tuple[str, str], ...]:
    return tuple((quantile(share, metric), f"p{share * 100:g}") for share in shares)


def red_from(value: float) -> dict[str, Any]:
    return {"thresholds": {"mode": "absolute", "steps": [{"color": "green", "value": None}, {"color": "red", "value": value}]}}


ERRORS: Final = (
    'sum(rate(evenflow_streams_total{I, outcome="error"}[$__rate_interval])) / sum(rate(evenflow_streams_total{I}[$__rate_interval]))'
)
CIRCUITS: Final = (
    "max by (upstream) ("
    + " or ".join(f'{place} * (evenflow_breaker_state{{U, state="{state}"}} > bool 0)' for place, (state, _) in enumerate(STATES))
    + ")"
)

# A table, one panel a line.
# fmt: off
ROWS: Final[tuple[tuple[str, tuple[Panel, ...]], ...]] = (
    ("Now", (
        Panel("Active streams", "short", (("sum(evenflow_streams_active{I})", ""),), 4, "stat"),
        Panel("Streams ended per second", "reqps", ((rate("evenflow_streams_total"), ""),), 4, "stat"),
        Panel("Streams ended by an error", "percentunit", ((ERRORS, ""),), 4, "stat", more=red_from(0.05)),
        Panel("First token, p95", "s", ((quantile(0.95, "evenflow_time_to_first_token_seconds"), ""),), 4, "stat"),
        Panel("Circuits not closed", "short", (('sum(evenflow_breaker_state{U, state=~"half_open|open|paused|forced_open"})', ""),), 4, "stat", more=red_from(1)),
        Panel("Versions", "short", (("count by (version) (evenflow_build_info{I})", "{{version}}"),), 4, "stat"),
    )),
    ("Traffic", (
        Panel("Streams by outcome", "reqps", ((rate("evenflow_streams_total", "outcome", chosen="U"), "{{outcome}}"),), stacked=True, text="Counted when they end, by the upstream that was asked last. cancelled: the client left."),
        Panel("Requests by endpoint and status", "reqps", ((rate("evenflow_requests_total", "endpoint", "status_class"), "{{endpoint}} {{status_class}}"),), stacked=True),
        Panel("Streams by upstream", "reqps", ((rate("evenflow_streams_total", "upstream", "engine", chosen="U"), "{{upstream}} ({{engine}})"),), stacked=True),
        Panel("Bytes of bodies", "Bps", ((rate("evenflow_bytes_total", "direction"), "{{direction}}"),), text="in: from upstreams; out: to clients."),
        Panel("Events from upstreams", "cps", ((rate("evenflow_chunks_total"), "events"), (rate("evenflow_events_skipped_total"), "malformed, not passed on"))),
        Panel("Steps of the stream machines", "ops", ((rate("evenflow_state_transitions_total", "from", "to"), "{{from}} to {{to}}"),)),
    )),
    ("Waiting", (
        Panel("First token", "s", quantiles("evenflow_time_to_first_token_seconds", 0.5, 0.95, 0.99), text="From a stream's request to its first token."),
        Panel("Length of streams", "s", quantiles("evenflow_stream_duration_seconds", 0.5, 0.95, 0.99)),
        Panel("Letting go of upstreams", "s", quantiles("evenflow_upstream_cancel_seconds", 0.5, 0.99), text="From a client's leaving to the end of its upstream connection."),
    )),
    ("Upstreams", (
        Panel("Circuits", "short", ((CIRCUITS, "{{upstream}}"),), 16, "state-timeline", "The worst state among an upstream's circuits.", more={"mappings": [{"type": "value", "options": {str(place): {"index": place, "text": state, "color": colour} for place, (state, colour) in enumerate(STATES)}}]}),
        Panel("Changes and refusals of circuits", "ops", ((rate("evenflow_breaker_transitions_total", "upstream", "to", chosen="U"), "{{upstream}} to {{to}}"), (rate("evenflow_breaker_refused_total", "upstream", chosen="U"), "{{upstream}} refused"))),
        Panel("Faults by upstream and kind", "ops", ((rate("evenflow_faults_total", "upstream", "kind", chosen="U"), "{{upstream}} {{kind}}"),), 12, stacked=True, text="Failed attempts, those that a retry mended included."),
        Panel("Retries and their budget", "ops", ((rate("evenflow_retries_total", "upstream", chosen="U"), "{{upstream}}"), (rate("evenflow_retries_refused_total"), "refused: the budget is spent")), 12),
        Panel("Hedges", "ops", ((rate("evenflow_hedges_total", "result"), "{{result}}"),)),
        Panel("Answers taken up again", "ops", ((rate("evenflow_resumes_total", "strategy", "result"), "{{strategy}} {{result}}"),)),
        Panel("Open connections to upstreams", "short", (("sum by (instance) (evenflow_open_upstream_connections{I})", "{{instance}}"),)),
    )),
    ("Repairs", (
        Panel("Repairs by shape", "ops", ((rate("evenflow_repairs_total", "shape"), "{{shape}}"),), stacked=True, text="done: an added [DONE]. The other shapes are described in evenflow's stutter.md."),
        Panel("Thought of and not proven", "ops", ((rate("evenflow_repairs_refused_total", "shape"), "{{shape}}"),), stacked=True),
        Panel("Loops", "ops", ((rate("evenflow_loops_total", "action"), "{{action}}"),), text="Models that repeat themselves endlessly, by what was done about it."),
        Panel("Events held", "cps", ((rate("evenflow_holds_total"), "held"),)),
        Panel("Longest hold of a stream", "s", quantiles("evenflow_hold_seconds", 0.5, 0.99), text="Of streams that had one."),
        Panel("Ends of holds by policy", "ops", ((rate("evenflow_buffer_flushes_total", "policy"), "{{policy}}"),), stacked=True),
    )),
    ("Admission", (
        Panel("Active and waiting", "short", (("sum(evenflow_streams_active{I})", "active streams"), ("sum(evenflow_waiting{I})", "waiting requests"))),
        Panel("Slots in use", "short", (("sum by (upstream) (evenflow_slots_in_use{U})", "{{upstream}}"),)),
        Panel("Turned away", "reqps", ((rate("evenflow_rejected_total", "reason"), "{{reason}}"),), stacked=True),
    )),
    ("Processes", (
        Panel("Lag of the event loop", "s", quantiles("evenflow_loop_lag_seconds", 0.5, 0.99, 0.999), 6),
        Panel("Processor", "percentunit", (("rate(process_cpu_seconds_total{I}[$__rate_interval])", "{{instance}} {{worker}}"),), 6, text="1 is one core; a process cannot use more."),
        Panel("Memory", "bytes", (("process_resident_memory_bytes{I}", "{{instance}} {{worker}}"), ("sum by (instance) (evenflow_request_body_bytes{I})", "{{instance}} request bodies")), 6),
        Panel("Share of the memory it may have", "percentunit", (("evenflow_memory_ratio{I}", "{{instance}} {{worker}}"),), 6),
        Panel("File descriptors", "short", (("process_open_fds{I}", "{{instance}} {{worker}}"), ("min(process_max_fds{I})", "limit")), 6),
        Panel("Tasks and messages", "short", (("evenflow_tasks{I}", "{{instance}} {{worker}}"), ("sum(evenflow_breaker_mailbox_depth{I})", "messages for the breaker")), 6),
        Panel("Workers up", "short", (("sum by (instance) (evenflow_worker_up{I})", "{{instance}}"),), 6, text="Empty with a single process, which has no supervisor."),
        Panel("Restarts of workers", "short", (("sum by (instance, worker) (increase(evenflow_worker_restarts_total{I}[$__rate_interval]))", "{{instance}} {{worker}}"),), 6),
        Panel("Engine", "percentunit", (("evenflow_rollout_ratio{I}", "{{instance}} {{worker}} actors' share"), ("evenflow_engine_fallback{I}", "{{instance}} {{worker}} fallback")), 6),
        Panel("Failures of evenflow itself", "ops", ((rate("evenflow_engine_faults_total", "engine"), "streams, {{engine}}"), (rate("evenflow_breaker_restarts_total"), "breaker restarted"), (rate("evenflow_breaker_failed_open_total"), "breaker silent"), (rate("evenflow_breaker_lost_reports_total"), "breaker reports lost")), 6),
        Panel("Relayed streams judged beside", "ops", ((rate("evenflow_shadowed_total", "result"), "{{result}}"),), 6),
        Panel("Lost log lines and reloads", "ops", ((rate("evenflow_log_lines_dropped_total"), "log lines lost"), (rate("evenflow_config_reloads_total", "result"), "reload {{result}}")), 6),
    )),
)
# fmt: on


def drawn(panel: Panel, number: int, x: int, y: int, height: int) -> dict[str, Any]:
    chosen = {"{I": '{instance=~"$instance"', "{U": '{instance=~"$instance", upstream=~"$upstream"'}
    targets = []
    for place, (expression, legend) in enumerate(panel.queries):
        for short, full in chosen.items():
            expression = expression.replace(f"{short}}}", f"{full}}}").replace(f"{short},", f"{full},")
        targets.append(
            {
                "datasource": SOURCE,
                "expr": expression,
                "legendFormat": legend or "__auto",
                "refId": "ABCDEFG"[place],
                "editorMode": "code",
                "range": True,
            }
        )
    options: dict[str, Any] = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    custom: dict[str, Any] = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 30 if panel.stacked else 5,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
    }
    if panel.kind == "stat":
        options = {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "area",
            "textMode": "auto",
            "justifyMode": "auto",
            "orientation": "auto",
        }
        custom = {}
    elif panel.kind == "state-timeline":
        options = {
            "mergeValues": True,
            "rowHeight": 0.8,
            "showValue": "auto",
            "alignValue": "left",
            "legend": options["legend"],
            "tooltip": {"mode": "single", "sort": "none"},
        }
        custom = {"lineWidth": 0, "fillOpacity": 80}
    colour = {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"}
    defaults = {"unit": panel.unit, "min": 0, "color": colour, "custom": custom, "mappings": [], **panel.more}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": height},
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
    }


def panels() -> list[dict[str, Any]]:
    """Rows of panels, each placed beside the last one as long as there is room."""
    out: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS:
        out.append(
            {
                "id": len(out) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
                "panels": [],
            }
        )
        x, y = 0, y + 1
        height = 4 if row[0].kind == "stat" else 8
        for panel in row:
            if x + panel.width > WIDTH:
                x, y = 0, y + height
            out.append(drawn(panel, len(out) + 1, x, y, height))
            x += panel.width
        y += height
    return out


def variable(name: str, label: str, query: str, every: str | None = None) -> dict[str, Any]:
    """What is chosen at the top of the page. `All` stands for `every`, or for each value that the query finds."""
    chosen = {"selected": True, "text": ["All"], "value": ["$__all"]}
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": every,
        "current": chosen,
        "hide": 0,
        "regex": "",
        "options": [],
    }


def dashboard() -> str:
    """The whole file."""
    model = {
        "uid": "evenflow",
        "title": "evenflow",
        "description": "A streaming proxy for LLM APIs: traffic, waiting, upstreams, repairs, admission, processes.",
        "tags": ["evenflow", "llm"],
        "schemaVersion": 38,  # Grafana 10.0; later ones migrate it
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "annotations": {"list": []},
        "links": [],
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Data source",
                    "type": "datasource",
                    "query": "prometheus",
                    "refresh": 1,
                    "hide": 0,
                    "includeAll": False,
                    "multi": False,
                    "regex": "",
                    "options": [],
                    "current": {},
                },
                variable("instance", "Instance", "label_values(evenflow_build_info, instance)"),
                variable("upstream", "Upstream", 'label_values(evenflow_breaker_state{instance=~"$instance"}, upstream)', ".*"),
            ]
        },
        "panels": panels(),
    }
    return json.dumps(model, indent=1) + "\n"


if __name__ == "__main__":
    TARGET.write_text(dashboard())
