#!/usr/bin/env bash
# One measuring session on a machine with a card, in under eight minutes and without a network.
#
#   bench/gpu_session.sh pack        beforehand, where there is a network: pytest and the commit's name into .gpu_site
#   bench/gpu_session.sh [FOLDER]    on the card: build, tests, measurements, compute-sanitizer; results into FOLDER
#
# The machine brings Python 3.12, torch >= 2.11 for CUDA 13, triton, numba, numba-cuda, pybind11 and a C++ compiler,
# which is enough to build and to measure. The tests want pytest, too: a machine without it finds it in .gpu_site, which
# has to come with the tree (git ignores it). Rows name the commit by git, or by KPG_COMMIT, or as pack wrote it: pack
# after the commit.
#
# Seconds at most, and 5 more for whatever has to be killed: build 55, tests 110, training 125, profile 55, kernels 45,
# large tests and compute-sanitizer 55; in all 445 and 30. What matters least comes last, as do the rows within a part.
set -uo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" = pack ]; then
  mkdir -p .gpu_site
  git describe --always --abbrev=40 --exclude='*' --dirty=+changes > .gpu_site/COMMIT
  exec python3 -m pip install --upgrade --target .gpu_site --no-deps --python-version 3.12 --only-binary=:all: \
    pytest pluggy iniconfig packaging pygments
fi

OUT=${1:-gpu_session}
PYTHON=${PYTHON:-$(for python in python3.12 python3 python; do
  "$python" -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("torch"))' 2> /dev/null &&
    command -v "$python" && break
done)}
[ -n "$PYTHON" ] || { echo "no Python with torch on the PATH; name one: PYTHON=... $0"; exit 2; }
mkdir -p "$OUT"
rm -f "$OUT"/{summary,logs,profile}.txt "$OUT"/{training,kernels}.jsonl
LOGS=$(mktemp -d)
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
export KPG_COMMIT=${KPG_COMMIT:-$(cat .gpu_site/COMMIT 2> /dev/null)}

# NVVM, which compiles SMAX, is looked for among Python's packages, and else only where CUDA_HOME or CUDA_PATH says
if [ -z "${CUDA_HOME:-}${CUDA_PATH:-}" ]; then
  nvcc=$(readlink -f "$(command -v nvcc)" 2> /dev/null)
  for folder in /usr/local/cuda "${nvcc%/bin/nvcc}"; do
    [ -d "$folder/nvvm" ] && export CUDA_HOME=$folder && break
  done
fi
PATH=$PATH${CUDA_HOME:+:$CUDA_HOME/bin}  # compute-sanitizer

note() { echo "$*" | tee -a "$OUT/summary.txt"; }

# name, seconds at most, command: its output goes to the logs, its end and its last line to the summary. An interrupt
# lets pytest say what has passed; bash has what it starts beside ignore interrupts, unless told otherwise.
run() {
  local name=$1 limit=$2 begin=$SECONDS status
  shift 2
  timeout -s INT -k 5 "$limit" env --default-signal=INT "$@" > "$LOGS/$name" 2>&1
  status=$?
  note "$name: exit $status, $((SECONDS - begin)) s, $(tail -n 1 "$LOGS/$name")"
}

# Wait for all that runs beside. The logs go into one file: results in few files are easier to carry home.
finish() {
  wait
  for log in "$LOGS"/*; do
    [ -f "$log" ] && printf '\n===== %s =====\n' "${log##*/}" && cat "$log" && rm "$log"
  done >> "$OUT/logs.txt"
}

have_pytest() { "$PYTHON" -c 'import pytest' 2> /dev/null; }

# plugins that the machine happens to have could only get in the way
tests() {
  local name=$1 limit=$2
  shift 2
  PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 run "$name" "$limit" "$@"
}
PYTEST=("$PYTHON" -m pytest -q -rs -p no:cacheprovider)

