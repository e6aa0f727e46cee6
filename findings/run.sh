#!/usr/bin/env bash
# Run every finding, or those that are named: bash findings/run.sh [NAME...]; PYTHON=... chooses the Python.
cd "$(dirname "$0")"
[ "$#" -gt 0 ] || set -- $(ls -- *.sh | grep -vx run.sh | sed "s,[.]sh$,,")
same=0 changed=0 not_run=0
for name in "$@"; do
    printf '\n== %s\n' "$name"
    timeout 300 bash "$name.sh"
    case $? in
        0) same=$((same + 1)) ;;
        77) not_run=$((not_run + 1)) ;;
        *) changed=$((changed + 1)) && echo "CHANGED: $name" ;;
    esac
done
printf '\n%s findings as described, %s changed, %s not run\n' "$same" "$changed" "$not_run"
[ "$changed" = 0 ]
