/** What a person calls an account: the broker's number, else as much of its id as tells it from others. */
export function nameOf(accountId: string, number?: string): string {
  return number ?? accountId.replace(/^(.{8}).{6,}/, "$1…");
}
