"use client";
import { type DayChartOptions, createDayChart } from "../dom/chart.js";
import type { Range } from "../dom/series.js";
import { Drawn } from "./view.js";

export type { Range };

export interface DayChartProps extends Omit<DayChartOptions, "client"> {
  readonly className?: string;
}

/** The value over time in SVG: gaps stay gaps, the last close is the base line, keys and a table read it. */
export function DayChart({ accountId, range, ranges, label, className }: DayChartProps) {
  return <Drawn create={createDayChart} options={{ accountId, range, ranges, label }} className={className} />;
}
