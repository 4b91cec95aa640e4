/** Whose request this is, and which accounts are theirs. Put your own sign-in here: */
// Supabase:  const { data } = await (await createClient()).auth.getUser();   data.user?.id
// Clerk:     const { userId } = await auth();
// Auth0:     const session = await auth0.getSession();                       session?.user.sub
export async function currentUser(): Promise<{ readonly id: string; readonly accounts: readonly string[] } | null> {
  const local = process.env.NODE_ENV === "development" ? process.env.LOCAL_ACCOUNTS : undefined;
  return local ? { id: "local", accounts: local.split(",") } : null;
}
