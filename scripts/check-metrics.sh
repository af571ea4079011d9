#!/usr/bin/env bash
# A page with everything on it, the alert rules and their tests, through promtool, which is part of Debian's package
# prometheus. Without it this does nothing: the tests of the program check names and form all the same.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh

if ! command -v promtool >/dev/null; then
    echo "skipped: promtool is not installed (Debian: apt-get install prometheus)"
    exit 0
fi
need_cargo
need_build
install_missing

dir=$(mktemp -d)
trap 'rm -r "$dir"' EXIT
REFEREE_METRICS_PAGE="$dir/page" cargo test --quiet --locked -p referee --bin referee a_page_is_well_formed >"$dir/log" 2>&1 ||
    { cat "$dir/log" >&2; exit 1; }
# Of the expressions in the dashboard, rules that nobody evaluates: whether they can be read is all that is asked.
python3 - docs/grafana/referee.json >"$dir/dashboard.yml" <<'PYTHON'
import json, sys

print("groups:\n  - name: dashboard\n    rules:")
for panel in json.load(open(sys.argv[1]))["panels"]:
    for target in panel.get("targets", []):
        asked = target["expr"].replace("$__rate_interval", "5m").replace("$__range", "1h")
        print(f"      - record: panel_{panel['id']}_{target['refId']}\n        expr: {json.dumps(asked)}")
PYTHON

promtool check metrics <"$dir/page"
promtool check rules docs/prometheus/alerts.yml "$dir/dashboard.yml"
(cd docs/prometheus && promtool test rules alerts_test.yml)
promtool check config --syntax-only docs/prometheus/scrape.yml
