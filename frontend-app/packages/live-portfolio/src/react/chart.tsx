"use client";
import { useCallback } from "react";
import { type DayChartOptions, createDayChart } from "../dom/chart.js";
import { useLivePortfolio } from "./context.js";
import { Drawn } from "./view.js";

export type { Range } from "../dom/series.js";

export interface DayChartProps extends Omit<DayChartOptions, "client"> {
  readonly className?: string;
}

/** The value over time in SVG: gaps stay gaps, the last close is the base line, keys and a table read it. */
export function DayChart({ accountId, range = "1d", ranges, label, className = "" }: DayChartProps) {
  const client = useLivePortfolio();
  const offered = ranges?.join();
  const make = useCallback(
    (container: HTMLElement) => createDayChart(container, { client, accountId, range, ...(offered && { ranges: offered.split(",") as NonNullable<typeof ranges> }), ...(label && { label }) }),
    [client, accountId, range, offered, label],
  );
  return <Drawn make={make} className={className} />;
}
