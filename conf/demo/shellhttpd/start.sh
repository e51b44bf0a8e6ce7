#!/bin/sh
# SPDX-License-Identifier: MIT
# Make one page of $MESSAGE and serve it on $PORT.
set -eu

www=/run/www
mkdir -p "$www"
cat > "$www/index.html" <<PAGE
<!DOCTYPE html>
<title>shellhttpd</title>
<h1>${MESSAGE}</h1>
<p>Served by $(busybox | head -n 1) in container $(hostname).</p>
PAGE

echo "shellhttpd: '${MESSAGE}' on port ${PORT}"
exec httpd -f -p "${PORT}" -h "$www"
