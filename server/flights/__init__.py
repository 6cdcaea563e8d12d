"""The flight recorder: what the last streams did, chunk by chunk, for the question "it hung at three in the morning, why?".

flight.py      one stream while it runs: a list of what happened and when        (sans-io; the only part on a stream's way)
redaction.py   texts out of what is written, unless the operator wants them in   (sans-io)
recorder.py    the flights of one process: how much they may hold, the thread that writes, the ring of files
flight_file.py a flight read back
timeline.py    a flight for people
"""

from .flight import Flight, RecordedMachine
from .recorder import FlightRecorder, RecorderStatistics

__all__ = ["Flight", "FlightRecorder", "RecordedMachine", "RecorderStatistics"]
