#!/bin/sh
# find-package.sh NAME FOLDER: prints where the program NAME is, and gets it with the system's package manager where there is none.
#
# On Debian and its kin the packages are unpacked into FOLDER and nothing is installed: no root is needed and no service started.
# Elsewhere they are installed, which takes root or a sudo that asks for nothing. What it does is told on stderr; exit code 1, the reason
# in the last line there, if the program cannot be had.
set -eu
name=$1 folder=$2

found=$(PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$name" || find "$folder/root" -path "*bin/$name" -type f 2>/dev/null | head -n 1)
if [ -n "$found" ]; then
    echo "$found"
    exit 0
fi
as_root=
[ "$(id -u)" = 0 ] || as_root="sudo -n"

if command -v apt-get >/dev/null && command -v dpkg >/dev/null; then
    mkdir -p "$folder/packages" "$folder/root"
    if ! apt-cache show "$name" >/dev/null 2>&1; then
        echo "$name: asking for the list of packages" >&2
        $as_root apt-get update -qq >&2 || true
    fi
    # What it depends on and this system lacks: libraries. Programs and services around it are left out.
    wanted=$name
    plain="--no-pre-depends --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances"
    for package in $(apt-cache depends --recurse $plain "$name" 2>/dev/null | grep '^lib'); do
        dpkg -s "$package" >/dev/null 2>&1 || wanted="$wanted $package"
    done
    echo "$name: downloading $wanted" >&2
    (cd "$folder/packages" && apt-get download -qq $wanted >&2) || { echo "$name: apt-get download failed" >&2; exit 1; }
    for package in "$folder"/packages/*.deb; do dpkg -x "$package" "$folder/root"; done
elif command -v dnf >/dev/null; then $as_root dnf install -y -q "$name" >&2
elif command -v apk >/dev/null; then $as_root apk add -q "$name" >&2
elif command -v pacman >/dev/null; then $as_root pacman -S --noconfirm --needed "$name" >&2
elif command -v zypper >/dev/null; then $as_root zypper -q install -y "$name" >&2
else
    echo "$name: not installed, and no package manager that is known here" >&2
    exit 1
fi || { echo "$name: the package manager would not install it (root, or sudo without a password, is needed)" >&2; exit 1; }

found=$(PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$name" || find "$folder/root" -path "*bin/$name" -type f 2>/dev/null | head -n 1)
[ -n "$found" ] || { echo "$name: its package has no program of that name" >&2; exit 1; }
echo "$found"
