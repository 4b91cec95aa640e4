/** What the rows of a table show, as text; no DOM. */
import { age, decimal, gain, money, percent, readableSymbol, signOf } from "../format.js";
import type { PositionRow } from "../messages.js";
import type { Value } from "../types.js";

export type Row = Readonly<PositionRow>;
export type Column = "symbol" | "quantity" | "mark" | "cost" | "value" | "weight" | "day" | "total";

const QUALITIES: Readonly<Record<string, string>> = { delayed: "delayed", indicative: "indicative", end_of_day: "previous close", halted: "halted" };
const DECIMALS_MAX = 4; // of a column; what would be 0 with so few is shown whole

/** What is not known is NaN from here on, until it is a dash. */
function numberOf(text: string | null | undefined): number {
  return Number(text ?? NaN);
}

/** What is paid for a position: what it is worth without what was gained. */
function costOf(row: Row): number {
  return numberOf(row.market_value) - numberOf(row.unrealized_pnl);
}

/** Paid for one share, coin or unit of an option, which counts by the hundred. */
export function averageCost(row: Row): number {
  const quantity = numberOf(row.quantity);
  return costOf(row) / (quantity * Math.max(1, Math.round(numberOf(row.market_value) / (quantity * numberOf(row.mark)))));
}

/** A gain in what was at work for it; a position that is closed has no such figure. */
export function gainRatio(row: Row, gained: string | null | undefined): number {
  return signOf(row.quantity) === 0 ? NaN : numberOf(gained) / Math.abs(numberOf(row.market_value) - numberOf(gained));
}

export function weight(row: Row, value: Value | null): number {
  return signOf(value?.equity) === 1 && signOf(row.market_value) ? numberOf(row.market_value) / numberOf(value?.equity) : NaN;
}

/** How many decimals a column has that had `least` so far: those of its longest number without zeros at the end, within bounds. */
export function decimalsOf(text: string | null | undefined, least: number): number {
  const digits = text?.split(".")[1] ?? "";
  return Math.max(least, Math.min(digits.replace(/0+$/, "").length, DECIMALS_MAX));
}

/** A number with its column's decimals, or whole where these would hide it. */
export function inColumn(text: string | null | undefined, decimals: number, write: typeof decimal): string {
  if (signOf(text) === 0) return write("0", write === decimal ? 0 : decimals); // closed: no column of zeros
  return Math.abs(numberOf(text)) < 10 ** -decimals ? write(text, decimals) : write(text, decimals, decimals);
}

/** The text of each cell that only the row decides: a first line, and a second that may be empty. */
export function cellsOf(row: Row, decimals: { readonly quantity: number; readonly mark: number }) {
  return {
    symbol: [readableSymbol(row.symbol), ""],
    quantity: [inColumn(row.quantity, decimals.quantity, decimal), ""],
    mark: [inColumn(row.mark, decimals.mark, money), ""],
    cost: [inColumn(averageCost(row).toFixed(8), 2, money), ""],
    value: [money(row.market_value), ""],
    day: [gain(row.day_pnl), percent(gainRatio(row, row.day_pnl))],
    total: [gain(row.unrealized_pnl), percent(gainRatio(row, row.unrealized_pnl))],
  } satisfies Record<Exclude<Column, "weight">, [string, string]>;
}

/** What has to be said about a row, most important first. */
export function tagsOf(row: Row, value: Value | null): string[] {
  const tags: string[] = [];
  const ageS = value?.stale_ages_s?.[row.symbol];
  if (signOf(row.quantity) === 0) tags.push("closed today");
  else if (row.mark == null) tags.push("no price");
  else if (value?.stale.includes(row.symbol)) tags.push(ageS === undefined ? "old price" : `${age(ageS)} old`);
  const quality = QUALITIES[row.mark_quality ?? ""];
  if (quality) tags.push(quality);
  if (value?.unvalued?.includes(row.symbol)) tags.push("transferred");
  return tags;
}

const SORTED_BY: Readonly<Record<string, keyof Row>> = { quantity: "quantity", mark: "mark", day: "day_pnl", total: "unrealized_pnl" };

/** By what a column sorts; NaN where that is not known. */
function sortKey(row: Row, column: Column): number | string {
  if (column === "symbol") return row.symbol;
  return column === "cost" ? averageCost(row) : numberOf(row[SORTED_BY[column] ?? "market_value"]);
}

/** Rows in order; what is not known comes last in both directions. */
export function sorted(rows: Iterable<Row>, column: Column, isDescending: boolean): Row[] {
  const sign = isDescending ? -1 : 1;
  return Array.from(rows, (row) => [sortKey(row, column), row] as const).sort(([one, { symbol }], [other, row]) =>
    Number(one !== one) - Number(other !== other) || sign * compare(one, other) || compare(symbol, row.symbol)).map(([, row]) => row);
}

function compare(one: string | number, other: string | number): number {
  return one < other ? -1 : one > other ? 1 : 0;
}
