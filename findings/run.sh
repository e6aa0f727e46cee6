#!/usr/bin/env bash
# Run every finding, or those that are named: bash findings/run.sh [NAME...]; PYTHON=... chooses the Python.
cd "$(dirname "$0")"
[ "$#" -gt 0 ] || set -- $(ls -- *.sh | grep -vx run.sh | sed "s,[.]sh$,,")
same=0 changed=0
for name in "$@"; do
    printf '\n== %s\n' "$name"
    if timeout 300 bash "$name.sh"; then same=$((same + 1)); else changed=$((changed + 1)); echo "CHANGED: $name"; fi
done
printf '\n%s findings as described, %s changed\n' "$same" "$changed"
[ "$changed" = 0 ]
