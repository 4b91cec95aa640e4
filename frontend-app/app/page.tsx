"use client";
import { useSearchParams } from "next/navigation";
import { Suspense } from "react";
import { Account } from "@/components/Account";
import { AccountForm } from "@/components/AccountForm";

/** `/?account=ID`: a query, so that the same static file serves every account. */
function Chosen() {
  const accountId = useSearchParams().get("account");
  if (accountId) return <Account accountId={accountId} />;
  return <AccountForm name="account" label="Account id" hint="The demo (make run) lists its accounts on its own page." />;
}

export default function Page() {
  return <Suspense fallback={<p className="card">Loading…</p>}><Chosen /></Suspense>;
}
