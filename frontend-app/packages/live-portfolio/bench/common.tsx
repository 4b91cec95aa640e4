// The same table as it is commonly written: the messages in a component's state, one render for each.
import { useEffect, useState } from "react";
import { createRoot } from "react-dom/client";
import type { PortfolioMessage, PositionRow } from "../src/messages.js";

const dollars = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD" });
const percent = new Intl.NumberFormat("en-US", { style: "percent", minimumFractionDigits: 2 });
const money = (text: string | null | undefined) => (text == null ? "—" : dollars.format(Number(text)));
const window_ = window as unknown as { renders: number };
window_.renders = 0;

function Portfolio() {
  const [message, setMessage] = useState<PortfolioMessage | null>(null);
  const [rows, setRows] = useState<Record<string, PositionRow>>({});
  useEffect(() => {
    const socket = new WebSocket(`${location.origin.replace("http", "ws")}/ws/portfolio/bench?detail=positions`);
    socket.onmessage = ({ data }) => {
      const received = JSON.parse(data) as PortfolioMessage;
      setMessage(received);
      setRows((before) => {
        const after = { ...before };
        for (const row of received.positions ?? []) after[row.symbol] = row;
        return after;
      });
    };
    return () => socket.close();
  }, []);
  window_.renders++;
  if (!message) return <p>Loading…</p>;
  const sorted = Object.values(rows).sort((one, other) => Number(other.market_value) - Number(one.market_value));
  return (
    <div>
      <p>{money(message.equity)}</p>
      <p>{money(message.day_pnl)} ({percent.format(message.day_pnl_ratio ?? 0)})</p>
      <table>
        <thead><tr>{["Symbol", "Quantity", "Price", "Average cost", "Market value", "Weight", "Today", "Total gain"].map((text) => <th key={text}>{text}</th>)}</tr></thead>
        <tbody>{sorted.map((row) => <Line key={row.symbol} row={row} equity={message.equity} />)}</tbody>
      </table>
    </div>
  );
}

function Line({ row, equity }: { row: PositionRow; equity: string | null }) {
  const value = Number(row.market_value);
  const cost = value - Number(row.unrealized_pnl);
  return (
    <tr>
      <th>{row.symbol}</th>
      <td>{row.quantity}</td>
      <td>{money(row.mark)}</td>
      <td>{dollars.format(cost / Number(row.quantity))}</td>
      <td>{money(row.market_value)}</td>
      <td>{percent.format(value / Number(equity))}</td>
      <td>{money(row.day_pnl)} <small>{percent.format(Number(row.day_pnl) / (value - Number(row.day_pnl)))}</small></td>
      <td>{money(row.unrealized_pnl)} <small>{percent.format(Number(row.unrealized_pnl) / cost)}</small></td>
    </tr>
  );
}

createRoot(document.querySelector("#root") as HTMLElement).render(<Portfolio />);
