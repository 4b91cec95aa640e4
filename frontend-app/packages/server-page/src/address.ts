/** In place of the package's: this page comes from the server itself, so there is one address and nothing to check. */
import type { Address } from "../../live-portfolio/src/address.js";

export { isAccountId } from "../../live-portfolio/src/address.js";

export function addressesOf(): Address[] {
  const http = location.origin;
  return [{ http, several: null, one: (accountId) => `${http.replace("http", "ws")}/ws/portfolio/${accountId}` }];
}

export function withQuery(url: string, { detail, epoch, sequence }: Readonly<Record<string, string | number | undefined>>): string {
  return `${url}?detail=${detail}${epoch ? `&epoch=${epoch}&sequence=${sequence}` : ""}`;
}
