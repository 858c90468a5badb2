#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Files of figures begin with a comment that says where they come from, and every row has the columns of the head above it.
set -u
exec python3 - <<'PYTHON'
import csv
import glob
import sys

status = 0
for name in sorted(glob.glob("bench/results/*/*.csv")):
    head = None
    with open(name, newline="") as file:
        lines = file.read().splitlines()
    if not lines or not lines[0].startswith("#"):
        print(f"{name}: the first line does not say what made it")
        status = 1
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            head = None
            continue
        columns = len(next(csv.reader([line]), ()))
        head = head or columns
        if columns != head:
            print(f"{name}:{number}: {columns} columns, the head has {head}")
            status = 1
sys.exit(status)
PYTHON
