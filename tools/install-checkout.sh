#!/bin/sh
# install-checkout.sh VENV: makes this checkout the installed evenflow of the environment, without a build back end: a .pth file
# puts it on the path, and a two-line script starts it. The wheel is for real installations.
venv=$1
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
pwd >"$site/evenflow-checkout.pth"
cat >"$venv/bin/evenflow" <<SCRIPT
#!$(cd "$venv" && pwd)/bin/python
from server.cli import main
main()
SCRIPT
chmod +x "$venv/bin/evenflow"
