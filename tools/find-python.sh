#!/bin/sh
# Prints the newest python3.11 or later on PATH; nothing if there is none.
for minor in 20 19 18 17 16 15 14 13 12 11; do
    candidate="python3.$minor"
    if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -c 'pass' >/dev/null 2>&1; then
        command -v "$candidate"
        exit 0
    fi
done
if command -v python3 >/dev/null 2>&1 && python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
    command -v python3
fi
