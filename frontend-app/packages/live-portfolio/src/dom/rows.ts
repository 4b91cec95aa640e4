/** What the rows of a table show, as text; no DOM. */
import { DASH, age, decimal, gain, money, percent, ratioOf, readableSymbol, signOf } from "../format.js";
import type { PositionRow } from "../messages.js";
import type { Value } from "../types.js";

export type Row = Readonly<PositionRow>;
export type Column = "symbol" | "quantity" | "mark" | "cost" | "value" | "weight" | "day" | "total";

const QUALITIES: Readonly<Record<string, string>> = { delayed: "delayed", indicative: "indicative", end_of_day: "previous close", halted: "halted" };
const DECIMALS_MAX = 4; // of a column; what would be 0 with so few is shown whole

/** What is paid for a position: what it is worth without what was gained. */
export function costOf(row: Row): number | null {
  if (row.market_value == null || row.unrealized_pnl == null) return null;
  return Number(row.market_value) - Number(row.unrealized_pnl);
}

/** Paid for one share, coin or unit of an option. */
export function averageCost(row: Row): number | null {
  const [cost, quantity, mark] = [costOf(row), Number(row.quantity), Number(row.mark ?? NaN)];
  if (cost === null || !quantity || !mark) return null;
  const multiplier = Math.max(1, Math.round(Number(row.market_value) / (quantity * mark))); // options count by the hundred
  return cost / (quantity * multiplier);
}

/** What was gained today, of what was at work; a position that is closed has no such figure. */
export function dayRatio(row: Row): number | null {
  if (row.day_pnl == null || row.market_value == null || signOf(row.quantity) === 0) return null;
  return ratioOf(row.day_pnl, String(Number(row.market_value) - Number(row.day_pnl)));
}

export function totalRatio(row: Row): number | null {
  const cost = costOf(row);
  return cost === null || signOf(row.quantity) === 0 ? null : ratioOf(row.unrealized_pnl, String(cost));
}

export function weight(row: Row, value: Value | null): number | null {
  return value?.equity == null || signOf(value.equity) !== 1 || signOf(row.market_value) === 0 ? null : ratioOf(row.market_value, value.equity);
}

/** How many decimals a column has that had `least` so far: those of its longest number, within bounds. */
export function decimalsOf(text: string | null | undefined, least: number): number {
  const point = text?.indexOf(".") ?? -1;
  return point < 0 ? least : Math.max(least, Math.min((text as string).length - point - 1, DECIMALS_MAX));
}

/** A number with its column's decimals, or whole where these would hide it. */
export function inColumn(text: string | null | undefined, decimals: number, write: typeof decimal): string {
  if (signOf(text) === 0) return write("0", write === decimal ? 0 : decimals); // closed: no column of zeros
  const isHidden = text != null && Math.abs(Number(text)) < 10 ** -decimals;
  return isHidden ? write(text, decimals) : write(text, decimals, decimals);
}

/** The text of each cell that only the row decides: a first line, and a second that may be empty. */
export function cellsOf(row: Row, decimals: { readonly quantity: number; readonly mark: number }) {
  const average = averageCost(row);
  return {
    symbol: [readableSymbol(row.symbol), ""],
    quantity: [inColumn(row.quantity, decimals.quantity, decimal), ""],
    mark: [inColumn(row.mark, decimals.mark, money), ""],
    cost: [average === null ? DASH : inColumn(average.toFixed(8), 2, money), ""],
    value: [money(row.market_value), ""],
    day: [gain(row.day_pnl), percent(dayRatio(row))],
    total: [gain(row.unrealized_pnl), percent(totalRatio(row))],
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

/** By what a column sorts; what is not known comes last in both directions. */
export function sortKey(row: Row, column: Column): number | string | null {
  const number = (text: string | null | undefined) => (text == null ? null : Number(text));
  switch (column) {
    case "symbol": return row.symbol;
    case "quantity": return number(row.quantity);
    case "mark": return number(row.mark);
    case "cost": return averageCost(row);
    case "day": return number(row.day_pnl);
    case "total": return number(row.unrealized_pnl);
    default: return number(row.market_value);
  }
}

export function sorted(rows: Iterable<Row>, column: Column, isDescending: boolean): Row[] {
  const keyed = Array.from(rows, (row) => ({ row, key: sortKey(row, column) }));
  const sign = isDescending ? -1 : 1;
  keyed.sort((one, other) => {
    if (one.key === null || other.key === null) return Number(one.key === null) - Number(other.key === null) || bySymbol(one.row, other.row);
    const order = one.key < other.key ? -1 : one.key > other.key ? 1 : 0;
    return sign * order || bySymbol(one.row, other.row);
  });
  return keyed.map(({ row }) => row);
}

function bySymbol(one: Row, other: Row): number {
  return one.symbol < other.symbol ? -1 : 1;
}
