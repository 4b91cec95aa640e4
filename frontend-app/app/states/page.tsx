import type { Metadata } from "next";
import { States } from "@/components/States";

export const metadata: Metadata = { title: "Every state of every component" };

export default function Page() {
  return <States />;
}
