"use client";
import { LivePortfolioProvider } from "live-portfolio/react";
import type { ReactNode } from "react";
import { client } from "@/lib/client";

/** Gives the app's one client to everything below. */
export function Live({ children }: { readonly children: ReactNode }) {
  return <LivePortfolioProvider client={client}>{children}</LivePortfolioProvider>;
}
