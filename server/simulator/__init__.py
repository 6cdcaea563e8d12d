"""A scripted, misbehaving, OpenAI-compatible upstream, for local development, demos, tests and benchmarks.

    async with open_simulator(pace=0.0) as simulator:
        ...  # POST {simulator.base_url}/chat/completions with "model": "cut:after=5"
        await simulator.observer.wait_for(lambda observer: observer.closes == 1)

The fault is chosen by the model's name (`FAULTS` lists them) or by a scenario file. What came in, and how each answer ended, is
kept by the observer and served at GET /_simulator/report. Nothing in here imports the proxy: it must not know what tests it.
"""

from __future__ import annotations

from .faults import FAULTS, faults_table
from .observer import Ending, Observer, Seen
from .recordings import Recording, read_recordings
from .scenario import Scenario, ScenarioError, ScenarioStep, load_scenario, parse_scenario
from .service import Simulator, open_simulator, serve_simulator

__all__ = [
    "FAULTS",
    "Ending",
    "Observer",
    "Recording",
    "Scenario",
    "ScenarioError",
    "ScenarioStep",
    "Seen",
    "Simulator",
    "faults_table",
    "load_scenario",
    "open_simulator",
    "parse_scenario",
    "read_recordings",
    "serve_simulator",
]
