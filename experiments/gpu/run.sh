#!/usr/bin/env bash
# Run everything that needs a GPU, in under ten minutes and without a package index.
#   run.sh prepare         once, with network: puts wheels and MNIST into .carry/ (at most 64 MiB)
#   run.sh FOLDER          on the GPU machine, which has torch, torchvision and the usual scientific
#                          packages: writes gpu.json and gpu.md; without a GPU it runs the same,
#                          shortened, on the CPU
#   run.sh FOLDER ROW ...  spends the ten minutes on rows of experiments/results; an unfinished run is
#                          in FOLDER/ROW-SEED.tar.gz and goes on if that lies in .carry/runs/
set -euo pipefail
cd "$(dirname "$0")/../.."
carry=$PWD/.carry

if [ "${1:-}" = prepare ]; then
  root=${PYRO_VAE_DATA:?the folder that holds MNIST/raw}
  mkdir -p "$carry/wheels" "$carry/data"
  # Without dependencies: torch, torchvision and what comes with them are on the machine.
  pip download --quiet --no-deps --only-binary :all: --python-version "${PYTHON_VERSION:-3.12}" --platform manylinux_2_28_x86_64 \
    --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 --dest "$carry/wheels" -r experiments/gpu/wheels.txt
  tar -C "$root" -cJf "$carry/data/mnist.tar.xz" MNIST/raw
  du -sm "$carry"
  exit
fi

out=${1:?a folder to write to}
shift
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/runs"
for run in "$carry"/runs/*.tar.gz; do
  if [ -e "$run" ]; then tar -C "$work/runs" -xzf "$run"; fi
done
python=${PYTHON:-python3}
"$python" -m pip install --quiet --no-index --no-deps --target "$work/packages" "$carry"/wheels/*.whl
tar -C "$work" -xJf "$carry/data/mnist.tar.xz"
export PYTHONPATH=$PWD:$work/packages PYRO_VAE_DATA=$work TORCHINDUCTOR_CACHE_DIR=$work/inductor RUNS=$work/runs
export XLA_PYTHON_CLIENT_PREALLOCATE=false  # JAX would take most of the GPU's memory
"$python" experiments/gpu/run.py "$out" "$@"
