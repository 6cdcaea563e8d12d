#!/bin/sh
# audit.sh PIP_AUDIT LOCK: asks the advisory database about every locked package, and tells three answers apart, since a scanner that
# could ask nobody must never look like one that found nothing.
# Exit codes: 0 nothing is known against any of them; 1 something is; 3 nobody could be asked, or not about all, so that nothing is known.
scanner=$1
lock=$2
# --strict: a package that cannot be looked up is a failure. The lock names every package with its hashes, so pip is not needed.
told=$("$scanner" --strict --disable-pip --require-hashes --requirement "$lock" --progress-spinner off 2>&1)
status=$?
printf '%s\n' "$told" | tail -n 40
if [ "$status" -eq 0 ]; then
    exit 0
fi
case $told in
*"could not be audited"* | *"not found on"* | *ConnectionError* | *"Max retries"* | *Timeout* | *"Failed to resolve"* | *"Failed to connect"* | *ServiceError* | *ProxyError*)
    echo "NOT AUDITED: the advisory database could not be asked about all of $lock. This says nothing about the packages; run it where the network is." >&2
    exit 3
    ;;
esac
exit 1
