import { describe, expect, it } from "vitest";
import { age, decimal, gain, gainWithPercent, money, percent, ratioOf, readableSymbol, signOf } from "../src/format.js";

describe("money is text, exactly", () => {
  it.each([
    ["104211.37", "$104,211.37"], ["-1234.5", "−$1,234.50"], ["0.00", "$0.00"], ["-0.00", "$0.00"],
    ["9007199254740993123.45", "$9,007,199,254,740,993,123.45"], ["1234567", "$1,234,567.00"],
    [null, "—"], [undefined, "—"], ["NaN", "—"], ["", "—"], ["1e5", "—"],
  ])("%j is %j", (text, shown) => expect(money(text)).toBe(shown));

  it.each([["1.005", 2, "1.01"], ["0.0049", 2, "0.00"], ["-0.004", 2, "0.00"], ["999.995", 2, "1,000.00"], ["12.5", 0, "13"], ["0.123456789", 4, "0.1235"]])(
    "%j to %i digits is %j", (text, digits, shown) => expect(decimal(text, digits, digits)).toBe(shown));

  it.each([["5.00", "+$5.00"], ["-5.00", "−$5.00"], ["0.00", "$0.00"], [null, "—"]])("a gain of %j is %j", (text, shown) => expect(gain(text)).toBe(shown));
});

it.each([[0.0117402, "+1.17%"], [-0.0117402, "−1.17%"], [0, "0.00%"], [0.00001, "0.00%"], [-0.00001, "0.00%"], [123.456, "+12,345.60%"], [null, ""], [Number.NaN, ""]])(
  "a ratio of %j is %j", (ratio, shown) => expect(percent(ratio)).toBe(shown));

it("signs, ratios, ages and both together", () => {
  expect(["1.00", "-1.00", "-0.00", null, "", "NaN", "—"].map(signOf)).toEqual([1, -1, 0, null, null, null, null]);
  expect([ratioOf("5.00", "-100.00"), ratioOf("5.00", "0.00"), ratioOf(null, "1.00")]).toEqual([0.05, null, null]);
  expect([0, 59, 60, 3600, 90_000].map(age)).toEqual(["0 s", "59 s", "1 min", "1 h", "1 d"]);
  expect(gainWithPercent("1209.27", 0.0117402)).toBe("+$1,209.27 (+1.17%)");
  expect(gainWithPercent("0.00", null)).toBe("$0.00");
});

it.each([["AAPL251219C00150000", "AAPL 19 Dec 2025 150 call"], ["SPXW260102P05012500", "SPXW 2 Jan 2026 5,012.5 put"], ["BRK.B", "BRK.B"], ["BTC/USD", "BTC/USD"]])(
  "%s reads as %s", (symbol, shown) => expect(readableSymbol(symbol)).toBe(shown));
