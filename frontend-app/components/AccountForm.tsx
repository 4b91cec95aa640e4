/** Which account; the answer is an address that can be kept. */
export function AccountForm({ name, label, hint }: { readonly name: string; readonly label: string; readonly hint: string }) {
  return (
    <form className="card" method="get">
      <label htmlFor={name}>{label}</label>
      <input id={name} name={name} required autoComplete="off" spellCheck={false} aria-describedby={`${name}-hint`} />
      <p id={`${name}-hint`} className="hint">{hint}</p>
      <button>Watch</button>
    </form>
  );
}
