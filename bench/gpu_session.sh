#!/usr/bin/env bash
# One measuring session on a machine with a card, in under eight minutes and without a network.
#
#   bench/gpu_session.sh pack          beforehand, where there is a network: the Python packages it needs, into .gpu_site
#   bench/gpu_session.sh [FOLDER]      on the card: build, tests, compute-sanitizer, measurements; results into FOLDER
#
# The machine brings python3.12, torch >= 2.11 for CUDA 13, triton, numba, numba-cuda, pybind11 and a C++ compiler.
set -uo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" = pack ]; then
  exec python3 -m pip install --upgrade --target .gpu_site --no-deps --python-version 3.12 --only-binary=:all: \
    safetensors tyro rich pytest pluggy iniconfig packaging pygments markdown-it-py mdurl docstring-parser typeguard \
    typing-extensions
fi

OUT=${1:-gpu_session}
PYTHON=${PYTHON:-python3.12}
mkdir -p "$OUT"
export PYTHONPATH="$PWD:$PWD/.gpu_site${PYTHONPATH:+:$PYTHONPATH}"

# name, seconds at most, command: its output goes to a file, its end and its time to the summary
run() {
  local name=$1 limit=$2 begin=$SECONDS
  shift 2
  timeout "$limit" "$@" > "$OUT/$name.log" 2>&1
  echo "$name: exit $?, $((SECONDS - begin)) s, $(tail -n 1 "$OUT/$name.log")" | tee -a "$OUT/summary.txt"
}

nvidia-smi > "$OUT/nvidia-smi.txt" 2>&1
"$PYTHON" -m pip list > "$OUT/packages.txt" 2>&1
run build 80 "$PYTHON" setup.py build_ext --inplace -q
# the off-policy trainers last: they compile most, and take what is left of the time
run tests 130 "$PYTHON" -m pytest -q -rs -p no:cacheprovider \
  $(ls tests/gpu/test_*.py | grep -v off_policy) tests/gpu/test_off_policy.py
run training 140 "$PYTHON" -m bench.gpu_training --out "$OUT/training.jsonl"
run kernels 80 "$PYTHON" -m bench.gpu --out "$OUT/kernels.jsonl"
if command -v compute-sanitizer > /dev/null; then
  run sanitizer 40 compute-sanitizer --error-exitcode 1 "$PYTHON" -m pytest -q -x -p no:cacheprovider \
    tests/gpu/test_gae.py tests/gpu/test_k_level_surrogate.py tests/gpu/test_gru.py -k "not many_rows"
fi
cat "$OUT/summary.txt"
