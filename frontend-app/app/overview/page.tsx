"use client";
import Link from "next/link";
import { useSearchParams } from "next/navigation";
import { Suspense } from "react";
import { AccountForm } from "@/components/AccountForm";
import { Overview } from "@/components/Overview";

/** `/overview?accounts=ID,ID`: several accounts on one connection. */
function Chosen() {
  const accountIds = [...new Set((useSearchParams().get("accounts") ?? "").split(",").map((id) => id.trim()).filter(Boolean))];
  if (!accountIds.length) return <AccountForm name="accounts" label="Account ids" hint="Separated by commas." />;
  return <Overview accountIds={accountIds} link={(accountId, name) => <Link href={`/?account=${encodeURIComponent(accountId)}`} title={accountId}>{name}</Link>} />;
}

export default function Page() {
  return <Suspense fallback={<p className="card">Loading…</p>}><Chosen /></Suspense>;
}
