#!/bin/sh
# make-venv.sh PYTHON DIR: makes a virtual environment, or says in one line what is missing.
python=$1
directory=$2
if [ -z "$python" ] || ! command -v "$python" >/dev/null 2>&1; then
    echo "evenflow needs Python 3.11 or newer and found none: install python3.11 (or later), or say make PYTHON=/path/to/python3" >&2
    exit 2
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "evenflow needs Python 3.11 or newer, $python is older: say make PYTHON=/path/to/a/newer/python3" >&2
    exit 2
fi
if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    echo "$python has no venv module: install it (on Debian and Ubuntu: apt install python3-venv), or say make PYTHON=/path/to/another" >&2
    exit 2
fi
echo "making $directory with $("$python" -c 'import sys; print(sys.executable, sys.version.split()[0])')"
if ! "$python" -m venv "$directory"; then
    rm -rf "$directory"
    exit 2
fi
