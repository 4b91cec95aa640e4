/** Decimal texts as people read them, exactly: no number is made of money. One fixed locale, en-US. */

export const MINUS = "−";
export const DASH = "—";
const MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec";
const OPTION = /^([A-Z]{1,6}\d?)(\d\d)(\d\d)(\d\d)([CP])(\d{5})(\d{3})$/;
const UNITS: readonly (readonly [number, string])[] = [[86_400, "d"], [3_600, "h"], [60, "min"]];
const DECIMALS_MAX = 20;
const LOCALE = "en-US";

type Text = string | null | undefined;

/** 1 where a decimal text is above zero, -1 below, 0 at zero; null where it is none. */
export function signOf(text: Text): -1 | 0 | 1 | null {
  if (!text || !/\d/.test(text)) return null;
  if (!/[1-9]/.test(text)) return 0;
  return text.startsWith("-") ? -1 : 1;
}

const writers = new Map<string, Intl.NumberFormat>(); // one is dear to make; there are as many as kinds of columns

/** Half away from zero. A text is read as it is, not as a number: all its digits count. */
function written(text: Text, style: "decimal" | "currency" | "percent", least: number, most: number, signDisplay: "negative" | "exceptZero"): string {
  if (!/^-?\d+(\.\d+)?$/.test(text ?? "")) return DASH;
  const key = style + least + signDisplay + most;
  const options = { style, currency: "USD", minimumFractionDigits: least, maximumFractionDigits: Math.max(least, most), signDisplay } as const;
  const writer = writers.get(key) ?? new Intl.NumberFormat(LOCALE, options);
  writers.set(key, writer);
  return writer.format(text as `${number}`).replace("-", MINUS);
}

/** "-1234.5" with 2 decimals is "−1,234.50". More digits than `decimals` are kept unless `decimalsMax` is less. */
export function decimal(text: Text, decimals = 0, decimalsMax = DECIMALS_MAX): string {
  return written(text, "decimal", decimals, decimalsMax, "negative");
}

/** "-1234.50" is "−$1,234.50"; null is a dash. */
export function money(text: Text, decimals = 2, decimalsMax = DECIMALS_MAX): string {
  return written(text, "currency", decimals, decimalsMax, "negative");
}

/** Money that was gained or lost: "+$5.00", "−$5.00", "$0.00". */
export function gain(text: Text): string {
  return written(text, "currency", 2, DECIMALS_MAX, "exceptZero");
}

/** 0.0117402 is "+1.17%"; null is "". */
export function percent(ratio: number | null | undefined, isSigned = true): string {
  return Number.isFinite(ratio) ? written((ratio as number).toFixed(9), "percent", 2, 2, isSigned ? "exceptZero" : "negative") : "";
}

/** One money divided by another, for a percentage; null where that says nothing. */
export function ratioOf(part: Text, whole: Text): number | null {
  const ratio = Number(part ?? NaN) / Math.abs(Number(whole ?? NaN));
  return Number.isFinite(ratio) ? ratio : null;
}

/** "1209.27" and 0.0117402 are "+$1,209.27 (+1.17%)". */
export function gainWithPercent(text: Text, ratio: number | null | undefined): string {
  const shown = percent(ratio);
  return gain(text) + (shown && ` (${shown})`);
}

/** 4000 is "1 h": the largest whole unit. */
export function age(seconds: number): string {
  const [size, unit] = UNITS.find(([size]) => seconds >= size) ?? [1, "s"];
  return `${Math.floor(seconds / size)} ${unit}`;
}

/** "AAPL251219C00150000" is "AAPL 19 Dec 2025 150 call"; any other symbol is itself. */
export function readableSymbol(symbol: string): string {
  const found = OPTION.exec(symbol);
  if (!found) return symbol;
  const [, root, year, month, day, side, dollars, mills] = found as unknown as string[];
  const at = (Number(month) - 1) * 3;
  return `${root} ${Number(day)} ${MONTHS.slice(at, at + 3)} 20${year} ${decimal(`${Number(`${dollars}.${mills}`)}`)} ${side === "C" ? "call" : "put"}`;
}

/** A time of day on this device; on a page it must not be rendered by a server, whose zone is another. */
export function clockTime(when: number | string, withSeconds = true): string {
  return new Date(when).toLocaleTimeString(LOCALE, { hour: "numeric", minute: "2-digit", ...(withSeconds && { second: "2-digit" }) }).replace("\u202f", " ");
}

export function calendarDay(when: number | string, withYear = false): string {
  return new Date(when).toLocaleDateString(LOCALE, { month: "short", day: "numeric", ...(withYear && { year: "numeric" }) });
}
