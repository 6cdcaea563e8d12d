"""`evenflow doctor`: asks each configured upstream how it behaves, and says what to do about it.

probes.py        asks, and records what came back            (waits; spends the upstream's tokens)
observation.py   one stream's bytes and times -> its habits  (sans-io)
findings.py      what was seen -> words and a profile        (sans-io)
command.py       the order of it all, the question about the cost, the report
"""

from .command import CannotAsk, DoctorOptions, run_doctor

__all__ = ["CannotAsk", "DoctorOptions", "run_doctor"]
