"use client";
import { LivePortfolioProvider, LivePortfolioValue as Value, type LivePortfolioValueProps } from "live-portfolio/react";
import { client } from "@/lib/client";

/** In place of the component of this name and with its props: two rows for inside of a card. */
export default function LivePortfolioValue(props: LivePortfolioValueProps) {
  return <LivePortfolioProvider client={client}><Value {...props} /></LivePortfolioProvider>;
}
