#!/usr/bin/env bash
# Install the peers of requirements-bench.txt and requirements-export.txt into .venv-bench, which
# sees the library's own packages through a .pth file (one TensorFlow for both), then run every
# benchmark: lab/bench.sh PYTHON. A peer that cannot be had is named, and so are its rows.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
venv=.venv-bench
python=$venv/bin/python
packages() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
if [ ! -x $python ]; then
  "$1" -m venv $venv || exit 1
  packages "$1" > "$(packages $python)/shared.pth"
fi
# No peer may bring another version of what the library runs on.
"$1" -m pip freeze --disable-pip-version-check > $venv/constraints.txt
grep -E '^torch' requirements-bench.txt >> $venv/constraints.txt
cat requirements-bench.txt requirements-export.txt | while read -r peer; do
  case $peer in "" | "#"*) continue ;; esac
  $python -m pip show --quiet "${peer%%[=>]*}" 2> /dev/null && continue
  $python -m pip install --quiet --disable-pip-version-check -c $venv/constraints.txt "$peer" ||
    echo "bench: $peer could not be installed; its rows are missing"
done
failed=""
bench() { $python -m "benchmarks.$1" "${@:2}" || failed="$failed $1"; }
bench training_step
bench training_step --filters 32 --size 256 --steps 8
bench evaluation --monai-images 60
bench prediction
[ -z "$failed" ] || { echo "benchmarks that failed:$failed"; exit 1; }
