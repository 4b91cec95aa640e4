import { createHmac } from "node:crypto";
import { currentUser } from "@/lib/session";

const LIFETIME_S = 900; // the browser asks for another before it ends

/** A token for the WebSocket server: who it is, and which accounts they may watch. The secret stays here. */
export async function POST(): Promise<Response> {
  const [user, secret] = [await currentUser(), process.env.JWT_SECRET];
  if (!user) return Response.json({ detail: "sign in first" }, { status: 401 });
  if (!secret) return Response.json({ detail: "JWT_SECRET is not set; it is the WebSocket server's" }, { status: 500 });
  const part = (content: object) => Buffer.from(JSON.stringify(content)).toString("base64url");
  const claims = { sub: user.id, accounts: user.accounts, exp: Math.floor(Date.now() / 1000) + LIFETIME_S };
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  const token = `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
  return Response.json({ token }, { headers: { "Cache-Control": "no-store" } });
}
