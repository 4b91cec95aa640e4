/** In place of the package's: this page comes from the server itself, so there is one address and nothing to check. */
import type { Address } from "../../live-portfolio/src/address.js";

export { isAccountId, withQuery } from "../../live-portfolio/src/address.js";

export function addressesOf(): Address[] {
  const http = location.origin;
  const base = `${http.replace("http", "ws")}/ws`;
  return [{ http, several: base, one: (accountId) => `${base}/portfolio/${accountId}` }];
}
