import type { Credentials } from "./credentials.js";
import type { Options, RequestOptions } from "./types.js";

/** An authorised GET; a refused token is renewed once. */
export async function request(url: string, credentials: Credentials, options: Options, init: RequestOptions = {}): Promise<Response> {
  const get = options.fetch ?? fetch;
  const ask = (token: string | null) => get(url, {
    headers: { ...init.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) },
    signal: init.signal ?? null,
  });
  const answer = await ask(credentials.token ?? (await credentials.forToken("connect")));
  return answer.status === 401 && options.getToken ? ask(await credentials.forToken("rejected")) : answer;
}