# Every test file a process, and long ones two, since most of their time goes into compiling; and beside them, once
# before anything is timed, what is timed later, so that Triton finds it compiled on the disk then.
prove_and_compile() {
  local -x OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1  # there are processes enough
  local file share
  if have_pytest; then
    # first of all: whether SMAX can be captured beside torch, and whether training can
    tests test_smax 110 "${PYTEST[@]}" tests/gpu/test_smax.py &
    tests test_training_graphs 110 "${PYTEST[@]}" tests/gpu/test_training.py -k graphs &
    tests test_training_others 110 "${PYTEST[@]}" tests/gpu/test_training.py -k 'not graphs' &
    tests test_smax_traces_v1 110 nice "${PYTEST[@]}" tests/gpu/test_smax_traces.py -k 'not smacv2' &
    tests test_smax_traces_v2 110 nice "${PYTEST[@]}" tests/gpu/test_smax_traces.py -k smacv2 &
    for file in $(basename -s .py tests/gpu/test_*.py); do
      case $file in test_smax | test_smax_traces | test_training | test_large) continue ;; esac
      tests "$file" 110 nice "${PYTEST[@]}" "tests/gpu/$file.py" &
    done
  fi
  run compile_levels 110 "$PYTHON" -m bench.gpu_training -f train/2s3z/4096 &
  run compile_seeds 110 "$PYTHON" -m bench.gpu_training -f 'train/2s3z/(512|128)' &
  run compile_separate 110 "$PYTHON" -m bench.gpu_training -f update/ &
  run compile_off_policy 110 "$PYTHON" -m bench.gpu_training -f off_policy/ &
  for share in 0 1 2; do run compile_kernels_$share 110 "$PYTHON" -m bench.gpu --compile $share 3 & done
  finish
}

# A small shape of every kernel. Memory comes from the driver, or torch's pools would hide what lies past an end.
SMALL="without_last_values or weight_zero or others_log_ratio or one_reset_for_all or chip_and_streamed \
or parameters_may_be_views or counters_alone or step_in_place or views_of_flat or every_step_or_never \
or extreme_inputs or may_lie_apart or cannot_be_taken or seeds_make_the_cpus_games \
or shape1 and (test_mix_and or agent_embedding)"
check_memory() {
  local -x PYTORCH_NO_CUDA_MEMORY_CACHING=1
  if ! command -v compute-sanitizer > /dev/null; then
    note "sanitizer: left out, compute-sanitizer is not on the PATH"
    return
  fi
  local look=(compute-sanitizer --error-exitcode 1 "${PYTEST[@]}" -k "$SMALL")
  tests sanitizer_smax 55 "${look[@]}" tests/gpu/test_smax.py &  # half a minute to compile
  tests sanitizer 55 "${look[@]}" tests/gpu --ignore tests/gpu/test_smax.py
  wait
}

{ nvidia-smi; "$PYTHON" -m pip list; } > "$OUT/machine.txt" 2>&1 &
# setup.py alone: it needs nothing of pyproject.toml, whose licence setuptools below 77 does not take
mkdir -p build/alone && ln -sfn ../../{setup.py,csrc,kpg_fast} build/alone/
KPG_BUILD_JOBS=$(nproc) run build 55 env -C build/alone "$PYTHON" setup.py build_ext --inplace -q
finish
have_pytest || PYTHONPATH="$PYTHONPATH:$PWD/.gpu_site"  # behind what the machine has, before what it lacks
have_pytest || note "tests: exit 1, left out: this Python has no pytest. Where there is a network, run" \
  "'$0 pack', and bring the folder .gpu_site, which git ignores, with the tree"
prove_and_compile
run training 125 "$PYTHON" -m bench.gpu_training --out "$OUT/training.jsonl"
run profile 55 "$PYTHON" -m bench.gpu_profile --out "$OUT/profile.txt"
run kernels 45 "$PYTHON" -m bench.gpu --out "$OUT/kernels.jsonl"
if have_pytest; then
  check_memory &
  tests test_large 55 "${PYTEST[@]}" tests/gpu/test_large.py &  # tens of gigabytes, so beside little else
fi
finish
rmdir "$LOGS"
# what was only compiled may have been cut off without harm
! grep -v '^compile_' "$OUT/summary.txt" | grep -q ': exit [1-9]'
