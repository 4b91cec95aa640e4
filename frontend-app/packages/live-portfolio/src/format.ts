/** Decimal texts as people read them, exactly: no number is made of money. One fixed locale, en-US. */

export const MINUS = "−";
export const DASH = "—";
const MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec";
const OPTION = /^([A-Z]{1,6}\d?)(\d\d)(\d\d)(\d\d)([CP])(\d{5})(\d{3})$/;
const UNITS: readonly (readonly [number, string])[] = [[86_400, "d"], [3_600, "h"], [60, "min"]];

type Text = string | null | undefined;

/** 1 where a decimal text is above zero, -1 below, 0 at zero; null where it is none. */
export function signOf(text: Text): -1 | 0 | 1 | null {
  if (text === null || text === undefined) return null;
  if (!/[1-9]/.test(text)) return 0;
  return text.startsWith("-") ? -1 : 1;
}

/** "-1234.5" with 2 decimals is "−1,234.50". More digits than `decimals` are kept unless `decimalsMax` is less. */
export function decimal(text: Text, decimals = 0, decimalsMax = Infinity): string {
  if (text === null || text === undefined || !/^-?\d+(\.\d+)?$/.test(text)) return DASH;
  const [whole = "0", fraction = ""] = rounded(text.replace("-", ""), decimalsMax).split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  const digits = fraction.padEnd(decimals, "0");
  const isNegative = text.startsWith("-") && /[1-9]/.test(whole + fraction);
  return (isNegative ? MINUS : "") + grouped + (digits && `.${digits}`);
}

/** Half away from zero, on the text. */
function rounded(text: string, decimals: number): string {
  const [whole = "0", fraction = ""] = text.split(".");
  if (fraction.length <= decimals) return text;
  const scaled = BigInt(whole + fraction.slice(0, decimals)) + (Number(fraction[decimals]) >= 5 ? 1n : 0n);
  const digits = scaled.toString().padStart(decimals + 1, "0");
  return decimals ? `${digits.slice(0, -decimals)}.${digits.slice(-decimals)}` : digits;
}

/** "-1234.50" is "−$1,234.50"; null is a dash. */
export function money(text: Text, decimals = 2, decimalsMax?: number): string {
  const shown = decimal(text, decimals, decimalsMax);
  if (shown === DASH) return DASH;
  return shown.startsWith(MINUS) ? `${MINUS}$${shown.slice(1)}` : `$${shown}`;
}

/** Money that was gained or lost: "+$5.00", "−$5.00", "$0.00". */
export function gain(text: Text): string {
  return (signOf(text) === 1 ? "+" : "") + money(text);
}

/** 0.0117402 is "+1.17%"; null is "". */
export function percent(ratio: number | null | undefined, isSigned = true): string {
  if (ratio === null || ratio === undefined || !Number.isFinite(ratio)) return "";
  const text = (Math.abs(ratio) * 100).toFixed(2);
  const sign = Number(text) === 0 ? "" : ratio < 0 ? MINUS : isSigned ? "+" : "";
  return `${sign}${text.replace(/\B(?=(\d{3})+\.)/g, ",")}%`;
}

/** One money divided by another, for a percentage; null where that says nothing. */
export function ratioOf(part: Text, whole: Text): number | null {
  const [numerator, denominator] = [Number(part ?? NaN), Number(whole ?? NaN)];
  return Number.isFinite(numerator) && denominator ? numerator / Math.abs(denominator) : null;
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
  const strike = decimal(`${Number(dollars)}.${mills}`.replace(/\.?0+$/, ""));
  const at = (Number(month) - 1) * 3;
  return `${root} ${Number(day)} ${MONTHS.slice(at, at + 3)} 20${year} ${strike} ${side === "C" ? "call" : "put"}`;
}

/** A time of day on this device; on a page it must not be rendered by a server, whose zone is another. */
export function clockTime(when: number | string, withSeconds = true): string {
  const second = withSeconds ? ({ second: "2-digit" } as const) : {};
  return new Date(when).toLocaleTimeString("en-US", { hour: "numeric", minute: "2-digit", ...second }).replace(" ", " ");
}

export function calendarDay(when: number | string, withYear = false): string {
  return new Date(when).toLocaleDateString("en-US", { month: "short", day: "numeric", ...(withYear ? { year: "numeric" } : {}) });
}
