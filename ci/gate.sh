#!/usr/bin/env bash
# Judges a change of kernels, in CI and for a developer: exit 0 it may be merged, 1 it may not, 2 no
# verdict.
#
#   ci/gate.sh BASE [options of ln-fuzz gate]
#   ci/gate.sh origin/main --time 2m --target kernels/my_norm.py
#
# BASE is what the change is to be merged into: a branch, tag or commit. Paths begin in the folder
# above this script's. It may be copied to a repository that has kernels of its own: there ln-fuzz is
# taken from the virtual environment that VENV names, or from the PATH. In ln-fuzz's own repository
# the environment is set up first.
set -Eeuo pipefail
# 1 is a verdict, which ln-fuzz alone can give.
trap 'exit 2' ERR

say() { printf '== %s\n' "$*"; }
die() { printf 'ci/gate.sh: %s\n' "$*" >&2; exit 2; }

usage='ci/gate.sh BASE [options of ln-fuzz gate]'
[ $# -gt 0 ] || die "BASE is missing, must be a branch, tag or commit: $usage"
case $1 in
    '' | -*) die "BASE='$1', must be a branch, tag or commit, before all options: $usage" ;;
esac
base=$1
shift

out=.ln-fuzz
option=
for word in "$@"; do
    case $word in
        --base | --base=*) die "'$word', must be left out: BASE is the first argument" ;;
        --out=*) out=${word#--out=} ;;
    esac
    [ "$option" != --out ] || out=$word
    option=$word
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."

is_known() { git rev-parse --verify --quiet "$base^{commit}" >/dev/null; }

# Of a branch of a remote and of a whole commit id alone: what else BASE may be is no name that a
# remote knows it by.
fetch_base() {
    local remote=${base%%/*} command
    command=(git fetch --no-tags)
    # The whole history: the change is compared with the last commit that it shares with BASE.
    [ "$(git rev-parse --is-shallow-repository)" != true ] || command+=(--unshallow)
    if [[ $base =~ ^([0-9a-f]{40}|[0-9a-f]{64})$ ]]; then
        command+=(origin "$base")
    elif [ "$remote" != "$base" ] && git remote get-url "$remote" >/dev/null 2>&1; then
        command+=("$remote" "+refs/heads/${base#*/}:refs/remotes/$base")
    else
        return 0
    fi
    say "CI=$CI, and this clone lacks $base: ${command[*]}"
    GIT_TERMINAL_PROMPT=0 "${command[@]}" ||
        die "BASE='$base', must be a commit that is here or can be fetched"
}

# A clone in CI has what its checkout was told to fetch. A developer's is left as it is: ln-fuzz says
# there what to fetch.
if [ -n "${CI:-}" ] && ! is_known; then
    fetch_base
fi

if grep -qsx 'name = "ln-fuzz"' pyproject.toml; then
    ci/setup.sh run || die "no environment: ci/setup.sh failed"
    program=${VENV:-.venv}/bin/ln-fuzz
else
    program=${VENV:+$VENV/bin/}ln-fuzz
fi
command -v "$program" >/dev/null ||
    die "$program is not there, must be installed; VENV names a virtual environment that has it"

# The folder of the newest gate: they are named by their time.
newest() {
    local folders=("$out"/gates/*)
    printf '%s\n' "${folders[-1]}"
}

before=$(newest)
code=0
"$program" gate --base "$base" "$@" || code=$?
reports=$(newest)
[ "$reports" != "$before" ] || reports=

if [ -n "$reports" ]; then
    files=("$reports"/*)
    say "reports in $reports: ${files[*]##*/}"
fi
case $code in
    0 | 1) [ -f "$reports/result.json" ] || die "code $code without a report is no verdict" ;;
    2) ;;
    *) die "$program ended with code $code, which is no verdict" ;;
esac
exit "$code"
