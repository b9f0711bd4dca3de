#!/usr/bin/env bash
# Makes the virtual environment ready. Run again it does only what is left to do.
#
#   ci/setup.sh run    what `make fuzz` needs
#   ci/setup.sh dev    and the tools of `make test`
#
# PYTHON names the interpreter to build on (default: the first suitable one), VENV the folder
# (default: .venv). An interpreter that has a torch and a Triton in range, as on a GPU machine, lends
# all its packages: nothing it has is installed again, and where it has everything no network is
# needed. Any other gets the CPU builds pinned in ci/constraints-cpu.txt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

group=${1:-dev}
venv=${VENV:-.venv}
python=$venv/bin/python
made=$venv/.made
stamp=$venv/.ready-$group
pins=ci/constraints-cpu.txt

say() { printf '== %s\n' "$*"; }
die() { printf 'ci/setup.sh: %s\n' "$*" >&2; exit 1; }

case $group in
    run) extras= ;;
    dev) extras='[dev]' ;;
    *) die "unknown group '$group', must be run or dev" ;;
esac

is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

# Prints the interpreter to build on. Each is run, not only looked up: version managers leave shims
# on the path for interpreters that are not active.
find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        is_recent "$PYTHON" || die "PYTHON=$PYTHON is not a Python >= 3.11"
        echo "$PYTHON"
        return
    fi
    for candidate in python3 python3.13 python3.12 python3.11 python; do
        if is_recent "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    die "Python >= 3.11 is needed; python3 here is: $(python3 --version 2>&1 || true)." \
        "Install one, or name one: make test PYTHON=/path/to/python3.11"
}

has_torch_and_triton() {
    local missing
    missing=$("$1" ci/requirements.py run torch triton 2>/dev/null) && [ -z "$missing" ]
}

# A .pth file rather than --system-site-packages: that would show the system's packages, but not
# those of a virtual environment that the interpreter belongs to.
lend_packages() {
    local site_packages
    site_packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    # Both spellings: site-packages, and dist-packages on Debian.
    "$1" -c 'import sys; print(*(p for p in sys.path if p.endswith("-packages")), sep="\n")' \
        >"$site_packages/lent.pth"
    touch "$venv/.lent"
}

create_venv() {
    local host
    host=$(find_python)
    if [ -e "$venv" ] && [ ! -e "$made" ]; then
        die "$venv was not made by this script; remove it, or name another folder: VENV=.venv-fuzz"
    fi
    rm -rf "$venv"
    trap 'rm -rf "$venv"' EXIT  # leave no half of one behind
    if has_torch_and_triton "$host"; then
        say "creating $venv on $host, which lends its torch and Triton"
        # It lends its pip as well, if it has one; some distributions' Python cannot install another.
        if "$host" -m pip --version >/dev/null 2>&1; then
            "$host" -m venv --without-pip "$venv"
        else
            "$host" -m venv "$venv"
        fi
        lend_packages "$host"
    else
        say "creating $venv on $host"
        "$host" -m venv "$venv"
    fi
    touch "$made"
    trap - EXIT
}

# Warnings are silenced (-qq) because pip repeats each one for every package; errors are shown.
install() { "$python" -m pip install -qq --disable-pip-version-check "$@"; }

install_missing() {
    local missing names
    missing=$("$python" ci/requirements.py "$group")
    if [ -n "$missing" ]; then
        mapfile -t names <<<"$missing"
        say "installing what the interpreter lacks: ${names[*]}"
        install "${names[@]}"
    fi
    install --no-deps --no-build-isolation -e .
}

install_pinned() {
    say "installing the pinned CPU torch, Triton and the rest (a minute the first time)"
    install --no-deps -c "$pins" torch 'setuptools>=70.1'
    # CPU builds of torch leave the choice of Triton open. A package index without CPU builds gives
    # one for CUDA, which requires a Triton of its own: then that one, also in range, is taken.
    if "$python" -c 'import importlib.metadata as m, sys
sys.exit(not any(line.startswith("triton") for line in m.requires("torch")))'; then
        grep -v '^triton' "$pins" >"$venv/constraints.txt"
    else
        cp "$pins" "$venv/constraints.txt"
    fi
    install -c "$venv/constraints.txt" --no-build-isolation -e ".$extras"
}

# The folder is part of the key: scripts in a virtual environment carry its absolute path.
key=$(pwd; cat pyproject.toml "$pins" ci/setup.sh ci/requirements.py | cksum)
if [ -e "$made" ] && is_recent "$python"; then
    [ "$(cat "$stamp" 2>/dev/null)" != "$key" ] || exit 0
else
    create_venv
fi
if [ -e "$venv/.lent" ]; then
    install_missing
else
    install_pinned
fi
# dev includes run.
printf '%s\n' "$key" | tee "$stamp" "$venv/.ready-run" >/dev/null
say "$venv is ready: $("$python" -c 'import importlib.metadata as m, platform
print(f"Python {platform.python_version()}", *(f"{p} {m.version(p)}" for p in ("torch", "triton")), sep=", ")')"
