# Writes a selections.jsonl for the policy `replay`: in each of 200 steps two layers without replacement, layer i with weight i.
#
#   awk -v seed=0 -v weights="3540 3624 2735 1239 681 630 520 538" -f experiments/small/draw-pairs.awk > known-0.jsonl
#   ist train experiments/small/base.toml --set seed=0 --set policy.kind=replay --set policy.path=known-0.jsonl
BEGIN {
  srand(seed + 1); n = split(weights, given, " ")
  for (t = 0; t < 200; t++) {
    sum = 0
    for (i = 1; i <= n; i++) { w[i] = given[i]; sum += w[i] }
    for (k = 0; k < 2; k++) {
      u = rand() * sum; i = 1
      while (i < n && u >= w[i]) { u -= w[i]; i++ }
      drawn[k] = i - 1; sum -= w[i]; w[i] = 0
    }
    low = drawn[0] < drawn[1] ? drawn[0] : drawn[1]
    printf "{\"step\": %d, \"layers\": [%d, %d]}\n", t, low, drawn[0] + drawn[1] - low
  }
}
