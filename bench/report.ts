/** Distributions, printed as a table for people and as JSON for machines. */
export interface Distribution {
  n: number;
  min: number;
  p50: number;
  p90: number;
  p99: number;
  max: number;
}

export function distribution(values: number[]): Distribution {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (q: number) => round(sorted[Math.min(sorted.length - 1, Math.ceil(q * sorted.length) - 1)]!);
  return {
    n: sorted.length,
    min: round(sorted[0]!),
    p50: at(0.5),
    p90: at(0.9),
    p99: at(0.99),
    max: round(sorted.at(-1)!),
  };
}

const round = (value: number) => Math.round(value * 10) / 10;

export function show(title: string, results: Record<string, Distribution>): void {
  console.log(`\n${title}`);
  console.table(results);
  console.log(JSON.stringify({ bench: title, results }));
}
