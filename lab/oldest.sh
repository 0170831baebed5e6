#!/usr/bin/env bash
# The NumPy half's tests, and a smoke of the Keras half, on the lowest versions that
# requirements.txt allows (uv resolves them): lab/oldest.sh [python3.11] [folder]
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
folder=${2:-.venv-oldest}
test -x "$folder/bin/python" || "$python" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check uv
export VIRTUAL_ENV="$PWD/$folder"
case $folder in /*) VIRTUAL_ENV=$folder ;; esac
# In one call: the packages of the tests must not lift those of requirements.txt.
"$folder/bin/uv" pip install --quiet --resolution lowest-direct -r requirements.txt \
  'pytest>=8' 'hypothesis>=6.100' 'trustme>=1.2' 'pylibjpeg-libjpeg>=2.2' \
  'medpy>=0.5.2' 'SimpleITK>=2.4'
"$folder/bin/python" -m pip list --disable-pip-version-check --format=freeze |
  grep -iE "^(keras|tensorflow|numpy|scipy|opencv|pillow|matplotlib|scikit-learn|h5py|pydicom)[a-z-]*=="
# An error that a compiled package swallows is a failure: SciPy 1.11 swallowed one over wrong groups.
"$folder/bin/python" -m pytest -q -p no:cacheprovider -m "not slow" \
  -W error::pytest.PytestUnraisableExceptionWarning \
  tests/test_images.py tests/test_dicom.py tests/test_metrics.py tests/test_evaluation.py \
  tests/test_augment.py tests/test_dataset.py tests/test_phantoms.py tests/test_plots.py \
  tests/test_report.py tests/test_duplicates.py tests/test_source.py tests/test_honesty.py \
  tests/test_shift.py tests/test_model.py tests/test_inference.py tests/test_weights.py
