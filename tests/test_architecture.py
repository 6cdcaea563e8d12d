"""The rules of the house that a reader would otherwise have to take on trust: who may import whom, and what no file may contain.

Imports are read from the source, those for type checking included: a name in an annotation is a dependency as well.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import actors

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parent.parent
MODULES: Final = sorted((*ROOT.glob("actors/**/*.py"), *ROOT.glob("server/**/*.py")))

#: Standard modules that wait, look at the world, or differ from run to run: nothing that decides may know them.
IMPURE: Final = frozenset(
    {"asyncio", "logging", "multiprocessing", "os", "queue", "random", "secrets", "select", "selectors", "signal", "socket"}
    | {"ssl", "subprocess", "sched", "tempfile", "threading", "time", "uuid"}
)
#: Imports that break a rule: of which module, from which package, and why. One that is not needed any more fails the tests.
EXCEPTIONS: Final = {
    ("actors.sansio.stream_machine", "actors.outcome"): "the tally is a plain record that the machine is handed; named in annotations only",
    ("actors.sansio.delivery", "actors.outcome"): "as above",
    ("actors.pump", "trio._core"): "it stands in for trio's wait for I/O, for which there is no public place",
    ("server.acceptor", "actors.pump"): "as the edge's connections, below",
    ("server.edge_connection", "actors.pump"): "it is a part of the event loop and watches sockets on both sides of a stream",
    ("server.replay", "actors.sansio"): "replay runs the decisions themselves, without the actors around them",
    (
        "server.doctor.observation",
        "actors.sansio",
    ): "the doctor reads answers with the parser and the detector, without the actors around them",
    ("server.flights.flight", "actors.sansio"): "a flight is a trace of the machine, and names what it is told",
    ("server.doctor.probes", "actors.sansio"): "and asks for continuations as a resume does",
}
#: Files of more than 400 lines, each with its reason.
LONG_FILES: Final = {
    "actors/circuit_breaker.py": "an actor is one module: handle, messages, body",
    "actors/sansio/stream_machine.py": "the one place where state, buffer, recovery and time meet; whatever stands alone has moved out",
    "server/settings.py": "every setting with its default and its reason, in one place",
    "actors/sansio/lane.py": "one lane and its readings; the readings' own rules are in hypotheses.py and evidence.py already",
}
LONG: Final = 400


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file imports, by its full name."""
    package = name_of(path).split(".")
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *(node.module.split(".") if node.module else [])])
            for alias in node.names:
                # `from . import streams` names a module, `from .streams import say` names something in one.
                inner = f"{module}.{alias.name}"
                yield inner if (ROOT / Path(*inner.split("."))).with_suffix(".py").exists() else module


IMPORTS: Final = {name_of(path): frozenset(imports_of(path)) for path in MODULES}


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def is_standard(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names


def is_allowed(importer: str, imported: str) -> bool:
    """Imports go one way: server -> actors -> actors.sansio -> actors.errors."""
    if importer == "actors.errors":
        return imported == "__future__"
    if within(importer, "actors.sansio"):
        pure = is_standard(imported) and imported.partition(".")[0] not in IMPURE
        return pure or imported in ("msgspec", "msgspec.json", "actors.errors") or within(imported, "actors.sansio")
    if within(importer, "actors"):
        if within(imported, "httpx"):
            return importer in ("actors.upstream", "actors.transport", "actors.body_reader", "actors.stock_transport")
        if within(imported, "h2"):
            return importer == "actors.http2"
        if within(imported, "httptools"):
            return importer == "actors.http1"
        return is_standard(imported) or imported in ("trio", "httpx") or within(imported, "actors")
    if within(importer, "server.simulator"):
        return not within(imported, "actors") and (not within(imported, "server") or within(imported, "server.simulator"))
    if within(importer, "server"):
        return not within(imported, "httpx") and (not within(imported, "actors") or imported == "actors")
    raise AssertionError(importer)


@pytest.mark.parametrize("module", IMPORTS)
def test_imports_go_one_way(module: str) -> None:
    wrong = {imported for imported in IMPORTS[module] if not is_allowed(module, imported)}
    granted = [package for importer, package in EXCEPTIONS if importer == module]
    assert not {imported for imported in wrong if not any(within(imported, package) for package in granted)}
    assert all(any(within(imported, package) for imported in wrong) for package in granted), "an exception that is not needed any more"


def test_the_rules_would_notice() -> None:
    for importer, imported in [
        ("actors.reader", "server.v1"),
        ("actors.reader", "httpx"),
        ("actors.transport", "httptools"),
        ("actors.sansio.faults", "trio"),
        ("actors.sansio.faults", "time"),
        ("actors.sansio.faults", "actors.attempts"),
        ("actors.errors", "actors.sansio.faults"),
        ("server.v1", "actors.attempts"),
        ("server.simulator.wire", "server.settings"),
        ("server.simulator.wire", "actors"),
    ]:
        assert not is_allowed(importer, imported), (importer, imported)
    assert {"trio", "actors.sansio.effects", "actors.outlet"} <= IMPORTS["actors.writer"]  # relative ones and those for typing, too
    assert "server.simulator.streams" in IMPORTS["server.simulator.faults"]


def test_an_import_for_annotations_only_is_not_there_at_run_time() -> None:
    tree = ast.parse((ROOT / "actors/sansio/stream_machine.py").read_text())
    top = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert all(node.module != "outcome" for node in top)


def test_the_public_vocabulary_is_what_is_exported_and_nothing_else() -> None:
    tree = ast.parse((ROOT / "actors/__init__.py").read_text())
    imported = [alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(imported) == sorted(actors.__all__)
    assert all(isinstance(node, ast.ImportFrom | ast.Assign | ast.Expr) for node in tree.body)  # it re-exports, and does nothing


@pytest.mark.parametrize("name", actors.__all__)
def test_every_public_name_has_a_user(name: str) -> None:
    users = [path for path in (*ROOT.glob("server/**/*.py"), *ROOT.glob("tests/**/*.py")) if path != Path(__file__)]
    assert any(_imports_from_actors(path, name) for path in users)


def _imports_from_actors(path: Path, name: str) -> bool:
    text = path.read_text()
    if name not in text:
        return False
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    return any(node.module == "actors" and not node.level and name in {alias.name for alias in node.names} for node in nodes)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_is_named_for_nothing(path: Path) -> None:
    words = set(re.split(r"[_.]", name_of(path)))
    assert not words & {"util", "utils", "helper", "helpers", "common", "misc", "shared", "base", "stuff"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_owns(path: Path) -> None:
    text = path.read_text()
    assert not text or ast.get_docstring(ast.parse(text))


def test_a_file_is_one_idea() -> None:
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in MODULES}
    assert {name for name, lines in lengths.items() if lines > LONG} <= set(LONG_FILES)
    assert all(lengths[name] > LONG * 0.9 for name in LONG_FILES), "an entry that is not needed any more"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_is_left_for_later_and_nothing_swallowed(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError)\b", text)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler) and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")):
            silent = all(isinstance(line, ast.Pass | ast.Continue) for line in node.body)
            assert not silent, f"line {node.lineno} swallows everything"
