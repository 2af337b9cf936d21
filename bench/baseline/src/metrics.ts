// The duration histogram that the plan asks for, in Prometheus' text format.
const BUCKETS = [0.01, 0.05, 0.1, 0.5, 1, 2, 5];
const NAME = "http_request_duration_seconds";

interface Series {
  labels: string;
  counts: number[];
  sum: number;
}

const series = new Map<string, Series>();

export function observe(method: string, route: string, status: number, seconds: number) {
  const name = `${method} ${route} ${status}`;
  let one = series.get(name);
  if (!one) {
    one = { labels: `method="${method}",route="${route}",status="${status}"`, counts: new Array(BUCKETS.length + 1).fill(0), sum: 0 };
    series.set(name, one);
  }
  let bucket = 0;
  while (bucket < BUCKETS.length && seconds > BUCKETS[bucket]) bucket++;
  one.counts[bucket]++;
  one.sum += seconds;
}

export function render(): string {
  const lines = [`# TYPE ${NAME} histogram`];
  for (const { labels, counts, sum } of series.values()) {
    let below = 0;
    counts.forEach((count, bucket) => {
      below += count;
      lines.push(`${NAME}_bucket{${labels},le="${BUCKETS[bucket] ?? "+Inf"}"} ${below}`);
    });
    lines.push(`${NAME}_sum{${labels}} ${sum}`, `${NAME}_count{${labels}} ${below}`);
  }
  return `${lines.join("\n")}\n`;
}
