#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Turns the JSON lines of `flashinfer bench --json` into a CSV file whose first line is the command that made them.

Usage: flashinfer bench --json OPTION... | tools/bench_csv.py 'flashinfer bench OPTION...' > bench/results/CHIP/NAME.csv
"""

import csv
import json
import sys


def main():
    rows = [json.loads(line) for line in sys.stdin if line.strip()]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    print("# " + sys.argv[1])
    writer = csv.DictWriter(sys.stdout, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()})


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main()
