import type { Metadata } from "next";
import Link from "next/link";
import type { ReactNode } from "react";
import { Live } from "@/components/Live";
import "live-portfolio/styles.css";
import "./app.css";

export const metadata: Metadata = { title: "Portfolio, live", description: "The live value of brokerage accounts" };

export default function Layout({ children }: { readonly children: ReactNode }) {
  return (
    <html lang="en">
      <body>
        <header>
          <h1>Portfolio</h1>
          <nav aria-label="Pages">
            <Link href="/">Account</Link>
            <Link href="/overview">Overview</Link>
            <Link href="/states">States</Link>
          </nav>
        </header>
        <main><Live>{children}</Live></main>
      </body>
    </html>
  );
}
