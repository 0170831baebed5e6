#!/bin/sh
# Get a headless Chromium for tests/test_page.py: the one that is there, in CI the system's package,
# else Playwright's own build. It never fails: without a browser that test is skipped and says so.
for name in chromium-headless-shell chromium chromium-browser google-chrome; do
  command -v "$name" >/dev/null && exit 0
done
if [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  packages="--no-install-recommends chromium-headless-shell fonts-dejavu-core"
  export DEBIAN_FRONTEND=noninteractive
  # Only the download can hang, so only it is cut off; an installation is never left half done.
  timeout 20 apt-get update -qq >/dev/null 2>&1
  # shellcheck disable=SC2086
  if timeout 60 apt-get install -y -qq --download-only $packages >/dev/null 2>&1; then
    apt-get install -y -qq --no-download $packages >/dev/null 2>&1 && exit 0
  fi
fi
timeout 60 "$1" -m playwright install chromium-headless-shell >/dev/null 2>&1 ||
  echo "No Chromium could be had; the report page is not tested in a browser."
exit 0
